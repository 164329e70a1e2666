//! `explain`: the verdict, the rule that decides, and what would decide where nothing does.

use serde_json::{Value, json};

use crate::host::{ADMIN, CONTROL, Host, RELAY, STRANGER, host};

/// A host with the addresses 10.9.0.1 and fd09::1 on device `inside`, and one outside.
fn linked(test: &str) -> Option<(Host, Host)> {
    let (inside, outside) = (host(test)?, host(test)?);
    inside.with_outside(&outside);
    Some((inside, outside))
}

fn explained(host: &Host, arguments: &[&str]) -> (Option<i32>, String) {
    let said = host.run(&[&["explain"], arguments].concat());
    (said.code, said.out + &said.err)
}

#[test]
fn the_verdict_is_what_a_connection_finds_and_the_rule_is_named() {
    let Some((host, outside)) = linked("explain a verdict") else { return };
    host.nft(
        "table inet filter {
            set shut { type ipv4_addr; flags interval; elements = { 10.9.0.64-10.9.0.79 }
            }
            chain services { ip saddr @shut counter drop
                tcp dport 4001 accept
                tcp dport 4002 reject with tcp reset
            }
            chain in { type filter hook input priority 0; policy drop;
                ct state established,related accept
                jump services
            }
        }",
    );
    let from = "10.9.0.2";
    let _listeners = [4001, 4002, 4003].map(|port| host.listen(([10, 9, 0, 1], port).into()));
    for (port, code, verdict, rule) in [
        ("4001", 0, "accepted", "decided by inet filter services handle 5: tcp dport 4001 accept"),
        (
            "4002",
            1,
            "rejected",
            "decided by inet filter services handle 6: tcp dport 4002 reject with tcp reset",
        ),
        ("4003", 1, "dropped", "decided by inet filter in: policy drop"),
    ] {
        let (ended, said) = explained(&host, &["--port", port, "--from", from, "--to", "10.9.0.1"]);
        assert_eq!(ended, Some(code), "{said}");
        assert!(said.starts_with(&format!("{verdict}: from 10.9.0.2 to 10.9.0.1 by inside\n")), "{said}");
        assert!(said.contains(rule), "{said}");
        assert_eq!(outside.reaches(&format!("10.9.0.1:{port}")), code == 0, "{port}: {said}");
    }
    let (_, said) = explained(&host, &["--port", "4001", "--from", "10.9.0.66"]);
    assert!(said.contains("handle 4: ip saddr @shut counter drop"), "{said}");
    assert!(said.contains("    inet filter in handle 8: jump services"), "{said}");
}

#[test]
fn where_it_depends_each_case_is_told_and_what_would_decide_it() {
    let Some((host, _outside)) = linked("explain what depends") else { return };
    host.nft(
        "table inet filter {
            chain in { type filter hook input priority 0; policy drop;
                ether saddr 02:00:00:00:00:07 tcp dport 4001 accept
                ip saddr 10.9.0.64/28 tcp dport 4002 drop
                tcp dport 4002 accept
                tcp dport 4003 limit rate 5/second accept
            }
        }",
    );
    let (ended, said) = explained(&host, &["--port", "4001", "--to", "10.9.0.1"]);
    assert_eq!(ended, Some(3), "{said}");
    assert!(said.starts_with("depends: 2 cases\n") && said.contains("what would decide it: --mac"), "{said}");
    let from_it = ["--port", "4001", "--to", "10.9.0.1", "--mac", "02:00:00:00:00:07"];
    assert_eq!(explained(&host, &from_it).0, Some(0));
    assert_eq!(
        explained(&host, &["--port", "4001", "--to", "10.9.0.1", "--mac", "02:00:00:00:00:08"]).0,
        Some(1)
    );

    let (ended, said) = explained(&host, &["--port", "4002", "--to", "10.9.0.1", "--json"]);
    assert_eq!(ended, Some(3), "{said}");
    let told: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(told["reachability"], "unknown");
    let shut = told["cases"].as_array().unwrap().iter().find(|case| case["verdict"] == "dropped").unwrap();
    assert_eq!(shut["sources"], json!(["10.9.0.64/28"]));
    assert_eq!(shut["decided_by"]["text"], "ip saddr 10.9.0.64/28 tcp dport 4002 drop");

    let (ended, said) = explained(&host, &["--port", "4003", "--to", "10.9.0.1"]);
    assert_eq!(ended, Some(0), "a rate counts as kept: {said}");
    assert!(said.contains("only while more comes than a rate lets through:\n  dropped: "), "{said}");
}

#[test]
fn what_iptables_and_a_redirect_do_is_told_in_words() {
    let Some((host, _outside)) = linked("explain iptables") else { return };
    host.sh(
        "iptables -N SVC; iptables -A SVC -m conntrack --ctstate NEW -p tcp -m multiport --dports 4001,4002 -j DROP; \
         iptables -A INPUT -j SVC",
    );
    host.nft(
        "table ip steal { chain pre { type nat hook prerouting priority -100;
            tcp dport 4003 redirect to :22; }
        }",
    );
    let (ended, said) = explained(&host, &["--port", "4002", "--to", "10.9.0.1"]);
    assert_eq!(ended, Some(1), "{said}");
    assert!(said.contains("ct state new tcp dport { 4001, 4002 } counter drop"), "{said}");
    let (ended, said) = explained(&host, &["--port", "4003", "--to", "10.9.0.1"]);
    assert_eq!(ended, Some(1), "{said}");
    assert!(said.starts_with("redirected to 10.9.0.1:22: "), "{said}");
}

#[test]
fn the_rules_of_a_file_are_asked_and_this_hosts_stay_as_they_are() {
    let Some((host, _outside)) = linked("explain a file") else { return };
    host.nft("table inet mine { chain in { type filter hook input priority 0; policy accept; } }");
    let before = host.numbered();
    let file = host.path("candidate.nft");
    let rules = "flush ruleset\ntable inet f {\n chain in {\n type filter hook input priority 0; policy accept;\n\
         iif \"inside\" tcp dport 4001 drop\n }\n}\n";
    std::fs::write(&file, rules).unwrap();
    let file = file.to_str().unwrap();
    let (ended, said) = explained(&host, &["--port", "4001", "--to", "10.9.0.1", "--ruleset", file]);
    assert_eq!(ended, Some(1), "{said}");
    assert!(said.contains("iif \"inside\" tcp dport 4001 drop"), "{said}");
    assert_eq!(explained(&host, &["--port", "4001", "--to", "10.9.0.1"]).0, Some(0));
    assert_eq!(host.numbered(), before);

    std::fs::write(host.path("candidate.nft"), "table inet f {").unwrap();
    let (ended, said) = explained(&host, &["--port", "4001", "--ruleset", file]);
    assert_eq!(ended, Some(2), "{said}");
    assert!(said.contains("the rules can't be loaded"), "{said}");
}

#[test]
fn nfts_own_line_is_added_on_demand() {
    let Some((host, _outside)) = linked("explain with nft's line") else { return };
    host.nft(
        "table ip f { chain in { type filter hook input priority 0; policy accept;
        tcp flags syn / fin,syn,rst,ack tcp dport 4001 drop; }
        }",
    );
    let (_, said) = explained(&host, &["--port", "4001", "--to", "10.9.0.1", "--nft"]);
    assert!(said.contains(": tcp flags & (fin | syn | rst | ack) == syn tcp dport 4001 drop\n"), "{said}");
    assert!(said.contains("    nft prints: tcp flags "), "{said}");
}

#[test]
fn a_question_that_can_not_be_answered_ends_with_2_and_one_line() {
    let Some((host, _outside)) = linked("explain nonsense") else { return };
    for (arguments, why) in [
        (&["--port", "1", "--iif", "eth9"][..], "this host has no device 'eth9'"),
        (&["--port", "1", "--from", "10.0.0.1", "--to", "fd09::1"], "not of the same family"),
        (&["--port", "1", "--ruleset", "/no/such/file"], "/no/such/file: No such file"),
    ] {
        let (ended, said) = explained(&host, arguments);
        assert_eq!((ended, said.lines().count()), (Some(2), 1), "{said}");
        assert!(said.contains(why), "{said}");
    }
    for arguments in
        [&["--port", "0"][..], &["--port", "1", "--from", "somewhere"], &["--port", "1", "--mac", "x"]]
    {
        assert_eq!(explained(&host, arguments).0, Some(2), "{arguments:?}");
    }
}

#[test]
fn the_broker_explains_to_those_who_may_look() {
    let Some((mut host, _outside)) = linked("explain by the broker") else { return };
    host.nft(
        "table ip f { chain in { type filter hook input priority 0; policy accept;
        tcp dport 4001 drop; }
        }",
    );
    host.broker();
    let question = json!({"explain": {"port": 4001, "to": "10.9.0.1"}}).to_string() + "\n";
    for uid in [ADMIN, CONTROL, 0] {
        let answer = host.send_as(uid, question.as_bytes());
        assert_eq!(answer["explained"]["reachability"], "shut", "{answer}");
        assert_eq!(answer["explained"]["cases"][0]["decided_by"]["text"], "tcp dport 4001 drop", "{answer}");
    }
    for uid in [RELAY, STRANGER] {
        let answer = host.send_as(uid, question.as_bytes());
        assert!(
            answer["refused"]["why"].as_str().unwrap().contains("may not look at the firewall"),
            "{answer}"
        );
    }
    let unknown = json!({"explain": {"port": 4001, "interface": "eth9"}}).to_string() + "\n";
    let answer = host.send_as(ADMIN, unknown.as_bytes());
    assert!(answer["refused"]["why"].as_str().unwrap().contains("no device 'eth9'"), "{answer}");
    assert!(host.broker_log().contains("verb=\"explain\""), "{}", host.broker_log());
}
