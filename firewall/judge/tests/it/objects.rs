//! Stateful objects of one name.

use zone_judge::{Fate, Host, Question, judge};
use zone_ruleset::{
    Chain, ChainType, Expr, Family, Hook, HookPoint, Object, ObjectKind, Rule, Ruleset, Table, TableFlags,
    Verdict,
};

/// A table whose input drops what `x` lets through.
fn rules(objects: Vec<ObjectKind>) -> Ruleset {
    let objects = objects.into_iter().map(|kind| Object { name: "x".into(), handle: 1, kind }).collect();
    let hook = Hook {
        point: HookPoint::Input,
        priority: 0,
        kind: ChainType::Filter,
        policy_drops: false,
        devices: Vec::new(),
    };
    let exprs = vec![Expr::Object("x".into()), Expr::Verdict(Verdict::Drop)];
    let chain = Chain {
        name: "in".into(),
        handle: 2,
        hook: Some(hook),
        anonymous: false,
        rules: vec![Rule { handle: 3, comment: None, exprs }],
    };
    let table = Table {
        family: Family::Inet,
        name: "t".into(),
        handle: 4,
        flags: TableFlags::default(),
        comment: None,
        chains: vec![chain],
        sets: Vec::new(),
        objects,
        flowtables: Vec::new(),
    };
    Ruleset { tables: vec![table], ..Ruleset::default() }
}

#[test]
fn a_name_that_a_counter_and_a_quota_have_decides_nothing() {
    let asked = |objects| judge(&rules(objects), &Host::default(), &Question::any(false, 17488)).cases;
    let counted = asked(vec![ObjectKind::Counter]);
    assert!(
        counted.iter().all(|case| case.fate == Fate::Dropped && case.conditions.is_empty()),
        "{counted:?}"
    );
    let quota = ObjectKind::Quota { bytes: 1000, used: 0, over: true };
    let either = asked(vec![ObjectKind::Counter, quota]);
    assert!(either.iter().all(|case| !case.conditions.is_empty()), "{either:?}");
    assert!(either.iter().any(|case| case.fate == Fate::Dropped), "{either:?}");
    assert!(either.iter().any(|case| case.fate == Fate::Accepted), "{either:?}");
}
