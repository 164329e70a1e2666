//! The grammar: tables, base chains, chains that are jumped to, and what stands in a rule.

mod conditions;
mod protocols;
mod replies;
mod values;

use std::net::{Ipv4Addr, Ipv6Addr};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::batch::DEEPEST_IN_A_BATCH;
use crate::model::{Base, Chain, Family, Part, Rule, Ruleset, Set, Table};
use protocols::Protocols;
use values::Values;

pub use values::PORTS;

/// How many chains may be nested below a base chain, anonymous ones not counted: the kernel follows 15 jumps.
const DEEPEST: usize = 14;

/// Where a ruleset is to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// By itself: all kinds.
    Alone,
    /// In a [`batch`](crate::batch()): nothing that only a base chain or a table as a whole can do.
    Batched,
}

/// A ruleset, and what packets make a difference to it.
#[derive(Debug, Clone)]
pub struct Generated {
    /// The ruleset.
    pub ruleset: Ruleset,
    /// Sources of IPv4 at the edges of what its rules name.
    pub sources_v4: Vec<Ipv4Addr>,
    /// Sources of IPv6, likewise.
    pub sources_v6: Vec<Ipv6Addr>,
    /// Source ports, likewise.
    pub source_ports: Vec<u16>,
}

/// Makes the ruleset of this number.
#[must_use]
pub fn generate(seed: u64, shape: Shape) -> Generated {
    let mut grammar = Grammar {
        values: Values::new(ChaCha8Rng::seed_from_u64(seed)),
        shape,
        sets: Vec::new(),
        below: 0,
        protocols: Protocols::default(),
    };
    let ruleset = grammar.ruleset();
    let Values { sources_v4, sources_v6, source_ports, .. } = grammar.values;
    Generated { ruleset, sources_v4, sources_v6, source_ports }
}

/// Where a rule stands.
#[derive(Debug, Clone, Copy)]
struct Place {
    family: Family,
    /// Number of the chain; chains of higher numbers may be jumped to.
    chain: usize,
    /// How many chains can be jumped to there are.
    chains: usize,
    /// No chain of this table is hooked in at ingress.
    has_connections: bool,
    /// Every chain of this table may refuse.
    may_reject: bool,
    /// The table's chains are of nat.
    nat: bool,
    /// In an anonymous chain.
    anonymous: bool,
}

struct Grammar {
    values: Values,
    shape: Shape,
    /// The named sets of the table that is being made.
    sets: Vec<Set>,
    /// How many named sets the tables before have, so that names are different.
    below: usize,
    /// Of the rule that is being made.
    protocols: Protocols,
}

impl Grammar {
    fn chance(&mut self, percent: u32) -> bool {
        self.values.rng.random_range(0..100) < percent
    }

    fn up_to(&mut self, last: usize) -> usize {
        self.values.rng.random_range(0..=last)
    }

    fn ruleset(&mut self) -> Ruleset {
        let tables = match self.up_to(99) {
            0..70 => 1,
            70..95 => 2,
            _ => 3,
        };
        let mut tables: Vec<_> = (0..tables).map(|number| self.table(number)).collect();
        if self.shape == Shape::Alone && self.chance(25) {
            let table = self.replies(tables.len());
            tables.push(table);
        }
        Ruleset { tables }
    }

    fn table(&mut self, number: usize) -> Table {
        self.below += self.sets.len();
        self.sets.clear();
        let alone = self.shape == Shape::Alone;
        let family = match self.up_to(99) {
            0..60 => Family::Inet,
            60..80 => Family::Ip,
            80..95 => Family::Ip6,
            _ if alone => Family::Netdev,
            _ => Family::Inet,
        };
        let nat = alone && family != Family::Netdev && number > 0 && self.chance(50);
        let bases = self.bases(family, nat);
        let called = match self.up_to(99) {
            0..25 => 0,
            25..65 => 1 + self.up_to(2),
            65..90 => 4 + self.up_to(4),
            _ if alone => 9 + self.up_to(DEEPEST - 9),
            _ => 9 + self.up_to(DEEPEST_IN_A_BATCH - 9),
        };
        let ingress = bases.iter().any(|base| base.hook == "ingress");
        let place = Place {
            family,
            chain: 0,
            chains: called,
            has_connections: !ingress,
            may_reject: !nat && family != Family::Netdev && !ingress,
            nat,
            anonymous: false,
        };
        let mut chains: Vec<_> = bases
            .into_iter()
            .enumerate()
            .map(|(nth, base)| Chain { name: format!("b{nth}"), base: Some(base), rules: Vec::new() })
            .collect();
        for chain in &mut chains {
            chain.rules = self.rules(place);
        }
        for nth in 1..=called {
            let rules = self.rules(Place { chain: nth, ..place });
            chains.push(Chain { name: format!("c{nth}"), base: None, rules });
        }
        Table {
            family,
            name: format!("t{number}"),
            dormant: alone && self.chance(6),
            sets: std::mem::take(&mut self.sets),
            chains,
        }
    }

    fn bases(&mut self, family: Family, nat: bool) -> Vec<Base> {
        if nat {
            let priority = [-100, -101, -99][self.up_to(2)];
            return vec![Base { kind: "nat", hook: "prerouting", priority, drops: false }];
        }
        let count = match self.up_to(99) {
            0..60 => 1,
            60..88 => 2,
            _ => 3,
        };
        (0..count)
            .map(|_| {
                let ingress = family == Family::Netdev
                    || (self.shape == Shape::Alone && family == Family::Inet && count == 1 && self.chance(8));
                let (hook, priority) = if ingress {
                    ("ingress", [0, -10, 10][self.up_to(2)])
                } else {
                    match self.up_to(9) {
                        0 => ("prerouting", [-300, -301][self.up_to(1)]),
                        // Not -100: which of these comes before nat there depends on what was loaded when.
                        1 => ("prerouting", [-150, -90, 0][self.up_to(2)]),
                        _ => ("input", [0, 0, 0, -150, -1, 1, 10, 50, 500][self.up_to(8)]),
                    }
                };
                Base { kind: "filter", hook, priority, drops: self.chance(40) }
            })
            .collect()
    }

    fn rules(&mut self, place: Place) -> Vec<Rule> {
        let mut rules = Vec::new();
        if place.chain == 0 && self.chance(50) {
            for text in ["ct state established,related accept", "iif lo accept", "tcp dport 22 accept"] {
                let fits = place.has_connections || !text.starts_with("ct");
                if fits && self.chance(60) {
                    rules.push(Rule { parts: vec![Part::Text(text.to_owned())] });
                }
            }
        }
        let count = match self.up_to(9) {
            // Where there are many chains, they are short.
            _ if place.chains > 5 => self.up_to(3),
            0 => 0,
            1..6 => 1 + self.up_to(2),
            6..9 => 3 + self.up_to(4),
            _ => 6 + self.up_to(8),
        };
        rules.extend((0..count).map(|_| self.rule(place)));
        // A long ladder of jumps, now and then: each chain leads to the next one.
        if place.chains > 8 && place.chain < place.chains {
            let text = format!("jump %c{}", place.chain + 1);
            rules.push(Rule { parts: vec![Part::Text(text)] });
        }
        rules
    }

    fn rule(&mut self, place: Place) -> Rule {
        let mut parts = Vec::new();
        let around = std::mem::replace(&mut self.protocols, Protocols::of(place.family));
        let conditions = match self.up_to(99) {
            0..7 => 0,
            7..62 => 1,
            62..90 => 2,
            _ => 3,
        };
        for _ in 0..conditions {
            parts.extend(self.fitting(|grammar| Some(grammar.condition(place))));
        }
        if self.chance(12) {
            let text = ["counter", "log prefix \"fw: \"", "counter log level info"][self.up_to(2)];
            parts.push(Part::Text(text.to_owned()));
        }
        if self.chance(9) {
            parts.extend(self.fitting(|grammar| Some(grammar.statement(place))));
        }
        parts.extend(self.fitting(|grammar| grammar.end(place, conditions)));
        self.protocols = around;
        if parts.is_empty() {
            parts.push(Part::Text("counter".to_owned()));
        }
        if self.chance(4) && !matches!(parts.last(), Some(Part::Chain { .. })) {
            parts.push(Part::Text("comment \"made up\"".to_owned()));
        }
        Rule { parts }
    }

    /// Draws until something comes that nft takes in the rule.
    fn fitting(&mut self, mut draw: impl FnMut(&mut Self) -> Option<Part>) -> Option<Part> {
        for _ in 0..20 {
            let sets = self.sets.len();
            let part = draw(self)?;
            if self.protocols.take(&part) {
                return Some(part);
            }
            self.sets.truncate(sets);
        }
        None
    }

    /// What changes something and lets the packet go on.
    fn statement(&mut self, place: Place) -> Part {
        let text = match self.up_to(9) {
            0..3 => format!("meta mark set {}", self.values.mark()),
            3 => "meta mark set meta mark or 0x10".to_owned(),
            4 => "meta mark set meta mark and 0xfffffff0".to_owned(),
            5 => "meta mark set meta mark xor 0x3".to_owned(),
            6 if place.has_connections => {
                ["ct mark set 0x1", "ct mark set meta mark", "meta mark set ct mark"][self.up_to(2)]
                    .to_owned()
            }
            7 if place.has_connections && !place.nat => "notrack".to_owned(),
            8 => return self.mark_map(place),
            _ => {
                let (v6, field) = self.field(place, "saddr");
                let address = if v6 { "ipv6_addr" } else { "ipv4_addr" };
                let header = format!("type {address}; size 65535; flags dynamic;");
                let name = self.named(false, header, Vec::new());
                format!("add @{name} {{ {field} }}")
            }
        };
        Part::Text(text)
    }

    /// What ends the packet's way in this chain, or leads it elsewhere.
    fn end(&mut self, place: Place, conditions: usize) -> Option<Part> {
        // What stands without a condition should not end most chains at once.
        let sharp = conditions > 0 || self.chance(60);
        match self.up_to(99) {
            _ if !sharp => None,
            0..22 => Some(Part::Text("accept".to_owned())),
            22..42 if place.nat => Some(self.redirect(place)),
            22..42 => Some(Part::Text("drop".to_owned())),
            42..49 if place.may_reject => Some(Part::Text(self.reject(place))),
            49..56 => Some(Part::Text("return".to_owned())),
            56..58 => Some(Part::Text("continue".to_owned())),
            58..62 if !place.anonymous => {
                let verb = if self.chance(75) { "jump" } else { "goto" };
                let inner = Place { anonymous: true, ..place };
                let rules = (0..=self.up_to(2)).map(|_| self.rule(inner)).collect();
                Some(Part::Chain { verb, rules })
            }
            62..74 => Some(self.verdict_map(place)),
            74..97 => Some(Part::Text(self.lead(place).unwrap_or_else(|| "drop".to_owned()))),
            _ => None,
        }
    }

    /// `jump` or `goto`, mostly to a near chain.
    fn lead(&mut self, place: Place) -> Option<String> {
        let left = place.chains.checked_sub(place.chain).filter(|left| *left > 0 && !place.anonymous)?;
        let step = if self.chance(70) { 1 } else { 1 + self.up_to(left - 1) };
        let verb = if self.chance(75) { "jump" } else { "goto" };
        Some(format!("{verb} %c{}", place.chain + step))
    }

    fn reject(&mut self, place: Place) -> String {
        let ways: &[&str] = match place.family {
            Family::Inet => &[
                "reject",
                "reject with tcp reset",
                "reject with icmpx admin-prohibited",
                "reject with icmp port-unreachable",
                "reject with icmpv6 admin-prohibited",
            ],
            Family::Ip => &["reject", "reject with tcp reset", "reject with icmp host-prohibited"],
            _ => &["reject", "reject with tcp reset", "reject with icmpv6 no-route"],
        };
        ways[self.up_to(ways.len() - 1)].to_owned()
    }

    fn redirect(&mut self, place: Place) -> Part {
        let port = PORTS[self.up_to(2)];
        let text = match self.up_to(3) {
            0 => format!("meta l4proto tcp redirect to :{port}"),
            1 => format!("tcp dport {port} redirect to :{}", 20000 + self.up_to(2)),
            2 if place.family == Family::Ip => {
                format!("tcp dport {port} dnat to <4>:{}", 20000 + self.up_to(2))
            }
            2 if place.family == Family::Ip6 => {
                format!("tcp dport {port} dnat to [<6>]:{}", 20000 + self.up_to(2))
            }
            _ => format!("tcp dport {port} redirect to :{}", PORTS[self.up_to(2)]),
        };
        Part::Text(text)
    }

    /// A named set or map of the table; what it is called in rules.
    fn named(&mut self, map: bool, header: String, elements: Vec<String>) -> String {
        let name = format!("s{}", self.below + self.sets.len());
        self.sets.push(Set { name: name.clone(), map, header, elements });
        format!("%{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Destination;

    #[test]
    fn the_same_number_makes_the_same_ruleset_and_another_one_another() {
        let text = |seed| generate(seed, Shape::Alone).ruleset.to_nft(&Destination::of(1));
        assert_eq!(text(7), text(7));
        assert_ne!(text(7), text(8));
    }

    #[test]
    fn every_kind_of_condition_comes_up() {
        let texts: String =
            (0..2000).map(|seed| generate(seed, Shape::Alone).ruleset.to_nft(&Destination::of(1))).collect();
        for kind in [
            "vmap",
            "goto",
            "jump {",
            "* :",
            "ip saddr .",
            "meta mark set",
            "tcp flags",
            "ct state",
            "ct direction",
            "notrack",
            "iifname",
            "iifgroup",
            "iiftype",
            "pkttype",
            "fib daddr",
            "ip6 saddr",
            "tcp sport",
            "th dport",
            "meta length",
            "limit",
            "quota",
            "numgen",
            "hour",
            "reject",
            "dormant",
            "hook ingress",
            "redirect",
            "dnat",
            "add @",
            "counter",
            "log",
            "return",
            "table netdev",
            "hook output",
            "hook postrouting",
            "!=",
            "ether saddr",
        ] {
            assert!(texts.contains(kind), "no {kind} in 2000 rulesets");
        }
    }
}
