use ipnet::IpNet;
use serde_json::json;

use super::*;

fn packet() -> Packet {
    Packet { family: Family::V4, source: None, destination: None, port: 17486 }
}

fn chain(name: &str, policy: Option<&str>, rules: Vec<Value>) -> Vec<Value> {
    let mut body = json!({"family": "inet", "table": "t", "name": name});
    if let Some(policy) = policy {
        body["type"] = json!("filter");
        body["hook"] = json!("input");
        body["prio"] = json!(0);
        body["policy"] = json!(policy);
    }
    let rules = rules.into_iter().enumerate().map(|(index, expr)| {
        json!({"rule": {"family": "inet", "table": "t", "chain": name, "handle": index + 10, "expr": expr}})
    });
    [json!({ "chain": body })].into_iter().chain(rules).collect()
}

fn judged(chains: Vec<Vec<Value>>) -> Judgement {
    let objects: Vec<_> = chains.into_iter().flatten().collect();
    let live = Ruleset::parse(&json!({ "nftables": objects }));
    let base = base_chains(&live).next().expect("there is a base chain");
    judge(&live, base, &packet())
}

fn verdict(chains: Vec<Vec<Value>>) -> Verdict {
    judged(chains).verdict
}

fn is(left: &Value, right: &Value) -> Value {
    json!({"match": {"op": "==", "left": left, "right": right}})
}

fn dport(right: &Value) -> Value {
    is(&json!({"payload": {"protocol": "tcp", "field": "dport"}}), right)
}

fn interface(name: &str) -> Value {
    is(&json!({"meta": {"key": "iifname"}}), &json!(name))
}

fn drop_() -> Value {
    json!({"drop": null})
}

fn accept() -> Value {
    json!({"accept": null})
}

#[test]
fn an_empty_chain_does_as_its_policy_says() {
    assert_eq!(verdict(vec![chain("in", Some("accept"), vec![])]), Verdict::Passes);
    assert_eq!(verdict(vec![chain("in", Some("drop"), vec![])]), Verdict::Drops { before: 0 });
}

#[test]
fn a_rule_goes_in_front_of_the_first_that_drops_everything() {
    let rules = vec![
        json!([interface("lo"), accept()]),
        json!([dport(&json!(22)), accept()]),
        json!([{"counter": {"packets": 0, "bytes": 0}}, {"xt": {"type": "target", "name": "REJECT"}}]),
    ];
    assert_eq!(verdict(vec![chain("in", Some("accept"), rules)]), Verdict::Drops { before: 2 });
}

#[test]
fn catch_alls_by_protocol_count_as_dropping_everything() {
    let tcp =
        json!([is(&json!({"meta": {"key": "l4proto"}}), &json!("tcp")), {"reject": {"type": "tcp reset"}}]);
    let udp = json!([is(&json!({"meta": {"key": "l4proto"}}), &json!("udp")), {"reject": null}]);
    let new = json!([{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "new"}}, drop_()]);
    assert_eq!(
        verdict(vec![chain("in", Some("drop"), vec![udp.clone(), tcp])]),
        Verdict::Drops { before: 1 }
    );
    assert_eq!(verdict(vec![chain("in", Some("accept"), vec![udp, new])]), Verdict::Drops { before: 1 });
}

#[test]
fn an_admins_accept_of_the_port_is_enough() {
    for right in [json!(17486), json!({"set": [22, 17486]}), json!({"range": [17000, 18000]})] {
        let rules = vec![json!([dport(&right), accept()])];
        assert_eq!(verdict(vec![chain("in", Some("drop"), rules)]), Verdict::Passes);
    }
}

#[test]
fn an_accept_under_a_condition_is_not_enough() {
    let from = is(&json!({"payload": {"protocol": "ip", "field": "saddr"}}), &json!("192.0.2.1"));
    let rules = vec![json!([from, dport(&json!(17486)), accept()])];
    assert_eq!(verdict(vec![chain("in", Some("drop"), rules)]), Verdict::Drops { before: 1 });
}

#[test]
fn a_drop_of_the_port_by_number_is_the_admins_word() {
    let rules = vec![json!([dport(&json!({"range": [17000, 18000]})), drop_()]), json!([drop_()])];
    match verdict(vec![chain("in", Some("drop"), rules)]) {
        Verdict::Denied { rule } => assert!(rule.starts_with("inet t in: tcp dport"), "{rule}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn jumps_and_gotos_are_followed() {
    let jump = |name: &str| json!([{"jump": {"target": name}}]);
    let goto = |name: &str| json!([{"goto": {"target": name}}]);
    let base = |rule: Value| chain("in", Some("accept"), vec![rule]);
    let end = |rules| chain("end", None, rules);
    assert_eq!(verdict(vec![base(jump("end")), end(vec![json!([drop_()])])]), Verdict::Drops { before: 0 });
    assert_eq!(verdict(vec![base(goto("end")), end(vec![json!([drop_()])])]), Verdict::Drops { before: 0 });
    assert_eq!(verdict(vec![base(goto("end")), end(vec![])]), Verdict::Passes);
    assert_eq!(verdict(vec![base(jump("nowhere"))]), Verdict::Passes);
    let opened = vec![json!([dport(&json!(17486)), accept()]), json!([drop_()])];
    assert_eq!(verdict(vec![base(jump("end")), end(opened)]), Verdict::Passes);
    let returned = vec![json!([{"return": null}]), json!([drop_()])];
    assert_eq!(verdict(vec![base(jump("end")), end(returned)]), Verdict::Passes);
}

#[test]
fn chains_that_call_each_other_for_ever_come_to_an_end() {
    let rules = || vec![json!([{"jump": {"target": "a"}}]), json!([{"jump": {"target": "b"}}])];
    let verdict = verdict(vec![
        chain("in", Some("drop"), rules()),
        chain("a", None, rules()),
        chain("b", None, rules()),
    ]);
    assert_eq!(verdict, Verdict::Drops { before: 2 });
}

#[test]
fn an_interface_that_is_shut_is_reported() {
    let rules = vec![json!([interface("eth0"), {"jump": {"target": "outside"}}])];
    let found =
        judged(vec![chain("in", Some("accept"), rules), chain("outside", None, vec![json!([drop_()])])]);
    assert_eq!(found.verdict, Verdict::Passes);
    assert_eq!(found.on_interfaces.len(), 1);
}

#[test]
fn verdict_maps_are_read() {
    let state = json!([{"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [
        ["established", {"accept": null}], ["invalid", {"drop": null}]]}}}]);
    assert_eq!(verdict(vec![chain("in", Some("drop"), vec![state])]), Verdict::Drops { before: 1 });
    let ports = json!([{"vmap": {"key": {"payload": {"protocol": "tcp", "field": "dport"}}, "data": {"set": [
        [22, {"accept": null}], [17486, {"accept": null}]]}}}]);
    assert_eq!(verdict(vec![chain("in", Some("drop"), vec![ports])]), Verdict::Passes);
}

#[test]
fn what_is_not_understood_is_a_condition() {
    let unknown = json!([{"teleport": {"to": "mars"}}, drop_()]);
    assert_eq!(verdict(vec![chain("in", Some("accept"), vec![unknown])]), Verdict::Passes);
    let unknown = json!([{"match": {"op": "==", "left": {"osf": {}}, "right": "x"}}, accept()]);
    assert_eq!(verdict(vec![chain("in", Some("drop"), vec![unknown])]), Verdict::Drops { before: 1 });
}

#[test]
fn networks_are_compared() {
    let from = |network: &str| {
        let network: IpNet = network.parse().unwrap();
        let right = json!({"prefix": {"addr": network.network().to_string(), "len": network.prefix_len()}});
        is(&json!({"payload": {"protocol": "ip", "field": "saddr"}}), &right)
    };
    let objects: Vec<_> = chain(
        "in",
        Some("drop"),
        vec![json!([from("10.0.0.0/8"), accept()]), json!([from("192.168.0.0/16"), drop_()])],
    );
    let live = Ruleset::parse(&json!({ "nftables": objects }));
    let base = base_chains(&live).next().unwrap();
    let from = |source: &str| Packet { source: Some(source.parse().unwrap()), ..packet() };
    assert_eq!(judge(&live, base, &from("10.1.0.0/16")).verdict, Verdict::Passes);
    assert!(matches!(judge(&live, base, &from("192.168.7.0/24")).verdict, Verdict::Denied { .. }));
    assert_eq!(judge(&live, base, &from("172.16.0.0/12")).verdict, Verdict::Drops { before: 2 });
}

#[test]
fn a_called_chain_that_may_return_does_not_make_our_rule_go_in_front() {
    let to = |kind: &str| {
        let left = json!({"fib": {"result": "type", "flags": ["daddr"]}});
        json!([is(&left, &json!(kind)), {"return": null}])
    };
    let base = || chain("in", Some("drop"), vec![json!([{"jump": {"target": "not-local"}}])]);
    let called = |rule| chain("not-local", None, vec![rule, json!([drop_()])]);
    assert_eq!(verdict(vec![base(), called(to("local"))]), Verdict::Drops { before: 1 });
    assert_eq!(verdict(vec![base(), called(to("broadcast"))]), Verdict::Drops { before: 0 });
    let unknown = judged(vec![base(), called(json!([{"something": "new"}, {"return": null}]))]);
    assert_eq!(unknown.verdict, Verdict::Drops { before: 1 });
    assert_eq!(unknown.unsure.len(), 1);
}

#[test]
fn kinds_of_addresses_that_iptables_matches_are_told_apart() {
    let rule =
        |kind: &str| json!([{"xt": {"type": "match", "name": "addrtype", "dst-type": kind}}, accept()]);
    assert_eq!(verdict(vec![chain("in", Some("drop"), vec![rule("LOCAL")])]), Verdict::Passes);
    assert_eq!(
        verdict(vec![chain("in", Some("drop"), vec![rule("BROADCAST")])]),
        Verdict::Drops { before: 1 }
    );
}
