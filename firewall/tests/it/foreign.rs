//! Rules of others, kind by kind: what becomes of our port behind them, and what `verify` says of it. Connections are real.

use std::net::TcpListener;

use crate::host::{Host, host};

const PORT: &str = "10.9.0.1:17488";

/// A kind of ruleset.
struct Kind {
    name: &'static str,
    /// What an admin has loaded. Packets come from 10.9.0.2 by device `inside`.
    ruleset: &'static str,
    /// Whether the port answers once `apply` has been there.
    answers: bool,
    /// The levels of what `verify` finds then.
    levels: &'static [&'static str],
}

const fn kind(
    name: &'static str,
    ruleset: &'static str,
    answers: bool,
    levels: &'static [&'static str],
) -> Kind {
    Kind { name, ruleset, answers, levels }
}

const HOOK: &str = "type filter hook input priority 0; policy";

const KINDS: [Kind; 33] = [
    kind("a policy that drops", "chain in { HOOK drop; tcp dport 22 accept; }", true, &[]),
    kind(
        "a called chain that ends in a drop",
        "chain rest { tcp dport 22 accept; drop; } chain in { HOOK accept; jump rest; }",
        true,
        &[],
    ),
    kind(
        "a source that a called chain denies",
        "chain rest { ip saddr 10.9.0.2 drop; tcp dport 22 accept; drop; } chain in { HOOK accept; jump rest; }",
        false,
        &["denied"],
    ),
    kind(
        "a source that a chain two calls deep denies",
        "chain bad { ip saddr 10.9.0.2 drop; } chain rest { jump bad; drop; } chain in { HOOK accept; jump rest; }",
        false,
        &["denied"],
    ),
    kind(
        "a source whose chain does nothing but drop",
        "chain bad { counter; drop; } chain in { HOOK drop; ip saddr 10.9.0.2 jump bad; }",
        false,
        &["denied"],
    ),
    kind(
        "a source whose chain ends in a drop",
        "chain partners { tcp dport 22 accept; drop; } chain in { HOOK accept; ip saddr 10.9.0.2 jump partners; }",
        false,
        &["closed"],
    ),
    kind(
        "a source that is marked and dropped later",
        "chain in { HOOK drop; ip saddr 10.9.0.2 meta mark set 7; meta mark 7 drop; }",
        false,
        &["denied"],
    ),
    kind(
        "a mark for all that is dropped later",
        "chain in { HOOK accept; meta mark set 7; meta mark 7 drop; }",
        true,
        &[],
    ),
    kind(
        "a set of ports",
        "set shut { type inet_service; flags interval; elements = { 17000-18000 }; } chain in { HOOK accept; tcp dport @shut drop; }",
        false,
        &["closed"],
    ),
    kind(
        "a verdict map of ports",
        "map by { type inet_service : verdict; elements = { 22 : accept, 17488 : drop }; } chain in { HOOK accept; tcp dport vmap @by; }",
        false,
        &["closed"],
    ),
    kind(
        "all that a verdict map does not name",
        "chain in { HOOK accept; tcp dport vmap { 22 : accept, * : drop }; }",
        true,
        &[],
    ),
    kind(
        "a concatenation of source and port",
        "chain in { HOOK accept; ip saddr . tcp dport { 10.0.0.0/8 . 17488 } drop; }",
        false,
        &["denied"],
    ),
    kind(
        "a mask of ports",
        "chain in { HOOK accept; tcp dport & 0xff00 == 0x4400 drop; }",
        false,
        &["closed"],
    ),
    kind(
        "another protocol's ports, negated",
        "chain in { HOOK drop; udp dport != { 53, 123 } drop; }",
        true,
        &[],
    ),
    kind(
        "another family's source, negated",
        "chain in { HOOK drop; ip6 saddr != fd00::9 accept; }",
        true,
        &[],
    ),
    kind(
        "a return in front of a policy that drops",
        "chain in { HOOK drop; meta l4proto tcp return; udp dport 53 accept; }",
        true,
        &[],
    ),
    kind(
        "a device whose chain ends at a policy that drops",
        "chain wan { tcp dport 22 accept; } chain in { HOOK drop; iifname inside goto wan; }",
        false,
        &["closed"],
    ),
    kind(
        "any device but the loopback device",
        "chain rest { drop; } chain in { HOOK accept; iifname != lo jump rest; }",
        true,
        &[],
    ),
    kind(
        "a refusal of so many packets at the end",
        "chain in { HOOK drop; meta pkttype host limit rate 5/second counter reject; counter; }",
        true,
        &[],
    ),
    kind(
        "a limit on openings that somebody has set",
        "chain flood { limit rate 25/second burst 50 packets return; drop; } chain in { HOOK drop; tcp flags syn / fin,syn,rst,ack jump flood; }",
        true,
        &["denied"],
    ),
    kind(
        "an anonymous chain that denies the port",
        "chain in { HOOK accept; jump { tcp dport 17488 drop; }; }",
        false,
        &["closed"],
    ),
    kind(
        "an anonymous chain that drops the rest",
        "chain in { HOOK accept; jump { counter; drop; }; }",
        true,
        &[],
    ),
    kind(
        "new connections",
        "chain in { HOOK accept; ct state & (established | related) == 0 drop; }",
        true,
        &[],
    ),
    kind(
        "no state of a port that is not tracked",
        "chain raw { type filter hook prerouting priority raw; tcp dport 17488 notrack; } chain in { HOOK accept; ct state untracked drop; }",
        false,
        &["closed"],
    ),
    kind(
        "a quota that is used up",
        "chain in { HOOK accept; tcp dport 17488 quota over 1 bytes drop; }",
        false,
        &["unknown"],
    ),
    kind(
        "a time of day",
        "chain in { HOOK accept; meta hour \"00:00\"-\"23:59\" tcp dport 17488 drop; }",
        false,
        &["unknown"],
    ),
    kind(
        "a hardware address",
        "chain in { HOOK accept; ether saddr != 02:00:00:00:00:01 tcp dport 17488 drop; }",
        false,
        &["unknown"],
    ),
    kind(
        "answers that can't leave",
        "chain out { type filter hook output priority 0; policy drop; tcp sport 22 accept; }",
        false,
        &["closed"],
    ),
    kind(
        "a drop before it is routed",
        "chain pre { type filter hook prerouting priority 0; tcp dport 17488 drop; }",
        false,
        &["closed"],
    ),
    kind(
        "a redirection to another service",
        "chain pre { type nat hook prerouting priority dstnat; ct state new tcp dport 17488 redirect to :22; }",
        true,
        &["closed"],
    ),
    kind(
        "a chain that forwarded packets pass, too",
        "chain both { ip saddr 10.9.0.9 drop; drop; } chain in { HOOK accept; jump both; } chain through { type filter hook forward priority 0; jump both; }",
        true,
        &["denied"],
    ),
    kind(
        "a rule whose comment begins like ours",
        "chain in { HOOK drop; tcp dport 17488 counter accept comment \"zone-proxy: of olga\"; }",
        true,
        &[],
    ),
    kind("a table that is switched off", "flags dormant; chain in { HOOK drop; }", true, &[]),
];

/// A host, and one outside.
fn pair() -> Option<(Host, Host, Vec<TcpListener>)> {
    let inside = host("rules of others")?;
    let outside = host("rules of others")?;
    inside.with_outside(&outside);
    let listeners = ["0.0.0.0:17488", "0.0.0.0:22"].map(|address| inside.listen(address.parse().unwrap()));
    inside.configure("[control]\nopen = true\nlisten = [\"0.0.0.0\"]\n");
    Some((inside, outside, listeners.into()))
}

#[test]
fn behind_each_kind_of_rules_the_port_answers_or_verify_says_why_not() {
    let Some((inside, outside, _listeners)) = pair() else { return };
    let mut wrong = Vec::new();
    for kind in KINDS {
        let ruleset = kind.ruleset.replace("HOOK", HOOK);
        inside.sh("nft flush ruleset");
        inside.nft(&format!(
            "table inet others {{\n{} \n}}",
            ruleset.replace("; }", ";\n}\n").replace("} chain", "}\nchain")
        ));
        let before = inside.ruleset();
        inside.ok(&["apply"]);
        let answers = outside.reaches(PORT);
        let findings = inside.all_findings();
        let mut levels: Vec<_> = findings.iter().filter_map(|finding| finding["level"].as_str()).collect();
        levels.sort_unstable();
        levels.dedup();
        let mut is_right = (answers, &levels[..]) == (kind.answers, kind.levels);
        // What an admin has denied is no reason for another exit code, and nothing else is none.
        let code = inside.run(&["verify"]).code;
        is_right &= code == Some(i32::from(levels.iter().any(|level| *level != "denied")));
        is_right &= inside.ok(&["apply"]).starts_with("nothing to change");
        inside.ok(&["remove"]);
        is_right &= inside.ruleset() == before;
        if !is_right {
            wrong.push(format!(
                "{}: answers {answers}, {levels:?}, exit code {code:?}: {findings:#?}",
                kind.name
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What iptables asks of connections, with and without their being tracked: rules, whether the port answers, and the levels.
const STATES: [(&str, bool, &[&str]); 5] = [
    ("-A INPUT -m conntrack --ctstate INVALID,UNTRACKED -j DROP", true, &[]),
    ("-A INPUT -m conntrack --ctstate DNAT,SNAT -j DROP", true, &[]),
    ("-A INPUT -m conntrack ! --ctstate ESTABLISHED,UNTRACKED -j DROP", true, &[]),
    (
        "-t raw -A PREROUTING -p tcp --dport 17488 -j CT --notrack; iptables-nft -A INPUT -m conntrack --ctstate UNTRACKED -j DROP",
        false,
        &["closed"],
    ),
    (
        "-t raw -A PREROUTING -p tcp --dport 17488 -j CT --notrack; iptables-nft -A INPUT -m state --state UNTRACKED -j DROP",
        false,
        &["closed"],
    ),
];

#[test]
fn behind_what_iptables_asks_of_connections_the_port_answers_or_verify_says_why_not() {
    let Some((inside, outside, _listeners)) = pair() else { return };
    if !std::path::Path::new("/usr/sbin/iptables-nft").exists() {
        let why = "/usr/sbin/iptables-nft is missing: apt-get install iptables";
        return crate::host::missing("what iptables asks of connections", why);
    }
    for (rules, answers, levels) in STATES {
        inside.sh(&format!("nft flush ruleset; iptables-nft {rules}"));
        inside.ok(&["apply"]);
        let findings = inside.all_findings();
        let found: Vec<_> = findings.iter().filter_map(|finding| finding["level"].as_str()).collect();
        assert_eq!((outside.reaches(PORT), &found[..]), (answers, levels), "{rules}: {findings:#?}");
        inside.ok(&["remove"]);
    }
}
