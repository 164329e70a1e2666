//! Reasoning about chains of others on the input hook: would they let an opening of a connection through, and if
//! not, where does a rule of ours belong?
//!
//! The rule goes as late as possible: in front of the first rule that drops whatever comes, or at the end where the
//! policy drops. So what an admin denies earlier stays denied. What isn't understood counts as a condition that may or
//! may not hold, and is never touched. A rule that denies our port by its number, or our peers by their network, is
//! the admin's word: it is reported and not overridden.

mod condition;
mod packet;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::desired::Family;
use crate::ruleset::{Chain, Rule, Ruleset};
use crate::{firewalld, statement, table};
use condition::{Holds, equals, holds};
pub(crate) use packet::Packet;

/// How deep jumps are followed; the kernel allows 16 (nft(8)).
const MAX_JUMP_DEPTH: usize = 16;
/// How many rules are looked at for one question. A ruleset that takes more is reported as not understood.
const MAX_STEPS: usize = 200_000;

/// What a base chain does with a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It lets it through, or at least does not drop it for good.
    Passes,
    /// It drops it, unless a rule stands in front of the rule of this index; the number of rules stands for the end.
    Drops {
        /// The index among the chain's rules.
        before: usize,
    },
    /// A rule names the port or the source and drops it.
    Denied {
        /// The chain and the rule, for a person.
        rule: String,
    },
    /// There is too much to follow.
    TooLong,
}

/// What was found out about a base chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// What it does.
    pub(crate) verdict: Verdict,
    /// Rules that drop the packet on one interface, for a person.
    pub(crate) on_interfaces: Vec<String>,
    /// Calls of chains that drop it unless a condition holds that isn't understood, for a person.
    pub(crate) unsure: Vec<String>,
}

/// The base chains of others that see packets to this host and may drop them.
pub(crate) fn base_chains(live: &Ruleset) -> impl Iterator<Item = &Chain> {
    live.chains.iter().filter(|chain| {
        let input = chain.hook.as_ref().is_some_and(|hook| hook.hook == "input" && hook.kind == "filter");
        input
            && matches!(chain.family.as_str(), "ip" | "ip6" | "inet")
            && !(chain.family == table::FAMILY && chain.table == table::TABLE)
            && !firewalld::TABLES.contains(&chain.table.as_str())
    })
}

/// The families whose packets a chain sees.
pub(crate) fn families(chain: &Chain) -> &'static [Family] {
    match chain.family.as_str() {
        "ip" => &[Family::V4],
        "ip6" => &[Family::V6],
        _ => &Family::ALL,
    }
}

/// What a base chain does with a packet. Rules of ours are left out of account.
pub(crate) fn judge(live: &Ruleset, chain: &Chain, packet: &Packet) -> Judgement {
    let mut walk = Walk::new(live, packet);
    let drops = chain.hook.as_ref().is_some_and(|hook| hook.drops);
    let verdict = match walk.chain(chain, 0) {
        _ if walk.steps > MAX_STEPS => Verdict::TooLong,
        Fate::Falls if drops => Verdict::Drops { before: chain.rules.len() },
        Fate::Accepted | Fate::Falls | Fate::Unsure => Verdict::Passes,
        Fate::Dropped { at } => Verdict::Drops { before: at },
        Fate::Denied(rule) => Verdict::Denied { rule },
    };
    Judgement { verdict, on_interfaces: walk.on_interfaces, unsure: walk.unsure }
}

/// Whether a rule may refuse a packet, so that an accept must not stand in front of it.
pub(crate) fn may_refuse(live: &Ruleset, chain: &Chain, rule: &Rule, packet: &Packet) -> bool {
    let mut walk = Walk::new(live, packet);
    walk.outcomes(rule).into_iter().any(|(holds, outcome)| {
        holds != Holds::Never
            && match outcome {
                Outcome::Drop => true,
                Outcome::Jump(target) | Outcome::Goto(target) => walk.reaches_drop(chain, &target, 0),
                _ => false,
            }
    })
}

/// What becomes of the packet in one chain.
#[derive(Debug, Clone)]
enum Fate {
    Accepted,
    /// It comes to the end of the chain, or is returned from it.
    Falls,
    /// The rule of this index drops it for good.
    Dropped {
        at: usize,
    },
    /// This rule drops it on purpose.
    Denied(String),
    /// A called chain drops it, or lets it return on a condition that isn't understood.
    Unsure,
}

/// What a rule does where its conditions hold.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Continue,
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

struct Walk<'a> {
    live: &'a Ruleset,
    packet: &'a Packet,
    steps: usize,
    on_interfaces: Vec<String>,
    unsure: Vec<String>,
    /// What becomes of the packet in chains that were called already, by name.
    fates: BTreeMap<String, Fate>,
}

impl<'a> Walk<'a> {
    fn new(live: &'a Ruleset, packet: &'a Packet) -> Self {
        Self { live, packet, steps: 0, on_interfaces: Vec::new(), unsure: Vec::new(), fates: BTreeMap::new() }
    }

    fn chain(&mut self, chain: &Chain, depth: usize) -> Fate {
        if depth > MAX_JUMP_DEPTH {
            return Fate::Falls;
        }
        // In a base chain the drop itself is where a rule of ours helps, whatever returned before.
        let is_called = depth > 0;
        let mut may_have_left = false;
        for (index, rule) in chain.rules.iter().enumerate() {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return Fate::Falls;
            }
            if rule.is_ours() {
                continue;
            }
            for (holds, outcome) in self.outcomes(rule) {
                match self.step(chain, index, holds, &outcome, depth) {
                    None => {}
                    Some(Fate::Dropped { .. } | Fate::Denied(_)) if is_called && may_have_left => {
                        return Fate::Unsure;
                    }
                    Some(fate) => return fate,
                }
                let leaves = matches!(outcome, Outcome::Return | Outcome::Goto(_));
                may_have_left |= leaves && matches!(holds, Holds::Maybe | Holds::Interface);
            }
        }
        Fate::Falls
    }

    /// The packet's fate, if this settles it.
    fn step(
        &mut self,
        chain: &Chain,
        index: usize,
        holds: Holds,
        outcome: &Outcome,
        depth: usize,
    ) -> Option<Fate> {
        let rule = &chain.rules[index];
        let said = || format!("{}: {}", chain.path(), statement::render(&Value::Array(rule.expr.clone())));
        match (holds, outcome) {
            (Holds::Always, Outcome::Accept) => Some(Fate::Accepted),
            (Holds::Always, Outcome::Return) => Some(Fate::Falls),
            (Holds::Always, Outcome::Drop) if condition::is_deliberate(rule) => Some(Fate::Denied(said())),
            (Holds::Always, Outcome::Drop) => Some(Fate::Dropped { at: index }),
            (Holds::Always, Outcome::Jump(target) | Outcome::Goto(target)) => {
                match self.called(chain, target, depth) {
                    Fate::Dropped { .. } if condition::is_deliberate(rule) => Some(Fate::Denied(said())),
                    Fate::Dropped { .. } => Some(Fate::Dropped { at: index }),
                    Fate::Unsure => {
                        self.unsure.push(said());
                        if matches!(outcome, Outcome::Jump(_)) { None } else { Some(Fate::Falls) }
                    }
                    Fate::Falls if matches!(outcome, Outcome::Jump(_)) => None,
                    settled => Some(settled),
                }
            }
            (Holds::Interface, Outcome::Drop) => {
                self.on_interfaces.push(said());
                None
            }
            (Holds::Interface, Outcome::Jump(target) | Outcome::Goto(target)) => {
                if let Fate::Dropped { .. } | Fate::Denied(_) = self.called(chain, target, depth) {
                    self.on_interfaces.push(said());
                }
                None
            }
            (Holds::Never | Holds::Maybe | Holds::Interface, _) | (Holds::Always, Outcome::Continue) => None,
        }
    }

    fn called(&mut self, from: &Chain, target: &str, depth: usize) -> Fate {
        if let Some(fate) = self.fates.get(target) {
            return fate.clone();
        }
        // Until it is known better; the kernel refuses chains that call each other in a circle.
        self.fates.insert(target.to_owned(), Fate::Falls);
        let fate = match self.live.chain(&from.family, &from.table, target) {
            Some(chain) => self.chain(chain, depth + 1),
            None => Fate::Falls,
        };
        self.fates.insert(target.to_owned(), fate.clone());
        fate
    }

    fn reaches_drop(&mut self, from: &Chain, target: &str, depth: usize) -> bool {
        let Some(chain) = self.live.chain(&from.family, &from.table, target) else { return false };
        if depth > MAX_JUMP_DEPTH || self.steps > MAX_STEPS {
            return true;
        }
        chain.rules.iter().any(|rule| {
            self.steps += 1;
            self.outcomes(rule).into_iter().any(|(holds, outcome)| {
                holds != Holds::Never
                    && match outcome {
                        Outcome::Drop => true,
                        Outcome::Jump(next) | Outcome::Goto(next) => {
                            self.reaches_drop(chain, &next, depth + 1)
                        }
                        _ => false,
                    }
            })
        })
    }

    /// What the rule may do, each with its conditions; more than one for a verdict map.
    fn outcomes(&self, rule: &Rule) -> Vec<(Holds, Outcome)> {
        let mut so_far = Holds::Always;
        for statement in &rule.expr {
            let Some((name, body)) = statement.as_object().and_then(|fields| fields.iter().next()) else {
                so_far = so_far.and(Holds::Maybe);
                continue;
            };
            let outcome = match name.as_str() {
                "match" => {
                    so_far = so_far.and(holds(body, self.packet));
                    continue;
                }
                "counter" | "log" | "notrack" | "mangle" | "ct helper" | "ct timeout" | "comment"
                | "secmark" => {
                    continue;
                }
                "set" | "map" if body.get("stmt").is_none() => continue,
                "vmap" => return self.by_map(so_far, body),
                "xt" => match condition::xt(body) {
                    condition::Xt::Passes => continue,
                    condition::Xt::NeverHolds => return vec![(Holds::Never, Outcome::Continue)],
                    condition::Xt::Unknown => {
                        so_far = so_far.and(Holds::Maybe);
                        continue;
                    }
                    condition::Xt::Accepts => Outcome::Accept,
                    condition::Xt::Drops => Outcome::Drop,
                },
                // Whoever gets the packet from the queue or takes the handshake over decides.
                "accept" | "queue" | "synproxy" => Outcome::Accept,
                "drop" | "reject" => Outcome::Drop,
                "return" => Outcome::Return,
                "jump" => Outcome::Jump(target(body)),
                "goto" => Outcome::Goto(target(body)),
                "continue" => Outcome::Continue,
                _ => {
                    so_far = so_far.and(Holds::Maybe);
                    continue;
                }
            };
            return vec![(so_far, outcome)];
        }
        vec![(so_far, Outcome::Continue)]
    }

    fn by_map(&self, so_far: Holds, body: &Value) -> Vec<(Holds, Outcome)> {
        let key = body.get("key").unwrap_or(&Value::Null);
        let pairs = body.pointer("/data/set").and_then(Value::as_array);
        let pairs = pairs.into_iter().flatten().filter_map(|pair| Some((pair.get(0)?, pair.get(1)?)));
        let outcomes = pairs.map(|(value, verdict)| {
            let name = verdict.as_object().and_then(|fields| fields.iter().next());
            let outcome = match name.map(|(name, body)| (name.as_str(), body)) {
                Some(("accept", _)) => Outcome::Accept,
                Some(("drop", _)) => Outcome::Drop,
                Some(("return", _)) => Outcome::Return,
                Some(("jump", body)) => Outcome::Jump(target(body)),
                Some(("goto", body)) => Outcome::Goto(target(body)),
                _ => Outcome::Continue,
            };
            (so_far.and(equals(key, value, self.packet)), outcome)
        });
        outcomes.collect()
    }
}

fn target(body: &Value) -> String {
    body.get("target").and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
