//! Chains that the host's answers pass.

use super::Grammar;
use super::protocols::Network;
use crate::model::{Base, Chain, Family, Part, Rule, Table};

impl Grammar {
    /// A table at hooks output and postrouting.
    pub(super) fn replies(&mut self, number: usize) -> Table {
        self.below += self.sets.len();
        self.sets.clear();
        let family = [Family::Inet, Family::Inet, Family::Ip, Family::Ip6][self.up_to(3)];
        let chains = (0..=self.up_to(1))
            .map(|nth| {
                let hook = if self.chance(70) { "output" } else { "postrouting" };
                let priority = [-300, -150, 0, 0, 10][self.up_to(4)];
                let base = Base { kind: "filter", hook, priority, drops: self.chance(25) };
                let rules = (0..=self.up_to(3)).map(|_| self.reply_rule(family)).collect();
                Chain { name: format!("b{nth}"), base: Some(base), rules }
            })
            .collect();
        Table {
            family,
            name: format!("t{number}"),
            dormant: self.chance(5),
            sets: std::mem::take(&mut self.sets),
            chains,
        }
    }

    fn reply_rule(&mut self, family: Family) -> Rule {
        let mut parts = Vec::new();
        let v6 = match family {
            Family::Ip => false,
            Family::Ip6 => true,
            _ => self.chance(45),
        };
        self.protocols.network = Some(if v6 { Network::V6 } else { Network::V4 });
        for _ in 0..=self.up_to(1) {
            parts.push(self.reply_condition(v6));
        }
        let end =
            ["drop", "drop", "accept", "accept", "return", "counter", "meta mark set 0x1"][self.up_to(6)];
        parts.push(Part::Text(end.to_owned()));
        Rule { parts }
    }

    fn reply_condition(&mut self, v6: bool) -> Part {
        let ip = if v6 { "ip6" } else { "ip" };
        match self.up_to(9) {
            0 | 1 => {
                Part::Listed { before: "tcp sport".to_owned(), elements: self.values.ports(false, 2, false) }
            }
            2 => Part::Text(format!("tcp sport != {}", self.values.ports(false, 1, false)[0])),
            3 => Part::Text(format!("tcp dport {}", self.values.ports(true, 1, false)[0])),
            4 | 5 => {
                let elements = self.values.addresses(v6, 3, false);
                Part::Listed { before: format!("{ip} daddr"), elements }
            }
            6 => {
                let kind = if v6 { "ipv6_addr" } else { "ipv4_addr" };
                let elements = self.values.addresses(v6, 4, false);
                let name = self.named(false, format!("type {kind}; flags interval;"), elements);
                Part::Text(format!("{ip} daddr != @{name}"))
            }
            _ => {
                let texts = [
                    "ct state established,related",
                    "ct state new",
                    "ct state invalid",
                    "ct state untracked",
                    "ct state != established",
                    "ct direction reply",
                    "ct direction original",
                    "oifname \"eth0\"",
                    "oifname != \"eth0\"",
                    "oifname \"lo\"",
                    "meta l4proto tcp",
                    "tcp flags syn",
                    "tcp flags & (syn | ack) == syn | ack",
                    "tcp flags & (fin | syn | rst | ack) == syn",
                    "meta mark 0x0",
                    "ct mark 0x1",
                    if v6 { "ip6 saddr <6>" } else { "ip saddr <4>" },
                    "fib saddr type local",
                ];
                Part::Text(texts[self.up_to(texts.len() - 1)].to_owned())
            }
        }
    }
}
