//! What is left of a ruleset when all is taken away that a failure does not need.

use crate::model::{Part, Rule, Ruleset};

/// Takes tables, chains, sets, rules, conditions and elements away for as long as `fails` says that the rest still fails. It
/// may be given rulesets that can't be loaded, and is to say no of these.
pub fn shrink(ruleset: &Ruleset, mut fails: impl FnMut(&Ruleset) -> bool) -> Ruleset {
    let mut smallest = ruleset.clone();
    loop {
        let mut changed = false;
        let mut position = 0;
        loop {
            let smaller = candidates(&smallest);
            let Some(candidate) = smaller.get(position) else { break };
            if fails(candidate) {
                smallest = candidate.clone();
                changed = true;
            } else {
                position += 1;
            }
        }
        if !changed {
            return smallest;
        }
    }
}

/// All rulesets that are one step smaller, those with the largest steps first.
fn candidates(ruleset: &Ruleset) -> Vec<Ruleset> {
    let mut out = Vec::new();
    for table in 0..ruleset.tables.len() {
        with(ruleset, &mut out, |smaller| drop(smaller.tables.remove(table)));
    }
    for (table, old) in ruleset.tables.iter().enumerate() {
        for (chain, named) in old.chains.iter().enumerate() {
            with(ruleset, &mut out, |smaller| {
                let chains = &mut smaller.tables[table].chains;
                chains.remove(chain);
                for other in chains {
                    other.rules.retain(|rule| !names(rule, &named.name));
                }
            });
        }
        for (chain, named) in old.chains.iter().enumerate() {
            for (first, last) in pieces(named.rules.len()) {
                with(ruleset, &mut out, |smaller| {
                    drop(smaller.tables[table].chains[chain].rules.drain(first..last));
                });
            }
        }
        for (set, named) in old.sets.iter().enumerate() {
            with(ruleset, &mut out, |smaller| {
                let table = &mut smaller.tables[table];
                table.sets.remove(set);
                for chain in &mut table.chains {
                    chain.rules.retain(|rule| !names(rule, &named.name));
                }
            });
            for (first, last) in pieces(named.elements.len()) {
                with(ruleset, &mut out, |smaller| {
                    drop(smaller.tables[table].sets[set].elements.drain(first..last));
                });
            }
        }
        for (chain, named) in old.chains.iter().enumerate() {
            for (rule, parts) in named.rules.iter().enumerate() {
                for smaller_rule in smaller_rules(parts) {
                    with(ruleset, &mut out, |smaller| {
                        smaller.tables[table].chains[chain].rules[rule] = smaller_rule;
                    });
                }
            }
            if named.base.as_ref().is_some_and(|base| base.drops) {
                with(ruleset, &mut out, |smaller| {
                    if let Some(base) = &mut smaller.tables[table].chains[chain].base {
                        base.drops = false;
                    }
                });
            }
        }
    }
    out
}

fn with(ruleset: &Ruleset, out: &mut Vec<Ruleset>, change: impl FnOnce(&mut Ruleset)) {
    let mut smaller = ruleset.clone();
    change(&mut smaller);
    out.push(smaller);
}

/// Halves, quarters, ..., and each one of so many things.
fn pieces(count: usize) -> Vec<(usize, usize)> {
    let mut out = Vec::new();
    let mut size = count;
    while size > 0 {
        let mut first = 0;
        while first < count {
            out.push((first, (first + size).min(count)));
            first += size;
        }
        size /= 2;
    }
    out
}

fn smaller_rules(rule: &Rule) -> Vec<Rule> {
    let mut out = Vec::new();
    for (position, part) in rule.parts.iter().enumerate() {
        if rule.parts.len() > 1 {
            let mut smaller = rule.clone();
            smaller.parts.remove(position);
            out.push(smaller);
        }
        let replaced = |part: Part| {
            let mut smaller = rule.clone();
            smaller.parts[position] = part;
            smaller
        };
        match part {
            Part::Text(_) => {}
            Part::Listed { before, elements } => {
                for (first, last) in pieces(elements.len()) {
                    let mut elements = elements.clone();
                    elements.drain(first..last);
                    if !elements.is_empty() {
                        out.push(replaced(Part::Listed { before: before.clone(), elements }));
                    }
                }
            }
            Part::Chain { verb, rules } => {
                for (first, last) in pieces(rules.len()) {
                    let mut rules = rules.clone();
                    rules.drain(first..last);
                    if !rules.is_empty() {
                        out.push(replaced(Part::Chain { verb, rules }));
                    }
                }
                for (nth, inner) in rules.iter().enumerate() {
                    for smaller in smaller_rules(inner) {
                        let mut rules = rules.clone();
                        rules[nth] = smaller;
                        out.push(replaced(Part::Chain { verb, rules }));
                    }
                }
            }
        }
    }
    out
}

/// Whether a rule names a chain or set.
fn names(rule: &Rule, name: &str) -> bool {
    let named = format!("%{name}");
    let in_text = |text: &str| {
        text.match_indices(&named)
            .any(|(at, _)| !text[at + named.len()..].starts_with(|next: char| next.is_ascii_alphanumeric()))
    };
    rule.parts.iter().any(|part| match part {
        Part::Text(text) => in_text(text),
        Part::Listed { before, elements } => in_text(before) || elements.iter().any(|text| in_text(text)),
        Part::Chain { rules, .. } => rules.iter().any(|rule| names(rule, name)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Destination, Shape, generate};

    #[test]
    fn what_does_not_matter_is_taken_away() {
        let needed = "ip saddr";
        let mut shrunk_some = false;
        for seed in 0..50 {
            let ruleset = generate(seed, Shape::Batched).ruleset;
            let has = |ruleset: &Ruleset| ruleset.to_nft(&Destination::of(1)).contains(needed);
            if !has(&ruleset) {
                continue;
            }
            let small = shrink(&ruleset, has);
            assert!(has(&small));
            assert!(small.rules() <= 2, "{}", small.to_nft(&Destination::of(1)));
            shrunk_some = true;
        }
        assert!(shrunk_some);
    }

    #[test]
    fn a_chain_goes_with_the_rules_that_name_it() {
        let rule = Rule { parts: vec![Part::Text("jump %c1".to_owned())] };
        assert!(names(&rule, "c1"));
        assert!(!names(&Rule { parts: vec![Part::Text("jump %c12".to_owned())] }, "c1"));
    }
}
