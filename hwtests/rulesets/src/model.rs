//! What a random ruleset consists of, as text in pieces that can be taken away.
//!
//! In texts, `%` stands in front of each name of a chain or set of the ruleset, so that rulesets can be put beside each other,
//! and `<4>` and `<6>` stand for the addresses that its packets go to.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Some tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// In the order in which they are loaded.
    pub tables: Vec<Table>,
}

/// The family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "they are nft(8)'s own names")]
pub enum Family {
    Inet,
    Ip,
    Ip6,
    Netdev,
}

impl Family {
    /// As nft(8) calls it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Netdev => "netdev",
        }
    }

    /// Whether its chains see packets of IPv4.
    #[must_use]
    pub fn has_v4(self) -> bool {
        self != Self::Ip6
    }

    /// Whether its chains see packets of IPv6.
    #[must_use]
    pub fn has_v6(self) -> bool {
        self != Self::Ip
    }
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its family.
    pub family: Family,
    /// Its name.
    pub name: String,
    /// Its chains see nothing.
    pub dormant: bool,
    /// Its named sets and maps.
    pub sets: Vec<Set>,
    /// Its chains; those that are jumped to stand behind those that jump.
    pub chains: Vec<Chain>,
}

/// A named set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its name, without `%`.
    pub name: String,
    /// Whether it is a map.
    pub map: bool,
    /// Type and flags, such as `type ipv4_addr; flags interval;`.
    pub header: String,
    /// Its elements.
    pub elements: Vec<String>,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name, without `%`.
    pub name: String,
    /// Where it is hooked in, if anywhere.
    pub base: Option<Base>,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// Where a chain is hooked in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// `filter` or `nat`.
    pub kind: &'static str,
    /// Such as `input`. Chains of `ingress` are on device eth0.
    pub hook: &'static str,
    /// Its priority.
    pub priority: i32,
    /// Whether its policy is to drop.
    pub drops: bool,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Conditions and statements, in order.
    pub parts: Vec<Part>,
}

/// A condition or statement of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// One that stays or goes as a whole.
    Text(String),
    /// One with an anonymous set or map.
    Listed {
        /// What stands in front of the brace.
        before: String,
        /// What stands in the braces, between commas.
        elements: Vec<String>,
    },
    /// A jump to an anonymous chain, or a goto.
    Chain {
        /// `jump` or `goto`.
        verb: &'static str,
        /// The chain's rules.
        rules: Vec<Rule>,
    },
}

/// The addresses that a ruleset's packets go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// Those of IPv4.
    pub v4: Ipv4Addr,
    /// Those of IPv6.
    pub v6: Ipv6Addr,
}

impl Destination {
    /// The n-th pair, 1 to 180: 192.0.2.n and 2001:db8:1::n.
    #[must_use]
    pub fn of(n: u8) -> Self {
        Self {
            v4: Ipv4Addr::new(192, 0, 2, n),
            v6: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, u16::from(n)),
        }
    }
}

/// How texts are filled in.
pub(crate) struct Filling<'a> {
    /// Stands in front of names.
    pub(crate) prefix: &'a str,
    /// Where packets go.
    pub(crate) destination: &'a Destination,
}

impl Filling<'_> {
    pub(crate) fn text(&self, text: &str) -> String {
        text.replace('%', self.prefix)
            .replace("<4>", &self.destination.v4.to_string())
            .replace("<6>", &self.destination.v6.to_string())
    }
}

impl Ruleset {
    /// How many rules there are, those of anonymous chains included.
    #[must_use]
    pub fn rules(&self) -> usize {
        self.tables.iter().flat_map(|table| &table.chains).map(|chain| count(&chain.rules)).sum()
    }

    /// Whether it has chains that the host's answers pass.
    #[must_use]
    pub fn has_replies(&self) -> bool {
        let chains = self.tables.iter().flat_map(|table| &table.chains);
        chains
            .filter_map(|chain| chain.base.as_ref())
            .any(|base| matches!(base.hook, "output" | "postrouting"))
    }

    /// As `nft -f` reads it.
    #[must_use]
    pub fn to_nft(&self, destination: &Destination) -> String {
        let filling = Filling { prefix: "", destination };
        let mut out = String::new();
        for table in &self.tables {
            let _ = writeln!(out, "table {} {} {{", table.family.as_str(), table.name);
            if table.dormant {
                out.push_str("  flags dormant\n");
            }
            for set in &table.sets {
                write_set(&mut out, set, &filling);
            }
            for chain in &table.chains {
                let _ = writeln!(out, "  chain {} {{", chain.name);
                if let Some(base) = &chain.base {
                    write_base(&mut out, base);
                }
                write_rules(&mut out, &chain.rules, &filling, 4);
                out.push_str("  }\n");
            }
            out.push_str("}\n");
        }
        out
    }
}

fn count(rules: &[Rule]) -> usize {
    rules
        .iter()
        .map(|rule| {
            let below = rule.parts.iter().map(|part| match part {
                Part::Chain { rules, .. } => count(rules),
                Part::Text(_) | Part::Listed { .. } => 0,
            });
            1 + below.sum::<usize>()
        })
        .sum()
}

pub(crate) fn write_base(out: &mut String, base: &Base) {
    let device = if base.hook == "ingress" { " device \"eth0\"" } else { "" };
    let policy = if base.drops { "drop" } else { "accept" };
    let (kind, hook, priority) = (base.kind, base.hook, base.priority);
    let _ = writeln!(out, "    type {kind} hook {hook}{device} priority {priority}; policy {policy};");
}

pub(crate) fn write_set(out: &mut String, set: &Set, filling: &Filling<'_>) {
    let kind = if set.map { "map" } else { "set" };
    let _ = writeln!(out, "  {kind} {}{} {{", filling.prefix, set.name);
    let _ = writeln!(out, "    {}", set.header.replace("; ", "\n    ").trim_end_matches(';'));
    if !set.elements.is_empty() {
        let _ = writeln!(out, "    elements = {{ {} }}", filling.text(&set.elements.join(", ")));
    }
    out.push_str("  }\n");
}

pub(crate) fn write_rules(out: &mut String, rules: &[Rule], filling: &Filling<'_>, indent: usize) {
    for rule in rules {
        let _ = write!(out, "{:indent$}", "");
        for (position, part) in rule.parts.iter().enumerate() {
            if position > 0 {
                out.push(' ');
            }
            match part {
                Part::Text(text) => out.push_str(&filling.text(text)),
                Part::Listed { before, elements } => {
                    let _ =
                        write!(out, "{} {{ {} }}", filling.text(before), filling.text(&elements.join(", ")));
                }
                Part::Chain { verb, rules } => {
                    let _ = writeln!(out, "{verb} {{");
                    write_rules(out, rules, filling, indent + 2);
                    let _ = write!(out, "{:indent$}}}", "");
                }
            }
        }
        out.push('\n');
    }
}
