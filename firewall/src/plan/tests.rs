use nftables::schema::NfObject;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use zone_firewall_protocol::Purpose;

use super::*;
use crate::config::Config;

/// How many rulesets are made up.
const RULESETS: u64 = 300;

fn desired(networks: &[&str]) -> Desired {
    let config = Config::parse("[control]\nopen = true\nlisten = [\"0.0.0.0\", \"::\"]\n", "test").unwrap();
    let endpoint = PortRule {
        purpose: Purpose::Endpoint,
        port: 17486,
        listen: vec!["0.0.0.0".parse().unwrap(), "fd00::7".parse().unwrap()],
        networks: networks.iter().map(|network| network.parse().unwrap()).collect(),
        balancers: Vec::new(),
    };
    Desired::new(&config, &[endpoint])
}

/// What the kernel would do with the plan's transaction.
fn carried_out(plan: &Plan, desired: &Desired, live: &Ruleset) -> Ruleset {
    let mut live = live.clone();
    if plan.table != TableChange::Keep {
        live.tables.retain(|(_, name)| name != table::TABLE);
        live.chains.retain(|chain| chain.table != table::TABLE);
        live.others.retain(|other| other.table != table::TABLE);
    }
    if let TableChange::Put { .. } = plan.table {
        let objects: Vec<_> = table::objects(desired).into_iter().map(NfObject::ListObject).collect();
        let own = Ruleset::parse(&json!({ "nftables": objects }));
        live.tables.extend(own.tables);
        live.chains.extend(own.chains);
        live.others.extend(own.others);
    }
    let mut handle =
        live.chains.iter().flat_map(|chain| &chain.rules).map(|rule| rule.handle).max().unwrap_or(0);
    for chain in &mut live.chains {
        let here = |place: &[String; 3]| place.join(" ") == chain.path();
        let gone: Vec<_> =
            plan.delete.iter().filter(|rule| here(&rule.chain)).map(|rule| rule.handle).collect();
        let new: Vec<_> = plan.add.iter().filter(|rule| here(&rule.chain)).cloned().collect();
        chain.rules.retain(|rule| !gone.contains(&rule.handle));
        for add in new {
            handle += 1;
            let expr = serde_json::to_value(&add.expr).unwrap().as_array().unwrap().clone();
            let at = match add.before {
                Some(before) => {
                    chain.rules.iter().position(|rule| rule.handle == before).expect("it is there")
                }
                None => chain.rules.len(),
            };
            chain.rules.insert(at, Rule { handle, comment: Some(add.comment), expr });
        }
    }
    live
}

fn made_up(seed: u64) -> Ruleset {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let matches = [
        json!({"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "lo"}}),
        json!({"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "eth0"}}),
        json!({"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "tcp"}}),
        json!({"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}),
        json!({"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 17486}}),
        json!({"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}},
            "right": {"set": [22, {"range": [17000, 17487]}]}}}),
        json!({"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}},
            "right": {"prefix": {"addr": "10.0.0.0", "len": 8}}}}),
        json!({"limit": {"rate": 5}}),
        json!({"xt": {"type": "match", "name": "conntrack"}}),
        json!({"counter": {"packets": 1, "bytes": 2}}),
        json!({"something": "new"}),
    ];
    let verdicts = [
        json!({"accept": null}),
        json!({"drop": null}),
        json!({"reject": null}),
        json!({"return": null}),
        json!({"jump": {"target": "a"}}),
        json!({"jump": {"target": "b"}}),
        json!({"goto": {"target": "b"}}),
        json!({"xt": {"type": "target", "name": "REJECT"}}),
    ];
    let mut objects = Vec::new();
    let mut handle = 0;
    for family in ["ip", "ip6", "inet"] {
        objects.push(json!({"table": {"family": family, "name": "t"}}));
        for name in ["in", "a", "b"] {
            let mut chain = json!({"family": family, "table": "t", "name": name});
            if name == "in" {
                chain["type"] = json!("filter");
                chain["hook"] = json!("input");
                chain["prio"] = json!(0);
                chain["policy"] = json!(if random.random_bool(0.5) { "drop" } else { "accept" });
            }
            objects.push(json!({ "chain": chain }));
            for _ in 0..random.random_range(0..6) {
                handle += 1;
                let mut expr: Vec<_> = (0..random.random_range(0..3))
                    .map(|_| matches[random.random_range(0..matches.len())].clone())
                    .collect();
                if random.random_bool(0.9) {
                    expr.push(verdicts[random.random_range(0..verdicts.len())].clone());
                }
                objects.push(json!({"rule":
                    {"family": family, "table": "t", "chain": name, "handle": handle, "expr": expr}}));
            }
        }
    }
    Ruleset::parse(&json!({ "nftables": objects }))
}

#[test]
fn whatever_others_have_one_plan_is_enough_and_removal_brings_back_what_was() {
    for seed in 0..RULESETS {
        let before = made_up(seed);
        let desired = desired(if seed % 2 == 0 { &[] } else { &["10.1.0.0/16", "fd00::/8", "192.0.2.7/32"] });
        let plan = Plan::new(&desired, &before);
        let after = carried_out(&plan, &desired, &before);
        let again = Plan::new(&desired, &after);
        assert!(again.is_empty(), "seed {seed}: {plan}\nthen {again}");
        assert_eq!(again.blocked, plan.blocked, "seed {seed}");
        let removal = Plan::removal(&after);
        assert_eq!(carried_out(&removal, &desired, &after), before, "seed {seed}");
    }
}

#[test]
fn a_change_of_networks_changes_only_what_it_must() {
    let live = made_up_drop();
    let narrow = desired(&["10.0.0.0/8"]);
    let live = carried_out(&Plan::new(&narrow, &live), &narrow, &live);
    let wide = desired(&["10.0.0.0/8", "192.0.2.0/24"]);
    let plan = Plan::new(&wide, &live);
    assert_eq!((plan.add.len(), plan.delete.len()), (1, 0), "{plan}");
    assert!(plan.lines().last().unwrap().contains("ip saddr 192.0.2.0/24 tcp dport 17486 accept"), "{plan}");
}

#[test]
fn one_rule_serves_both_families_where_nothing_tells_them_apart() {
    let plan = Plan::new(&desired(&[]), &made_up_drop());
    let texts: Vec<_> = plan.add.iter().map(Add::text).collect();
    assert_eq!(
        texts,
        [
            "meta nfproto ipv4 tcp dport 17486 accept comment \"zone-proxy: endpoint\"",
            "ip6 daddr fd00::7 tcp dport 17486 accept comment \"zone-proxy: endpoint\"",
            "tcp dport 17488 accept comment \"zone-proxy: control\"",
        ]
    );
}

fn made_up_drop() -> Ruleset {
    Ruleset::parse(&json!({"nftables": [
        {"table": {"family": "inet", "name": "t"}},
        {"chain": {"family": "inet", "table": "t", "name": "in", "type": "filter", "hook": "input", "prio": 0,
            "policy": "drop"}},
    ]}))
}
