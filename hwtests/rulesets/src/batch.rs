//! Many rulesets in one, each behind a destination of its own, so that loading them takes the time of one.
//!
//! Loading takes some 20 ms whatever is loaded, most of it the kernel's waiting for readers. All base chains of the same hook and
//! priority become one, which leads each packet to the chain of the ruleset that its destination stands for. A
//! policy to drop becomes a drop behind that chain.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::model::{Base, Destination, Family, Filling, Ruleset, write_base, write_rules, write_set};

/// How many chains may be nested in a ruleset of a batch, its base chain not counted: the kernel follows 15 jumps, of which
/// the batch takes two and an anonymous chain another one.
pub const DEEPEST_IN_A_BATCH: usize = 12;

/// A base chain of the batch: family, hook, priority, and the how-many-th of these in a ruleset.
type Slot = (Family, &'static str, i32, usize);

/// The text of all of them for `nft -f`. None may have tables that are dormant, of family netdev, or with chains of nat or ingress.
#[must_use]
pub fn batch(rulesets: &[(&Ruleset, Destination)]) -> String {
    let mut tables: BTreeMap<Family, String> = BTreeMap::new();
    let mut entries: BTreeMap<Slot, Vec<(Destination, String)>> = BTreeMap::new();
    for (number, (ruleset, destination)) in rulesets.iter().enumerate() {
        let mut used: BTreeMap<(Family, &str, i32), usize> = BTreeMap::new();
        for (nth, table) in ruleset.tables.iter().enumerate() {
            let prefix = format!("r{number}t{nth}_");
            let filling = Filling { prefix: &prefix, destination };
            let out = tables.entry(table.family).or_default();
            for set in &table.sets {
                write_set(out, set, &filling);
            }
            for chain in &table.chains {
                let _ = writeln!(out, "  chain {prefix}{} {{", chain.name);
                write_rules(out, &chain.rules, &filling, 4);
                out.push_str("  }\n");
                let Some(base) = &chain.base else { continue };
                let mut entry = format!("{prefix}{}", chain.name);
                if base.drops {
                    let _ = writeln!(out, "  chain {entry}_policy {{\n    jump {entry}\n    drop\n  }}");
                    entry.push_str("_policy");
                }
                let place = (table.family, base.hook, base.priority);
                let before = used.entry(place).or_default();
                entries.entry((place.0, place.1, place.2, *before)).or_default().push((*destination, entry));
                *before += 1;
            }
        }
    }
    for (slot, (family, hook, priority, nth)) in entries.keys().enumerate() {
        let out = tables.entry(*family).or_default();
        let _ = writeln!(out, "  chain batch{slot}_{nth} {{");
        write_base(out, &Base { kind: "filter", hook, priority: *priority, drops: false });
        let entries = &entries[&(*family, *hook, *priority, *nth)];
        let list = |address: &dyn Fn(&Destination) -> String| {
            let elements = entries.iter().map(|(to, chain)| format!("{} : jump {chain}", address(to)));
            elements.collect::<Vec<_>>().join(", ")
        };
        if family.has_v4() {
            let _ = writeln!(out, "    ip daddr vmap {{ {} }}", list(&|to| to.v4.to_string()));
        }
        if family.has_v6() {
            let _ = writeln!(out, "    ip6 daddr vmap {{ {} }}", list(&|to| to.v6.to_string()));
        }
        out.push_str("  }\n");
    }
    let text = tables.iter().map(|(family, body)| format!("table {} batch {{\n{body}}}\n", family.as_str()));
    text.collect()
}
