//! Rulesets from the kernel's messages: what is accepted has no register beyond the last, no value of another length than what it is
//! compared with, and no lookup in a set that is not there; its words are one line; the judge
//! comes to an end with it, and to the same one each time; and what was said first does not depend on what comes behind it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use zone_judge::{Host, Interface, Question, judge};
use zone_ruleset::{Bitwise, Expr, RegisterSlice, Ruleset, Table, decode, words};

fuzz_target!(|data: &[u8]| {
    let Ok(ruleset) = decode(data) else { return };
    for table in &ruleset.tables {
        for rule in table.chains.iter().flat_map(|chain| &chain.rules) {
            rule.exprs.iter().for_each(|expr| holds_together(expr, table));
            let line = words::rule(rule, table);
            assert!(!line.chars().any(char::is_control), "{line:?}");
        }
        for element in table.sets.iter().flat_map(|set| &set.elements) {
            assert!(element.catch_all || !element.key.is_empty(), "{element:?}");
            element.exprs.iter().for_each(|expr| holds_together(expr, table));
        }
    }
    for v6 in [false, true] {
        let question = Question::any(v6, 22);
        assert_eq!(judge(&ruleset, &host(), &question), judge(&ruleset, &host(), &question));
    }
    let mut end = 0;
    while let Some(length) = data.get(end..end + 4) {
        let length = u32::from_ne_bytes(length.try_into().expect("four bytes"));
        end += usize::try_from(length).expect("a length").next_multiple_of(4);
        let begun = decode(&data[..end.min(data.len())]).expect("the beginning of what is accepted");
        assert!(is_beginning(&begun, &ruleset), "{begun:?} {ruleset:?}");
    }
});

/// A host with a device that packets come in by.
fn host() -> Host {
    let device = |index, name: &str, kind, addresses: &[&str]| Interface {
        index,
        name: name.into(),
        group: 0,
        kind,
        virtual_kind: None,
        master: None,
        addresses: addresses.iter().map(|address| address.parse().expect("an address")).collect(),
    };
    Host {
        interfaces: vec![
            device(1, "lo", 772, &["127.0.0.1", "::1"]),
            device(2, "eth0", 1, &["192.0.2.1", "2001:db8::1"]),
        ],
    }
}

fn holds_together(expr: &Expr, table: &Table) {
    match expr {
        Expr::Immediate { destination, value } => as_long(*destination, value),
        Expr::Compare { source, value, .. } => as_long(*source, value),
        Expr::Range { source, from, to, .. } => {
            as_long(*source, from);
            as_long(*source, to);
        }
        Expr::Bitwise { source, destination, op } => {
            in_bounds(*destination);
            in_bounds(*source);
            if let Bitwise::Mask { mask, xor } = op {
                as_long(*source, mask);
                as_long(*source, xor);
            }
        }
        Expr::Lookup { source, set, destination, .. } => {
            let set = table.set(set).expect("a set that is there");
            assert_eq!(u32::from(source.length), set.key_len);
            in_bounds(*source);
            destination.iter().for_each(|slice| in_bounds(*slice));
        }
        Expr::Dynset(dynset) => {
            assert!(table.set(&dynset.set).is_some(), "{dynset:?}");
            in_bounds(dynset.key);
            dynset.exprs.iter().for_each(|expr| holds_together(expr, table));
        }
        Expr::Payload { destination, .. } | Expr::Meta { destination, .. } | Expr::Ct { destination, .. } => {
            in_bounds(*destination);
        }
        Expr::Unknown { destination: Some(destination), .. } => in_bounds(*destination),
        _ => {}
    }
}

fn as_long(slice: RegisterSlice, value: &[u8]) {
    in_bounds(slice);
    assert_eq!(usize::from(slice.length), value.len());
}

fn in_bounds(slice: RegisterSlice) {
    assert!(slice.length > 0 && u32::from(slice.offset) + u32::from(slice.length) <= 64, "{slice:?}");
}

/// Whether the tables of one are the first of the other, with no more in them.
fn is_beginning(begun: &Ruleset, whole: &Ruleset) -> bool {
    begun.tables.len() <= whole.tables.len()
        && begun.tables.iter().zip(&whole.tables).all(|(begun, whole)| {
            begun.name == whole.name
                && begun.chains.len() <= whole.chains.len()
                && begun
                    .chains
                    .iter()
                    .zip(&whole.chains)
                    .all(|(begun, whole)| whole.rules.starts_with(&begun.rules))
                && begun
                    .sets
                    .iter()
                    .zip(&whole.sets)
                    .all(|(begun, whole)| whole.elements.starts_with(&begun.elements))
        })
}
