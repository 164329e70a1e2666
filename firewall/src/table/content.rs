//! What is in our table, and what should be, in one form for comparing: one line for each thing.

use std::collections::{BTreeMap, BTreeSet};

use nftables::schema::{Chain, NfListObject};
use zone_ruleset::{Family, ObjectKind, Ruleset, Table, words};

use super::{TABLE, objects};
use crate::desired::Desired;
use crate::slave_name::with_slave_names;
use crate::statement::{canonical, render};

/// Whether a table is ours.
pub(crate) fn is_own(table: &Table) -> bool {
    table.family == Family::Inet && table.name.as_bytes() == TABLE.as_bytes()
}

/// The table's content. Rules are in words, since the same rule may be executed by other expressions where another version of nft
/// has loaded it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Content {
    /// Where each chain is hooked in, and its rules.
    chains: BTreeMap<String, (String, Vec<String>)>,
    counters: BTreeSet<String>,
    /// What should not be there, whatever it is.
    others: BTreeSet<String>,
}

impl Content {
    /// What should be in the table.
    pub(crate) fn desired(desired: &Desired) -> Self {
        let mut content = Self::default();
        for object in objects(desired) {
            match object {
                NfListObject::Chain(chain) => {
                    content.chains.insert(chain.name.to_string(), (header(&chain), Vec::new()));
                }
                NfListObject::Rule(rule) => {
                    let document = with_slave_names(serde_json::to_value(&rule).unwrap_or_default());
                    if let Some((_, rules)) = content.chains.get_mut(&*rule.chain) {
                        rules.push(render(&canonical(&document)));
                    }
                }
                NfListObject::Counter(counter) => drop(content.counters.insert(counter.name.to_string())),
                _ => {}
            }
        }
        content
    }

    /// What is in the table, if it is there.
    pub(crate) fn of(rules: &Ruleset) -> Option<Self> {
        let table = rules.tables.iter().find(|table| is_own(table))?;
        let mut content = Self::default();
        for chain in &table.chains {
            let rules = chain.rules.iter().map(|rule| words::comparable(rule, table));
            content.chains.insert(chain.name.to_string(), (words::chain_header(chain), rules.collect()));
        }
        for object in &table.objects {
            match object.kind {
                ObjectKind::Counter => drop(content.counters.insert(object.name.to_string())),
                _ => drop(content.others.insert(format!("object {}", object.name))),
            }
        }
        // What a meter remembers is a set.
        let sets = table
            .sets
            .iter()
            .filter(|set| !set.flags.anonymous && !set.name.to_string().starts_with("port_"));
        content.others.extend(sets.map(|set| format!("set {}", set.name)));
        content.others.extend(table.flowtables.iter().map(|name| format!("flowtable {name}")));
        if table.flags.dormant {
            content.others.insert("flags dormant, with which it does nothing".to_owned());
        }
        if table.flags.owner.is_some() {
            content.others.insert("flags owner, with which another process keeps it".to_owned());
        }
        Some(content)
    }

    /// One line for each thing, in a form that can be read and compared.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, (header, rules)) in &self.chains {
            let header = if header.is_empty() { String::new() } else { format!(" {header}") };
            lines.push(format!("chain {name}{header}"));
            lines.extend(rules.iter().map(|rule| format!("chain {name}: {rule}")));
        }
        lines.extend(self.counters.iter().map(|name| format!("counter {name}")));
        lines.extend(self.others.iter().cloned());
        lines
    }
}

/// As [`words::chain_header`] has it.
fn header(chain: &Chain<'_>) -> String {
    let document = serde_json::to_value(chain).unwrap_or_default();
    let text = |key: &str| document.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
    match chain.prio {
        Some(priority) => format!("hook {} priority {priority} policy {}", text("hook"), text("policy")),
        None => String::new(),
    }
}
