//! What has to be done so that the live rules become the desired ones: compared here, carried out elsewhere.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use nftables::schema::{NfCmd, NfListObject, NfObject, Rule as NfRule};
use nftables::types::NfFamily;
use serde_json::Value;
use zone_firewall_protocol::{Finding, FindingKind, PortRule};

use crate::config::InterfaceName;
use crate::desired::{Desired, Family, listens, sources};
use crate::foreign::{self, Packet, Verdict};
use crate::ruleset::{Chain, Rule, Ruleset};
use crate::{statement, table};

/// In front of the lines of a table.
const DETAIL: &str = "  ";
/// What to do about rules that are not as they should be.
const HELP_APPLY: &str = "run 'zone-firewall apply' as root, or wait for zone-proxy to ask again";

/// The difference between what is and what should be.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Plan {
    /// What happens to our table.
    pub(crate) table: TableChange,
    /// Rules to add to chains of others.
    pub(crate) add: Vec<Add>,
    /// Rules of ours to delete from chains of others.
    pub(crate) delete: Vec<Delete>,
    /// What somebody else's rules keep us from, and is left as it is.
    pub(crate) blocked: Vec<Finding>,
}

/// What happens to our table.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum TableChange {
    /// It is as it should be, or not there as it should not be.
    #[default]
    Keep,
    /// It is put there in place of any older one.
    Put {
        /// Whether there is an older one.
        replaces: bool,
        /// Lines that it has and should not have.
        unexpected: Vec<String>,
        /// Lines that it should have and has not.
        missing: Vec<String>,
    },
    /// It goes.
    Remove,
}

/// A rule of ours that is to be in a chain of somebody else's.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Add {
    /// The chain: family, table, name.
    pub(crate) chain: [String; 3],
    /// The rule that it goes in front of; `None` for the end of the chain.
    pub(crate) before: Option<u64>,
    /// The port that it opens.
    pub(crate) port: u16,
    /// The rule's comment.
    pub(crate) comment: String,
    /// Its statements.
    pub(crate) expr: Vec<nftables::stmt::Statement<'static>>,
    /// Whether it is there already, at a place where it does not help.
    pub(crate) moves: bool,
}

/// A rule of ours in a chain of somebody else's that is to go.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Delete {
    /// The chain: family, table, name.
    pub(crate) chain: [String; 3],
    /// The kernel's number for it.
    pub(crate) handle: u64,
    /// What it says.
    pub(crate) text: String,
    /// Whether it is only put elsewhere.
    pub(crate) moves: bool,
}

impl Plan {
    /// What makes the live rules the desired ones.
    pub(crate) fn new(desired: &Desired, live: &Ruleset) -> Self {
        let mut plan = Self { table: table_change(desired, live), ..Self::default() };
        let mut kept: BTreeSet<(String, String, u64)> = BTreeSet::new();
        let mut moved = Vec::new();
        for chain in foreign::base_chains(live) {
            for needed in needed_rules(desired, live, chain, &mut plan.blocked) {
                let same = |rule: &&Rule| {
                    let key = (chain.family.clone(), chain.table.clone(), rule.handle);
                    rule.is_ours() && needed.is(rule) && !kept.contains(&key)
                };
                let there: Vec<_> = chain.rules.iter().filter(same).collect();
                if let Some(rule) = there.iter().find(|rule| needed.stands_well(live, chain, rule.handle)) {
                    kept.insert((chain.family.clone(), chain.table.clone(), rule.handle));
                } else {
                    moved.extend(there.iter().map(|rule| (chain.path(), rule.handle)));
                    plan.add.push(needed.add(chain, !there.is_empty()));
                }
            }
        }
        plan.delete = deletions(live, |chain, rule| {
            !kept.contains(&(chain.family.clone(), chain.table.clone(), rule.handle))
        });
        for delete in &mut plan.delete {
            delete.moves = moved
                .iter()
                .any(|(path, handle)| *path == delete.chain.join(" ") && *handle == delete.handle);
        }
        plan.blocked.dedup();
        plan
    }

    /// What leaves the ruleset as it was before we came.
    pub(crate) fn removal(live: &Ruleset) -> Self {
        let table =
            if live.has_table(table::FAMILY, table::TABLE) { TableChange::Remove } else { TableChange::Keep };
        Self { table, delete: deletions(live, |_, _| true), ..Self::default() }
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.table == TableChange::Keep && self.add.is_empty() && self.delete.is_empty()
    }

    /// The one transaction that does it.
    pub(crate) fn transaction(&self, desired: &Desired) -> Vec<NfObject<'static>> {
        let mut commands = match self.table {
            TableChange::Keep => Vec::new(),
            TableChange::Put { .. } => table::replace(desired),
            TableChange::Remove => table::remove(),
        };
        commands.extend(self.delete.iter().filter_map(Delete::command));
        commands.extend(self.add.iter().filter_map(Add::command));
        commands
    }

    /// What will be done, one line each.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        match &self.table {
            TableChange::Keep => {}
            TableChange::Put { replaces, unexpected, missing } => {
                let verb = if *replaces { "change" } else { "add" };
                lines.push(format!("{verb} table {} {}", table::FAMILY, table::TABLE));
                lines.extend(unexpected.iter().map(|line| format!("{DETAIL}- {line}")));
                lines.extend(missing.iter().map(|line| format!("{DETAIL}+ {line}")));
            }
            TableChange::Remove => lines.push(format!("remove table {} {}", table::FAMILY, table::TABLE)),
        }
        lines.extend(self.delete.iter().map(|rule| format!("- {}: {}", rule.chain.join(" "), rule.text)));
        lines.extend(self.add.iter().map(|rule| format!("+ {}: {}", rule.chain.join(" "), rule.text())));
        lines
    }

    /// The same with our table in one line.
    pub(crate) fn brief(&self) -> Vec<String> {
        let mut lines = self.lines();
        lines.retain(|line| !line.starts_with(DETAIL));
        if let (TableChange::Put { unexpected, missing, .. }, Some(first)) = (&self.table, lines.first_mut())
        {
            *first = format!("{first} (-{} +{} lines)", unexpected.len(), missing.len());
        }
        lines
    }

    /// The same as findings, for somebody who only looks.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let finding = |kind, port, what: String| Finding { kind, port, what, help: HELP_APPLY.to_owned() };
        let mut findings = Vec::new();
        let table = format!("table {} {}", table::FAMILY, table::TABLE);
        match &self.table {
            TableChange::Keep => {}
            TableChange::Put { replaces: false, .. } => {
                findings.push(finding(FindingKind::Missing, None, format!("{table} is not there")));
            }
            TableChange::Put { unexpected, missing, .. } => {
                if unexpected.is_empty() && missing.is_empty() {
                    let what = format!("{table}: its rules stand in another order");
                    findings.push(finding(FindingKind::Altered, None, what));
                }
                let extra = |line: &String| format!("{table}: there is '{line}'");
                let lacks = |line: &String| format!("{table}: '{line}' is not there");
                findings.extend(
                    unexpected.iter().map(|line| finding(FindingKind::Unexpected, None, extra(line))),
                );
                findings.extend(missing.iter().map(|line| finding(FindingKind::Missing, None, lacks(line))));
            }
            TableChange::Remove => {
                findings.push(finding(FindingKind::Unexpected, None, format!("{table} is there")));
            }
        }
        for add in &self.add {
            let (kind, state) = if add.moves {
                (FindingKind::Altered, "stands where it does not help, because of other rules")
            } else {
                (FindingKind::Missing, "is not there, and without it the chain drops the port")
            };
            findings.push(finding(
                kind,
                Some(add.port),
                format!("{}: '{}' {state}", add.chain.join(" "), add.text()),
            ));
        }
        for delete in self.delete.iter().filter(|delete| !delete.moves) {
            let what =
                format!("{}: there is '{}', which nothing asks for", delete.chain.join(" "), delete.text);
            findings.push(finding(FindingKind::Unexpected, None, what));
        }
        findings.extend(self.blocked.iter().cloned());
        findings
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("\n"))
    }
}

impl Add {
    fn text(&self) -> String {
        let expr = serde_json::to_value(&self.expr).unwrap_or_default();
        format!("{} comment \"{}\"", statement::render(&expr), self.comment)
    }

    fn command(&self) -> Option<NfObject<'static>> {
        let rule = NfListObject::Rule(NfRule {
            handle: self.before.and_then(|handle| u32::try_from(handle).ok()),
            comment: Some(self.comment.clone().into()),
            ..in_chain(&self.chain, self.expr.clone())?
        });
        // Insert goes in front of the rule of that handle; add goes to the end.
        Some(NfObject::CmdObject(if self.before.is_some() { NfCmd::Insert(rule) } else { NfCmd::Add(rule) }))
    }
}

impl Delete {
    fn command(&self) -> Option<NfObject<'static>> {
        let handle = Some(u32::try_from(self.handle).ok()?);
        let rule = NfRule { handle, ..in_chain(&self.chain, Vec::new())? };
        Some(NfObject::CmdObject(NfCmd::Delete(NfListObject::Rule(rule))))
    }
}

fn in_chain(chain: &[String; 3], expr: Vec<nftables::stmt::Statement<'static>>) -> Option<NfRule<'static>> {
    let [family, table, name] = chain;
    let family = match family.as_str() {
        "ip" => NfFamily::IP,
        "ip6" => NfFamily::IP6,
        "inet" => NfFamily::INet,
        "arp" => NfFamily::ARP,
        "bridge" => NfFamily::Bridge,
        "netdev" => NfFamily::NetDev,
        _ => return None,
    };
    Some(NfRule {
        family,
        table: table.clone().into(),
        chain: name.clone().into(),
        expr: expr.into(),
        ..NfRule::default()
    })
}

fn table_change(desired: &Desired, live: &Ruleset) -> TableChange {
    let should = table::Content::desired(desired);
    let is = table::Content::of(live);
    if is.as_ref() == Some(&should) {
        return TableChange::Keep;
    }
    let replaces = is.is_some();
    let (should, is) = (should.lines(), is.unwrap_or_default().lines());
    TableChange::Put {
        replaces,
        unexpected: is.iter().filter(|line| !should.contains(line)).cloned().collect(),
        missing: should.into_iter().filter(|line| !is.contains(line)).collect(),
    }
}

fn deletions(live: &Ruleset, goes: impl Fn(&Chain, &Rule) -> bool) -> Vec<Delete> {
    let foreign =
        live.chains.iter().filter(|chain| !(chain.family == table::FAMILY && chain.table == table::TABLE));
    let rules = foreign.flat_map(|chain| chain.rules.iter().map(move |rule| (chain, rule)));
    let gone = rules.filter(|(chain, rule)| rule.is_ours() && goes(chain, rule));
    gone.map(|(chain, rule)| Delete {
        chain: [chain.family.clone(), chain.table.clone(), chain.name.clone()],
        handle: rule.handle,
        text: format!(
            "{} comment \"{}\"",
            statement::render(&Value::Array(plain(&rule.expr).cloned().collect())),
            rule.comment.clone().unwrap_or_default()
        ),
        moves: false,
    })
    .collect()
}

/// A rule that a chain needs.
#[derive(Debug, Clone)]
struct NeededRule {
    packet: Packet,
    /// Written into the rule only where nothing else in it tells the family.
    family: Option<Family>,
    before: usize,
    comment: String,
    /// The device that root opens the port on, if it is not all of them.
    interface: Option<InterfaceName>,
}

fn needed_rules(
    desired: &Desired,
    live: &Ruleset,
    chain: &Chain,
    blocked: &mut Vec<Finding>,
) -> Vec<NeededRule> {
    let mut needed = Vec::new();
    for rule in &desired.open {
        let mut of_port: Vec<NeededRule> = Vec::new();
        for packet in foreign::families(chain).iter().flat_map(|family| packets(rule, *family)) {
            let judgement = foreign::judge(live, chain, &packet);
            for said in judgement.on_interfaces {
                blocked.push(blocked_finding(
                    rule.port,
                    format!("port {} is dropped on one interface by '{said}'", rule.port),
                    "if connections come in there, accept the port in front of that rule",
                ));
            }
            for said in judgement.unsure {
                blocked.push(blocked_finding(
                    rule.port,
                    format!("port {} may be dropped by '{said}', which is not understood", rule.port),
                    "see to it that the chain returns for the port, or accept the port in front of that rule",
                ));
            }
            match judgement.verdict {
                Verdict::Passes => {}
                Verdict::Drops { before } => {
                    let bare = packet.source.is_none() && packet.destination.is_none();
                    let family = (bare && foreign::families(chain).len() > 1).then_some(packet.family);
                    let comment = table::tag(rule.purpose);
                    of_port.push(NeededRule { packet, family, before, comment, interface: None });
                }
                Verdict::Denied { rule: said } => blocked.push(blocked_finding(
                    rule.port,
                    format!("port {} is denied on purpose by '{said}'", rule.port),
                    "remove that rule if the port is to be reached",
                )),
                Verdict::TooLong => blocked.push(blocked_finding(
                    rule.port,
                    format!("{} is too large to be understood", chain.path()),
                    "see to it that the port is accepted there",
                )),
            }
        }
        // One rule does for both families where nothing tells them apart.
        if let [a, b] = &mut of_port[..]
            && a.family.is_some()
            && b.family.is_some()
            && a.before == b.before
        {
            a.family = None;
            of_port.truncate(1);
        }
        // One device per rule, as iptables prints it.
        match desired.interfaces(rule) {
            [] => needed.append(&mut of_port),
            names => needed.extend(of_port.iter().flat_map(|one| {
                names.iter().map(|name| NeededRule { interface: Some(name.clone()), ..one.clone() })
            })),
        }
    }
    needed
}

fn blocked_finding(port: u16, what: String, help: &str) -> Finding {
    Finding { kind: FindingKind::Blocked, port: Some(port), what, help: help.to_owned() }
}

/// The kinds of packets that a port is open for.
fn packets(rule: &PortRule, family: Family) -> Vec<Packet> {
    fn or_any<T: Copy>(list: Option<Vec<T>>) -> Vec<Option<T>> {
        match list {
            None => Vec::new(),
            Some(all) if all.is_empty() => vec![None],
            Some(some) => some.into_iter().map(Some).collect(),
        }
    }
    let destinations: Vec<Option<IpAddr>> = or_any(listens(rule, family));
    let networks: Vec<Option<IpNet>> = or_any(sources(rule, family));
    let all = destinations.into_iter().flat_map(|destination| {
        networks.iter().map(move |source| Packet { family, source: *source, destination, port: rule.port })
    });
    all.collect()
}

impl NeededRule {
    fn expr(&self) -> Vec<nftables::stmt::Statement<'static>> {
        let interface = self.interface.as_ref().map(InterfaceName::as_str);
        let Packet { source, destination, port, .. } = self.packet;
        table::accept_elsewhere(self.family, interface, source, destination, port)
    }

    fn is(&self, rule: &Rule) -> bool {
        let own = serde_json::to_value(self.expr()).unwrap_or_default();
        rule.comment.as_deref() == Some(&self.comment)
            && shape(own.as_array().map_or(&[], Vec::as_slice)) == shape(&rule.expr)
    }

    /// Whether the rule of ours is in front of what drops, with nothing in between that an admin may mean to hold.
    fn stands_well(&self, live: &Ruleset, chain: &Chain, handle: u64) -> bool {
        let Some(at) = chain.rules.iter().position(|rule| rule.handle == handle) else { return false };
        at < self.before
            && chain.rules[at + 1..self.before]
                .iter()
                .all(|between| between.is_ours() || !foreign::may_refuse(live, chain, between, &self.packet))
    }

    fn add(&self, chain: &Chain, moves: bool) -> Add {
        Add {
            chain: [chain.family.clone(), chain.table.clone(), chain.name.clone()],
            before: chain.rules.get(self.before).map(|rule| rule.handle),
            port: self.packet.port,
            comment: self.comment.clone(),
            expr: self.expr(),
            moves,
        }
    }
}

/// A rule's matches and verdict, in any order.
fn shape(expr: &[Value]) -> BTreeSet<String> {
    plain(expr).map(|part| statement::canonical(part).to_string()).collect()
}

/// A rule of ours without what iptables-restore adds to it: a counter, and its comment as a match.
fn plain(expr: &[Value]) -> impl Iterator<Item = &Value> {
    expr.iter().filter(|part| part.get("counter").is_none() && part.get("xt").is_none())
}

#[cfg(test)]
mod tests;
