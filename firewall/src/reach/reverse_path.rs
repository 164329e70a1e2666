//! Rules that let a packet in only by the device that leads back to its source, as firewalld has one for IPv6 on every host.

use zone_judge::Condition;
use zone_ruleset::{Expr, Fib, Ruleset};

use crate::placement::rule_at;

/// `NFTA_FIB_F_SADDR` and `NFTA_FIB_F_IIF`.
const SOURCE_BY_DEVICE: u32 = 1 | 8;
/// `NFT_FIB_RESULT_ADDRTYPE`: the one answer that is about no route.
const ADDRESS_TYPE: u32 = 3;

/// Whether a case is about packets that come in by another device than the one that leads back to their source; `None`
/// where a condition asks for something else. Whoever is meant to get in comes the way that leads back.
pub(super) fn comes_another_way(condition: &Condition, rules: &Ruleset) -> Option<bool> {
    let rule = rule_at(rules, &condition.place)?;
    let mut exprs = rule.exprs.iter();
    let answer = exprs.find_map(|expr| match expr {
        Expr::Fib(Fib { destination, result, flags })
            if flags & SOURCE_BY_DEVICE == SOURCE_BY_DEVICE && *result != ADDRESS_TYPE =>
        {
            Some(destination.offset)
        }
        _ => None,
    })?;
    // The condition holds where the answer is this value. No route is 0.
    let no_route = exprs.find_map(|expr| match expr {
        Expr::Compare { source, value, .. } if source.offset == answer => {
            Some(value.iter().all(|byte| *byte == 0))
        }
        _ => None,
    })?;
    Some(condition.holds == no_route)
}

#[cfg(test)]
mod tests {
    use zone_judge::Place;
    use zone_ruleset::{Chain, Comparison, Family, Name, RegisterSlice, Rule, Table, TableFlags};

    use super::*;

    /// A rule that asks whether there is such a route, and compares the answer.
    fn rules(flags: u32, value: u8) -> Ruleset {
        let register = RegisterSlice { offset: 0, length: 1 };
        let exprs = vec![
            Expr::Fib(Fib { destination: register, result: 1, flags }),
            Expr::Compare { source: register, op: Comparison::Equal, value: Box::new([value]) },
        ];
        let chain = Chain {
            name: Name::from("early"),
            handle: 1,
            hook: None,
            anonymous: false,
            rules: vec![Rule { handle: 7, comment: None, exprs }],
        };
        let table = Table {
            family: Family::Inet,
            name: Name::from("office"),
            handle: 1,
            flags: TableFlags::default(),
            comment: None,
            chains: vec![chain],
            sets: Vec::new(),
            objects: Vec::new(),
            flowtables: Vec::new(),
        };
        Ruleset { tables: vec![table], ..Ruleset::default() }
    }

    fn condition(holds: bool) -> Condition {
        let place = Place {
            family: Family::Inet,
            table: Name::from("office"),
            chain: Name::from("early"),
            handle: Some(7),
        };
        Condition { what: "fib".to_owned(), holds, place, decided_with: None, while_quiet: None }
    }

    #[test]
    fn whoever_comes_another_way_is_told_from_who_comes_the_way_back() {
        let (missing, exists) = (rules(1 | 4 | 8 | 32, 0), rules(1 | 8 | 32, 1));
        assert_eq!(comes_another_way(&condition(true), &missing), Some(true));
        assert_eq!(comes_another_way(&condition(false), &missing), Some(false));
        assert_eq!(comes_another_way(&condition(true), &exists), Some(false));
        assert_eq!(comes_another_way(&condition(false), &exists), Some(true));
    }

    #[test]
    fn a_route_to_the_destination_is_another_question() {
        assert_eq!(comes_another_way(&condition(true), &rules(2 | 8 | 32, 0)), None);
    }
}
