//! What tables, chains, sets and objects become.

use zone_ruleset::{
    ChainType, Element, Expr, Family, Hook, HookPoint, HookedFunction, Limit, LimitUnit, Name, ObjectKind,
    Verdict,
};

use crate::namespace::{namespace, rules, skip};

#[test]
fn tables_and_chains_keep_their_flags_hooks_and_comments() {
    let Some(host) = namespace("tables_and_chains_keep_their_flags_hooks_and_comments") else { return };
    host.nft(
        "table inet t { comment \"of the \u{fc}bermorgen\"\n\
         chain in { type filter hook input priority -5; policy drop; accept comment \"who lives here\"\n }\n\
         chain out { type route hook output priority mangle; }\n chain called { } }\n\
         table ip asleep { flags dormant; chain post { type nat hook postrouting priority srcnat; } }\n\
         table netdev early { chain in { type filter hook ingress device lo priority -500; drop; } }\n\
         table inet early { chain in { type filter hook ingress device lo priority 7; } }\n\
         table bridge b { chain f { type filter hook forward priority 0; } }\n\
         table arp a { chain i { type filter hook input priority 0; } }",
    );
    let ruleset = host.ruleset();
    let table = ruleset.table(Family::Inet, b"t").expect("a table");
    assert_eq!(table.comment.as_deref(), Some("of the \u{fc}bermorgen"));
    let hook = |family, table: &str, chain: &str| {
        let table = ruleset.table(family, table.as_bytes()).expect("a table");
        table.chain(&chain.into()).expect("a chain").hook.clone()
    };
    let expected = |point, priority, kind| {
        Some(Hook { point, priority, kind, policy_drops: false, devices: Vec::new() })
    };
    let Some(input) = hook(Family::Inet, "t", "in") else { panic!("it is a base chain") };
    assert!(input.policy_drops && input.point == HookPoint::Input && input.priority == -5, "{input:?}");
    assert_eq!(hook(Family::Inet, "t", "out"), expected(HookPoint::Output, -150, ChainType::Route));
    assert_eq!(hook(Family::Inet, "t", "called"), None);
    assert_eq!(hook(Family::Ip, "asleep", "post"), expected(HookPoint::Postrouting, 100, ChainType::Nat));
    assert_eq!(hook(Family::Bridge, "b", "f"), expected(HookPoint::Forward, 0, ChainType::Filter));
    assert_eq!(hook(Family::Arp, "a", "i"), expected(HookPoint::Input, 0, ChainType::Filter));
    for (family, priority) in [(Family::Netdev, -500), (Family::Inet, 7)] {
        let ingress = hook(family, "early", "in").expect("a base chain");
        assert_eq!((ingress.point, ingress.priority), (HookPoint::Ingress, priority));
        assert_eq!(ingress.devices, [Name::from("lo")]);
    }
    assert!(ruleset.table(Family::Ip, b"asleep").expect("a table").flags.dormant);
    assert_eq!(rules(&ruleset, "in")[0].comment.as_deref(), Some("who lives here"));
}

#[test]
fn anonymous_chains_are_there_with_their_rules() {
    let Some(host) = namespace("anonymous_chains_are_there_with_their_rules") else { return };
    host.nft("table inet t { chain in { jump { tcp dport 5 drop; return; }\n } }");
    let ruleset = host.ruleset();
    let [Expr::Verdict(Verdict::Jump(name))] = rules(&ruleset, "in")[0].exprs.as_slice() else {
        panic!("{ruleset:?}");
    };
    let chain = ruleset.tables[0].chain(name).expect("the chain that is jumped to");
    assert!(chain.anonymous);
    assert_eq!(chain.rules.len(), 2);
}

#[test]
fn sets_keep_their_fields_ends_verdicts_times_and_expressions() {
    let Some(host) = namespace("sets_keep_their_fields_ends_verdicts_times_and_expressions") else { return };
    host.nft(
        "table inet t { counter hits { }\n chain sub { }\n\
         set ranges { type ipv4_addr . inet_service; flags interval; elements = { 192.0.2.0/24 . 80-90 } }\n\
         set pairs { type ipv6_addr . inet_service . mark; elements = { 2001:db8::1 . 80 . 7 } }\n\
         set nets { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 } }\n\
         set timed { type ipv4_addr; flags timeout; timeout 5m; elements = { 192.0.2.1 timeout 1h } }\n\
         set counted { type inet_service; counter; elements = { 443 } }\n\
         map verdicts { type inet_service : verdict; elements = { 22 : jump sub, * : drop } }\n\
         map objects { type inet_service : counter; elements = { 22 : \"hits\" } }\n\
         map data { type ipv4_addr : ipv4_addr . inet_service; elements = { 192.0.2.1 : 10.0.0.2 . 8080 } } }",
    );
    let ruleset = host.ruleset();
    let set = |name: &str| ruleset.tables[0].set(&name.into()).expect("a set");
    let element = |name: &str| -> Element {
        let [element] = set(name).elements.as_slice() else { panic!("{:?}", set(name)) };
        element.clone()
    };
    let ranges = set("ranges");
    assert!(ranges.flags.interval && ranges.flags.concat, "{ranges:?}");
    assert_eq!((ranges.key_len, ranges.fields.as_slice()), (8, [4, 2].as_slice()));
    assert_eq!(&*element("ranges").key, [192, 0, 2, 0, 0, 80, 0, 0]);
    assert_eq!(element("ranges").key_end.as_deref(), Some([192, 0, 2, 255, 0, 90, 0, 0].as_slice()));
    assert_eq!((set("pairs").key_len, set("pairs").fields.as_slice()), (24, [16, 2, 4].as_slice()));

    let mut nets = set("nets").elements.clone();
    nets.sort_by(|a, b| a.key.cmp(&b.key));
    let ends: Vec<_> = nets.iter().map(|element| (element.key[0], element.interval_end)).collect();
    assert!(ends.ends_with(&[(10, false), (11, true)]), "{ends:?}");

    assert_eq!(set("timed").timeout, Some(300_000));
    let left = element("timed").expires.expect("it goes");
    assert!((1..=3_600_000).contains(&left), "{left} ms");
    assert_eq!(element("counted").exprs, [Expr::Counter]);

    let verdicts = set("verdicts");
    assert!(verdicts.flags.map && verdicts.data_type == 0xffff_ff00, "{verdicts:?}");
    let found = |catch_all| verdicts.elements.iter().find(|element| element.catch_all == catch_all);
    assert_eq!(found(false).expect("one").verdict, Some(Verdict::Jump("sub".into())));
    let rest = found(true).expect("one for the rest");
    assert_eq!((rest.verdict.clone(), rest.key.len()), (Some(Verdict::Drop), 0));
    assert_eq!(element("objects").object, Some("hits".into()));
    assert_eq!(element("data").data.as_deref(), Some([10, 0, 0, 2, 31, 144, 0, 0].as_slice()));
}

#[test]
fn stateful_objects_keep_what_they_allow() {
    let Some(host) = namespace("stateful_objects_keep_what_they_allow") else { return };
    host.nft(
        "table inet t { counter c { }\n quota q { over 5 mbytes }\n limit l { rate over 3/minute burst 7 packets }\n\
         ct helper ftp { type \"ftp\" protocol tcp; } }",
    );
    let ruleset = host.ruleset();
    let kind = |name: &str| {
        let mut objects = ruleset.tables[0].objects.iter();
        objects.find(|object| object.name == *name).expect("an object").kind.clone()
    };
    assert_eq!(kind("c"), ObjectKind::Counter);
    assert_eq!(kind("q"), ObjectKind::Quota { bytes: 5 << 20, used: 0, over: true });
    let limit = Limit { rate: 3, seconds: 60, burst: 7, unit: LimitUnit::Packets, over: true };
    assert_eq!(kind("l"), ObjectKind::Limit(limit));
    assert_eq!(kind("ftp"), ObjectKind::Other("ct helper".to_owned()));
}

#[test]
fn tables_of_iptables_legacy_are_told_by_their_hooks() {
    let test = "tables_of_iptables_legacy_are_told_by_their_hooks";
    let Some(host) = namespace(test) else { return };
    let legacy =
        || host.command("iptables-legacy").args(["-t", "filter", "-A", "INPUT", "-j", "DROP"]).output();
    if !legacy().is_ok_and(|output| output.status.success()) {
        skip(test, "iptables-legacy is missing, or the kernel has none: apt-get install iptables");
        return;
    }
    let ruleset = host.ruleset();
    let legacy: Vec<_> = ruleset
        .hooked
        .iter()
        .filter(|hooked| match &hooked.function {
            HookedFunction::Kernel { function, .. } => function.starts_with("ipt_do_table"),
            _ => false,
        })
        .map(|hooked| (hooked.family, hooked.point, hooked.priority))
        .collect();
    let expected =
        [HookPoint::Input, HookPoint::Forward, HookPoint::Output].map(|point| (Family::Ip, point, 0));
    assert_eq!(legacy, expected);
}
