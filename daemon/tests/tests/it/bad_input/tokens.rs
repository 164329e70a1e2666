//! Tokens that are mistyped, late, used, or somebody else's.

use zone_protocol::token::Token;
use zone_tests::control::Client;
use zone_tests::host::Host;
use zone_tests::process::{fail, run, succeed};
use zone_tests::until;
use zone_tests::zone::Zone;

use super::{Snapshot, document, json, offer, path};

#[test]
fn one_wrong_character_is_found_by_the_checksum_before_anything_is_sent() {
    let (host, zone) = (Host::start(""), Zone::init());
    let before = Snapshot::of(&host);
    let payload = host.payload();
    let at = payload.find("zp1-").expect("a token") + 40;
    let mut wrong = payload.clone();
    wrong.replace_range(at..=at, if payload.as_bytes()[at] == b'a' { "b" } else { "a" });
    let told = fail(&mut zone.provision_command(&host), wrong.as_bytes());
    assert!(told.contains("checksum"), "{told}");
    assert!(!told.contains(&wrong[at..at + 20]), "a token is never repeated: {told}");
    assert_eq!(Snapshot::of(&host), before);
    assert!(!host.control.said().contains("17488 failed"), "nothing was sent");

    let cut = fail(&mut zone.provision_command(&host), &payload.as_bytes()[..payload.len() / 2]);
    assert!(cut.contains("zone-proxy show payload"), "{cut}");
}

#[test]
fn an_expired_token_is_refused_by_the_proxy_with_what_to_do() {
    let host = Host::start("[timeouts]\ntoken = 1.0");
    let (zone, payload) = (Zone::init(), host.payload());
    until("the token expires", || !run(&mut host.cli(&["show", "payload"]), b"").status.success());
    let shown = fail(&mut host.cli(&["show", "payload"]), b"");
    assert!(shown.contains("expired") && shown.contains("zone-proxy token new"), "{shown}");

    let told = fail(&mut zone.provision_command(&host), payload.as_bytes());
    assert!(told.contains("The token has expired") && told.contains("zone-proxy token new"), "{told}");
    host.logs(&["step=\"proof\"", "the token has expired"]);
    assert_eq!(host.status()["state"], "unprovisioned");
    assert!(!host.answers(17486) && !host.answers(17487));
}

#[test]
fn a_token_that_was_replaced_and_one_of_another_proxy_are_told_apart_from_a_stranger() {
    let (host, other, zone) = (Host::start(""), Host::start(""), Zone::init());
    let before = Snapshot::of(&other);
    let own_address = other.address.to_string();
    let mut command = zone.provision_command(&other);
    let told = fail(command.args(["--address", &own_address]), host.token().reveal().as_bytes());
    assert!(told.contains("no longer holds the keys of this token"), "{told}");
    assert!(told.contains("zone-proxy show payload"), "{told}");
    assert_eq!(Snapshot::of(&other), before);

    let old = host.payload();
    succeed(&mut host.cli(&["token", "new"]), b"");
    let told = fail(&mut zone.provision_command(&host), old.as_bytes());
    assert!(told.contains("No valid proof of a token"), "{told}");
    assert!(told.contains("the one this proxy shows now"), "{told}");
    host.logs(&["step=\"proof\"", "the proof does not hold"]);
    zone.provision(&host);
}

#[test]
fn a_wrong_proof_costs_only_the_one_who_sent_it() {
    let host = Host::start("");
    let (zone, token, before) = (Zone::init(), host.token(), Snapshot::of(&host));
    let guess = Token::new(*token.pin(), [7; 20]);
    for _ in 0..50 {
        let mut client = Client::by_token(&host, &token).expect("TLS");
        client.token = Some(guess.clone());
        let answer = client.ask("POST", "/v1/provisioning", &[], br#"{"zone":"plant","module_server":"m"}"#);
        let problem = answer.problem(401, "proof-wrong");
        assert!(problem.help.is_some_and(|help| help.contains("token")), "{answer:?}");
        assert!(client.is_closed());
    }
    assert_eq!(Snapshot::of(&host), before);
    let told = zone.provision(&host);
    assert!(told.contains("provisioned as p1"), "nobody is locked out: {told}");
    let wrong = host.metric(&zone, "zone_proxy_wrong_proofs_total");
    assert_eq!(wrong, 50);
}

/// A proof is bound to its connection, its method, its path and its body.
#[test]
fn a_proof_that_was_overheard_is_good_for_nothing_else() {
    let host = Host::start("");
    let (zone, token, before) = (Zone::init(), host.token(), Snapshot::of(&host));
    let body = json(&serde_json::json!({"zone": "plant", "module_server": "module-1"}));
    let (method, target) = ("POST", "/v1/provisioning");
    let overheard = Client::by_token(&host, &token).expect("TLS").proof(&token, method, target, &body);
    let proofs: [&dyn Fn(&Client) -> String; 5] = [
        &|_| overheard.clone(),
        &|own| own.proof(&token, method, target, b"another body"),
        &|own| own.proof(&token, "PUT", target, &body),
        &|own| own.proof(&token, method, "/v1/provisioning/x", &body),
        &|_| "not base64".to_owned(),
    ];
    for proof in proofs {
        let mut client = Client::by_token(&host, &token).expect("TLS");
        let value = proof(&client);
        client.token = None;
        let answer = client.ask(method, target, &[("Zone-Proof", &value)], &body);
        answer.problem(401, "proof-wrong");
    }
    assert_eq!(Snapshot::of(&host), before);

    // An offer is one thing at a time: the newer one replaces the older.
    let mut client = Client::by_token(&host, &token).expect("TLS");
    let older = offer(&mut client, &zone);
    let newer = offer(&mut client, &zone);
    let late = json(&document(&zone, &older, &host));
    let problem = client.ask("PUT", &path(&older), &[], &late).problem(404, "offer-unknown");
    assert!(problem.to_string().contains("replaced by a newer one"), "{problem}");
    let done = client.ask("PUT", &path(&newer), &[], &json(&document(&zone, &newer, &host)));
    assert_eq!(done.status, 200, "{done:?}");
    assert!(done.head.to_lowercase().contains("zone-proof"), "the proxy proves its answer: {done:?}");
    assert!(client.is_closed(), "bootstrap connections end with the answer that provisions");
}
