//! What the extensions of iptables become.

use std::path::Path;

use zone_ruleset::{Expr, Ports, Ruleset, XtMatch, XtTarget};

use crate::namespace::{Namespace, namespace, rules, skip};

const RULES: &str = include_str!("rules/all.iptables");
const RULES_OF_IPV6: &str = include_str!("rules/all.ip6tables");

fn iptables(test: &str) -> Option<(Namespace, Ruleset)> {
    let restore = ["/usr/sbin/iptables-nft-restore", "/usr/sbin/ip6tables-nft-restore"];
    if !restore.iter().all(|tool| Path::new(tool).exists()) {
        skip(test, "iptables-nft-restore is missing: apt-get install iptables");
        return None;
    }
    let host = namespace(test)?;
    host.feed(restore[0], &[], RULES);
    host.feed(restore[1], &[], RULES_OF_IPV6);
    let ruleset = host.ruleset();
    Some((host, ruleset))
}

fn matches(ruleset: &Ruleset, table: &str, chain: &str) -> Vec<XtMatch> {
    exprs(ruleset, table, chain, |expr| match expr {
        Expr::XtMatch { what, .. } => Some(what.clone()),
        _ => None,
    })
}

fn targets(ruleset: &Ruleset, table: &str, chain: &str) -> Vec<XtTarget> {
    exprs(ruleset, table, chain, |expr| match expr {
        Expr::XtTarget { what, .. } => Some(what.clone()),
        _ => None,
    })
}

fn exprs<T>(ruleset: &Ruleset, table: &str, chain: &str, kept: impl Fn(&Expr) -> Option<T>) -> Vec<T> {
    let table = ruleset.table(zone_ruleset::Family::Ip, table.as_bytes()).expect("a table");
    let rules = &table.chain(&chain.into()).expect("a chain").rules;
    rules.iter().flat_map(|rule| &rule.exprs).filter_map(kept).collect()
}

#[test]
fn matches_of_iptables_say_what_they_ask() {
    let Some((_host, ruleset)) = iptables("matches_of_iptables_say_what_they_ask") else { return };
    let state = |mask, negated| XtMatch::CtState { mask, negated };
    let ports =
        |of, ranges: &[(u16, u16)], negated| XtMatch::Multiport { of, ranges: ranges.into(), negated };
    let address = |text: &str| text.parse().expect("an address");
    // Some are written as plain expressions by a newer iptables: then they are not here.
    let expected = [
        XtMatch::Comment("who \"lives\" here".into()),
        XtMatch::Tcp {
            source: (1024, 65535),
            source_negated: false,
            destination: (80, 80),
            destination_negated: true,
            flags_mask: 0x17,
            flags: 0x02,
            flags_negated: true,
            option: 5,
            option_negated: false,
        },
        XtMatch::OtherProtocol,
        ports(Ports::Destination, &[(22, 22), (80, 80), (100, 200), (443, 443)], false),
        ports(Ports::Source, &[(22, 22), (80, 80)], true),
        ports(Ports::Either, &[(5, 5), (6, 7)], false),
        state(2 | 4, false),
        state(8 | 128 | 256, true),
        // It asks for an address as well.
        XtMatch::Other,
        state(1, false),
        state(256, false),
        XtMatch::AddrType {
            source: 0,
            source_negated: false,
            destination: 1 << 2,
            destination_negated: false,
            on_interface: true,
        },
        XtMatch::AddrType {
            source: 1 << 1 | 1 << 5,
            source_negated: true,
            destination: 0,
            destination_negated: false,
            on_interface: false,
        },
        XtMatch::ConnMark { mark: 0x10, mask: 0x30, negated: false },
        XtMatch::IpRange {
            source: Some((address("192.0.2.10"), address("192.0.2.20"))),
            source_negated: false,
            destination: Some((address("10.0.0.1"), address("10.0.0.2"))),
            destination_negated: true,
        },
        XtMatch::Mac { address: [0, 0x11, 0x22, 0x33, 0x44, 0x55], negated: true },
        XtMatch::PktType { kind: 2, negated: false },
        XtMatch::Length { min: 40, max: 80, negated: true },
        XtMatch::Limit { text: "limit: above 10/sec burst 20 mode srcip-dstport".into() },
        // recent, statistic
        XtMatch::Other,
        XtMatch::Other,
    ];
    assert_eq!(matches(&ruleset, "filter", "INPUT"), expected);
    assert_eq!(rules(&ruleset, "INPUT").iter().filter(|rule| rule.comment.is_some()).count(), 0, "of raw");
    let filter = ruleset.table(zone_ruleset::Family::Ip, b"filter").expect("a table");
    let first = &filter.chain(&"INPUT".into()).expect("a chain").rules[0];
    assert_eq!(first.comment.as_deref(), Some("who \"lives\" here"));
}

#[test]
fn targets_of_iptables_say_what_they_do() {
    let Some((_host, ruleset)) = iptables("targets_of_iptables_say_what_they_do") else { return };
    assert_eq!(targets(&ruleset, "raw", "PREROUTING"), [XtTarget::Notrack, XtTarget::Passes]);
    let connmark = |mode, mark, mask, packet_mask| XtTarget::ConnMark { mode, mark, mask, packet_mask };
    assert_eq!(
        targets(&ruleset, "mangle", "PREROUTING"),
        [
            XtTarget::Mark { mark: 0x4000, mask: 0xff00 },
            connmark(2, 0, 0xf, 0xf0),
            connmark(0, 0x10, 0x30, u32::MAX),
            connmark(1, 0, u32::MAX, u32::MAX),
            XtTarget::Tproxy,
        ]
    );
    let address = Some("10.0.0.2".parse().expect("an address"));
    assert_eq!(
        targets(&ruleset, "nat", "PREROUTING"),
        [
            XtTarget::Dnat { address, ports: Some((8080, 8080)) },
            XtTarget::Dnat { address, ports: None },
            XtTarget::Redirect { ports: Some((8080, 8090)) },
            XtTarget::Redirect { ports: None },
        ]
    );
    assert_eq!(targets(&ruleset, "nat", "POSTROUTING"), [XtTarget::Snat, XtTarget::Snat]);
    assert_eq!(
        targets(&ruleset, "filter", "INPUT"),
        [XtTarget::Passes, XtTarget::Reject, XtTarget::Reject],
        "LOG, and both kinds of REJECT"
    );
    assert!(targets(&ruleset, "mangle", "OUTPUT").iter().all(|target| *target == XtTarget::Passes));
}

#[test]
fn extensions_of_ip6tables_have_addresses_of_ipv6() {
    let Some((_host, ruleset)) = iptables("extensions_of_ip6tables_have_addresses_of_ipv6") else { return };
    let table = |name: &[u8]| ruleset.table(zone_ruleset::Family::Ip6, name).expect("a table");
    let nat = table(b"nat").chain(&"PREROUTING".into()).expect("a chain");
    let last = |rule: usize| match nat.rules[rule].exprs.last() {
        Some(Expr::XtTarget { what, .. }) => what.clone(),
        other => panic!("{other:?}"),
    };
    let address = Some("2001:db8::2".parse().expect("an address"));
    assert_eq!(last(0), XtTarget::Dnat { address, ports: Some((8080, 8080)) });
    assert_eq!(last(1), XtTarget::Redirect { ports: Some((8080, 8080)) });
    let exprs = table(b"filter").chain(&"INPUT".into()).expect("a chain").rules.iter();
    let ranges: Vec<_> = exprs
        .flat_map(|rule| &rule.exprs)
        .filter_map(|expr| match expr {
            Expr::XtMatch { what: XtMatch::IpRange { source, .. }, .. } => *source,
            _ => None,
        })
        .collect();
    let [(first, last)] = ranges.as_slice() else { panic!("{ranges:?}") };
    assert_eq!((first.to_string(), last.to_string()), ("2001:db8::1".into(), "2001:db8::ff".into()));
}
