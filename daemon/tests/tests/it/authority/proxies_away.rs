//! Proxies that are away while an authority is replaced, keys that are lost, and copies of the zone directory that know
//! nothing of it.

use zone_protocol::trust::Trust;
use zone_tests::control::Client;
use zone_tests::host::Host;
use zone_tests::process::{fail, run, succeed};
use zone_tests::session::Session;
use zone_tests::target::echo;
use zone_tests::zone::{Service, Zone};

use super::busy::copy;
use super::orderly::{copy_zone, in_directory};

#[test]
fn a_proxy_that_is_down_is_named_and_converges_and_the_new_authority_does_not_sign_before() {
    let (first, mut second) = (Host::start(""), Host::start(""));
    let zone = two(&first, &second);
    let signs = || zone.directory().anchor("endpoint".parse().expect("a role")).expect("an authority");
    let before = signs();
    second.control.kill();
    let told = fail(&mut zone.cli(&["authority", "renew", "endpoint"]), b"");
    assert!(told.contains("p1: has trust version 2") && told.contains("p2: NOT YET: "), "{told}");
    assert!(told.contains("run 'zone-module authority renew endpoint' again"), "{told}");
    assert_eq!(signs(), before, "the old one signs until every proxy knows the new one");
    let told = succeed(&mut zone.cli(&["authority", "status"]), b"");
    assert!(told.contains("does not sign yet") && told.contains("p2: has trust version 1"), "{told}");
    let told = fail(&mut zone.cli(&["authority", "retire", "endpoint"]), b"");
    assert!(told.contains("run 'zone-module authority renew endpoint' first"), "{told}");
    second.restart();
    let told = succeed(&mut zone.cli(&["authority", "renew", "endpoint"]), b"");
    assert!(told.contains("p2: has trust version 2"), "{told}");
    assert_ne!(signs(), before);

    second.control.kill();
    let told = fail(&mut zone.cli(&["authority", "retire", "endpoint"]), b"");
    assert!(told.contains("p1: has trust version 3") && told.contains("p2: NOT YET: "), "{told}");
    second.restart();
    assert_eq!(anchors(&second, &zone), 2);
    // Any contact will do.
    succeed(&mut zone.cli(&["status"]), b"");
    assert_eq!((anchors(&first, &zone), anchors(&second, &zone)), (1, 1));
    let told = succeed(&mut zone.cli(&["authority", "retire", "endpoint"]), b"");
    assert!(told.contains("p2: has trust version 3"), "{told}");
}

#[test]
fn a_proxy_that_is_down_keeps_the_old_authority_for_proxies_until_it_has_new_certificates() {
    let (first, mut second) = (Host::start(""), Host::start(""));
    let zone = two(&first, &second);
    succeed(&mut zone.cli(&["authority", "renew", "zone-proxy"]), b"");
    second.control.kill();
    let told = fail(&mut zone.cli(&["authority", "retire", "zone-proxy"]), b"");
    assert!(told.contains("p1: shows certificates of the new authority"), "{told}");
    assert!(told.contains("p2: NOT YET: ") && !told.contains("retired"), "{told}");
    second.restart();
    // It is trusted as before.
    succeed(&mut zone.cli(&["status", "p2"]), b"");
    let told = succeed(&mut zone.cli(&["authority", "retire", "zone-proxy"]), b"");
    assert!(told.contains("p2: shows certificates of the new authority"), "{told}");
    assert!(told.contains("retired: zone-proxy authority 20"), "{told}");
    succeed(&mut zone.cli(&["status"]), b"");
}

#[test]
fn a_stale_copy_of_the_zone_directory_brings_no_old_authority_back() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let (never, between) = (zone.beside("never"), zone.beside("between"));
    copy_zone(&zone, &never);
    succeed(&mut zone.cli(&["authority", "renew", "endpoint"]), b"");
    copy_zone(&zone, &between);
    succeed(&mut zone.cli(&["authority", "retire", "endpoint"]), b"");
    let new = zone.directory().trust().expect("trust").anchors.endpoint;
    for copy in [&never, &between] {
        for words in [&["trust", "push"][..], &["status"], &["revoke", "endpoint", "nobody"]] {
            run(&mut in_directory(&zone, copy, words), b"");
            let trust: Trust = Client::member(&host, &zone).ask("GET", "/v1/trust", &[], b"").document();
            assert_eq!(trust.anchors.endpoint, new, "{words:?}");
        }
    }
    succeed(&mut zone.cli(&["trust", "push"]), b"");
    assert_eq!(zone.directory().trust().expect("trust").anchors.endpoint, new);
    let told = succeed(&mut zone.cli(&["authority", "status"]), b"");
    assert!(!told.contains("is being replaced"), "{told}");
}

#[test]
fn an_authority_is_not_retired_while_a_party_has_no_certificate_of_the_new_one() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    for id in ["a", "b", "gone"] {
        zone.issue_endpoint(id, &[]);
    }
    succeed(&mut zone.cli(&["revoke", "endpoint", "gone"]), b"");
    let told = fail(&mut zone.cli(&["authority", "retire", "endpoint"]), b"");
    assert!(told.contains("is not being replaced"), "{told}");
    succeed(&mut zone.cli(&["authority", "renew", "endpoint"]), b"");
    let told = fail(&mut zone.cli(&["authority", "retire", "endpoint"]), b"");
    assert!(told.contains("would be shut out: a, b;"), "{told}");
    let out = zone.beside("a-again");
    succeed(&mut zone.cli(&["issue", "endpoint", "a", "--out", &out.to_string_lossy()]), b"");
    let told = fail(&mut zone.cli(&["authority", "retire", "endpoint"]), b"");
    assert!(told.contains("would be shut out: b;"), "{told}");
    succeed(&mut zone.cli(&["authority", "retire", "endpoint", "--anyway"]), b"");
}

/// As after a disk that was restored without them, or a safe that nobody can open.
#[test]
fn authorities_whose_keys_are_lost_are_replaced_and_nobody_visits_a_proxy() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let service = Service { name: "sealed", port: 8, target: echo().to_string(), end_to_end: true };
    let _endpoint = zone.endpoint(&host, "e0", &[service]);
    for role in ["endpoint", "module-server", "zone-proxy"] {
        std::fs::remove_file(zone.path().join(format!("ca/{role}.key"))).expect("a key");
    }
    fail(&mut zone.cli(&["rotate", "p1"]), b"");
    for role in ["endpoint", "module-server", "zone-proxy"] {
        let out = zone.beside(role);
        succeed(&mut zone.cli(&["authority", "renew", role, "--out", &out.to_string_lossy()]), b"");
        copy(&out.join("endpoint/e0"), &zone.beside("e0"));
        succeed(&mut zone.cli(&["authority", "retire", role]), b"");
    }
    succeed(&mut zone.cli(&["rotate", "p1"]), b"");
    let mut session = Session::connect(&zone, "e0:sealed");
    session.exchanges(b"by three new authorities");
}

#[test]
fn two_that_renew_at_once_make_one_authority() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let mut command = zone.cli(&["authority", "renew", "endpoint"]);
            scope.spawn(move || succeed(&mut command, b""));
        }
    });
    assert_eq!(anchors(&host, &zone), 2);
    succeed(&mut zone.cli(&["authority", "retire", "endpoint"]), b"");
    assert_eq!(anchors(&host, &zone), 1);
}

fn two(first: &Host, second: &Host) -> Zone {
    let zone = Zone::with(first);
    let address = second.address.to_string();
    let mut provision = zone.cli(&["provision", "--name", "p2", "--listen", &address]);
    succeed(&mut provision, second.payload().as_bytes());
    zone
}

/// How many authorities vouch for endpoints at a host.
fn anchors(host: &Host, zone: &Zone) -> usize {
    let trust: Trust = Client::member(host, zone).ask("GET", "/v1/trust", &[], b"").document();
    trust.anchors.endpoint.len()
}
