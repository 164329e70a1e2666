//! What a member of the zone, or somebody who pretends to be one, sends to 17488 after provisioning.

use std::fs;

use zone_module::zone::{Validity, Zone as Directory};
use zone_protocol::identity::Role;
use zone_protocol::provisioning::{NewIdentity, Offer, Status};
use zone_protocol::trust::{Denied, Trust};
use zone_tests::control::Client;
use zone_tests::host::Host;
use zone_tests::process::{fail, succeed};
use zone_tests::zone::Zone;

use super::{Snapshot, json, label};

const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);

/// A certificate is good for one role, and an authority for one role's certificates.
#[test]
fn a_certificate_of_another_role_authority_zone_or_time_is_refused_by_name() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let before = Snapshot::of(&host);
    let directory = zone.directory();
    let issue = |of: &Directory, role, name: &str| of.issue(role, &label(name), None).expect("a certificate");

    let endpoint = issue(&directory, Role::Endpoint, "e1");
    let usurped = issue(&usurper(&zone), Role::ModuleServer, "module-1");
    let other = Zone::init();
    let foreign = issue(&other.directory(), Role::ModuleServer, "module-1");
    let now = Validity::at(clock(&host, &zone));
    let at = |from, to| {
        let validity = Validity { not_before: from, not_after: to };
        directory.issue(Role::ModuleServer, &label("module-1"), Some(validity)).expect("a certificate")
    };
    let old = at(now.not_before - DAY * 9, now.not_before - DAY);
    let early = at(now.not_before + DAY, now.not_after);
    let cases = [
        (
            endpoint,
            "certificate of spiffe://plant/endpoint/e1, but this port is for the role module-server",
            "wrong_role",
        ),
        (usurped, "an authority for endpoint signed it", "wrong_authority"),
        (foreign, "signed by an authority that this zone does not know", "unknown_authority"),
        (old, "is valid from", "not_now"),
        (early, "is valid from", "not_now"),
    ];
    for (issued, words, reason) in cases {
        let metric = format!("zone_proxy_control_handshake_failures_total{{reason=\"{reason}\"}}");
        let counted = host.metric(&zone, &metric);
        let logged = host.control.said().matches(words).count();
        let refused = Client::by_certificate(&host, &zone, Some((&issued.certificate, &issued.key)));
        let error = refused.expect_err(words).to_string();
        assert!(error.contains("received fatal alert"), "{words}: {error}");
        zone_tests::until(words, || host.control.said().matches(words).count() == logged + 1);
        assert_eq!(host.metric(&zone, &metric), counted + 1, "{metric}");
    }
    let nobody = Client::by_certificate(&host, &zone, None).expect_err("a certificate is wanted");
    assert!(nobody.to_string().contains("received fatal alert"), "{nobody}");
    assert_eq!(Snapshot::of(&host), before);
}

/// One line at the Module Server whose own certificate the proxy does not let in.
#[test]
fn zone_module_says_what_the_proxy_has_against_its_certificate() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let stolen = zone.issue_endpoint("e1", &[]);
    for (ours, theirs) in [("own.crt", "endpoint.crt"), ("own.key", "endpoint.key")] {
        fs::copy(stolen.join(theirs), zone.path().join(ours)).expect("copied");
    }
    let told = fail(&mut zone.cli(&["status", "p1"]), b"");
    assert!(told.contains("it is for another role, zone or name than this port is for"), "{told}");
    let told = fail(&mut zone.cli(&["endpoints"]), b"");
    assert!(told.contains("it is for another role, zone or name than this port is for"), "{told}");
}

#[test]
fn a_trust_document_that_goes_back_locks_out_or_comes_uncalled_is_refused() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    succeed(&mut zone.cli(&["revoke", "endpoint", "e9"]), b"");
    let before = Snapshot::of(&host);
    let directory = zone.directory();
    let trust = directory.trust().expect("the trust document");
    let put = |fields: &[(&str, &str)], trust: &Trust| {
        Client::member(&host, &zone).ask("PUT", "/v1/trust", fields, &json(trust))
    };
    let next = |change: fn(&mut Trust)| {
        let mut next = Trust { version: trust.version + 1, ..trust.clone() };
        change(&mut next);
        next
    };
    let current: &[_] = &[("If-Match", "\"2\"")];

    put(&[], &next(|_| ())).problem(428, "precondition-required");
    let problem = put(&[("If-Match", "\"1\"")], &next(|_| ())).problem(412, "precondition-failed");
    assert!(problem.to_string().contains("names version 1, and version 2 is in force"), "{problem}");
    put(&[("If-Match", "two")], &next(|_| ())).problem(400, "malformed");
    for version in [1, 2] {
        let problem = put(current, &Trust { version, ..trust.clone() }).problem(422, "validation-failed");
        assert!(problem.to_string().contains("must be above 2"), "{problem}");
    }
    let own = directory.identity(Role::ModuleServer, directory.module_server());
    let mut revoked = next(|_| ());
    revoked.deny.push(Denied::Identity { identity: own, not_before: clock(&host, &zone) });
    let problem = put(current, &revoked).problem(409, "lock-out");
    assert!(problem.to_string().contains("module-1 is revoked"), "{problem}");
    let mut strange = next(|_| ());
    strange.anchors.module_server =
        vec![Zone::init().directory().anchor(Role::ModuleServer).expect("an anchor")];
    put(current, &strange).problem(409, "lock-out");
    let problem =
        put(current, &next(|trust| trust.anchors.endpoint.clear())).problem(422, "validation-failed");
    assert!(problem.to_string().contains("trust anchor for endpoint"), "{problem}");
    let mut garbage = next(|_| ());
    garbage.anchors.endpoint = vec!["-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into()];
    put(current, &garbage).problem(422, "validation-failed");

    assert_eq!(Snapshot::of(&host), before);
    host.logs(&["audit", "change=\"trust\"", "step=\"request\"", "names version 1"]);
    assert!(host.metric(&zone, "zone_proxy_changes_total{kind=\"trust\",result=\"validate\"}") >= 4);
    assert_eq!(put(current, &next(|_| ())).status, 200);
}

#[test]
fn a_provisioning_with_an_older_trust_document_is_refused() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let old = zone.directory().trust().expect("the trust document");
    succeed(&mut zone.cli(&["revoke", "endpoint", "e9"]), b"");
    let before = Snapshot::of(&host);
    let mut client = Client::member(&host, &zone);
    let offer = super::offer(&mut client, &zone);
    let mut document = super::document(&zone, &offer, &host);
    document.trust = old;
    let problem =
        client.ask("PUT", &super::path(&offer), &[], &json(&document)).problem(422, "validation-failed");
    assert!(problem.to_string().contains("trust.version 1 is below 2"), "{problem}");
    assert_eq!(Snapshot::of(&host), before);
}

#[test]
fn new_certificates_that_do_not_fit_their_offer_change_nothing() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let before = Snapshot::of(&host);
    let mut client = Client::member(&host, &zone);
    let answer = client.ask("POST", "/v1/identity", &[], b"");
    assert_eq!(answer.status, 201, "{answer:?}");
    let older: Offer = answer.document();
    let newer: Offer = client.ask("POST", "/v1/identity", &[], b"").document();
    let mut put = |offer: &str, of: &Offer| {
        let certificates = super::certificates(&zone, "p1", of);
        let identity = NewIdentity { offer: offer.to_owned(), certificates, control_certificates: None };
        client.ask("PUT", "/v1/identity", &[], &json(&identity))
    };
    put(&older.id, &older).problem(404, "offer-unknown");
    put("nonsense", &newer).problem(404, "offer-unknown");
    let problem = put(&newer.id, &older).problem(422, "validation-failed");
    assert!(problem.to_string().contains("not for the key of this offer"), "{problem}");
    assert_eq!(Snapshot::of(&host), before);
    assert_eq!(put(&newer.id, &newer).status, 200);
}

/// The zone as somebody would have it who holds the endpoints' authority and uses it for Module Servers.
fn usurper(zone: &Zone) -> Directory {
    let copy = zone.beside("usurper");
    let copied = std::process::Command::new("cp").arg("-r").arg(zone.path()).arg(&copy).status();
    assert!(copied.expect("cp runs").success());
    for kind in ["crt", "key"] {
        let file = |role: &str| copy.join(format!("ca/{role}.{kind}"));
        fs::copy(file("endpoint"), file("module-server")).expect("copied");
    }
    Directory::open(&copy).expect("a zone")
}

/// What the proxy's clock says.
fn clock(host: &Host, zone: &Zone) -> time::OffsetDateTime {
    let status: Status = Client::member(host, zone).ask("GET", "/v1/status", &[], b"").document();
    status.clock
}
