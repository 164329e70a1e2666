//! What each side of a refused handshake learns: the reason here, an alert there.

use rcgen::{ExtendedKeyUsagePurpose, KeyPair};
use rustls::AlertDescription as Alert;

use super::config::{leaves, proxy_expected};
use super::handshake::Handshake;
use super::zone::{Authority, Draft, NOW, Party, Zone, identity, label, moment};
use crate::identity::Role;
use crate::tls::config::{client, server};
use crate::tls::policy::Versions;
use crate::tls::refusal::{Refusal, capture, explain_alert};
use crate::tls::verifier::{Admission, Expectation};
use crate::trust::Denied;

const ENDPOINT: &str = "spiffe://plant-7/endpoint/host-7";
const REVOKED: &str = "spiffe://plant-7/endpoint/host-9";

/// A party that shows itself at the endpoint port of a zone that denies `host-9`.
fn dialed(zone: &Zone, party: &Party, versions: Versions) -> Handshake {
    let entry = Denied::Identity { identity: identity(REVOKED), not_before: moment(NOW) };
    let trust = zone.trust(vec![entry]);
    let admission = Admission::new(label("plant-7"), Role::Endpoint, &trust, true, versions).unwrap();
    let port = server(leaves(zone), Some(admission), None, versions).unwrap();
    let own = client(proxy_expected(zone, versions), Some(party.pems()), versions).unwrap();
    Handshake::of(&own, &port)
}

#[test]
fn the_port_learns_the_reason_and_the_other_side_what_an_alert_can_say() {
    let zone = Zone::new();
    let stranger = Authority::new("stranger");
    let always = |uri: &str| Draft { not_before: 0, not_after: 4_000_000_000, ..Draft::of(uri) };
    let ended = Draft { not_after: 1_000_000_000, ..always(ENDPOINT) };
    let servers_only = Draft { purposes: vec![ExtendedKeyUsagePurpose::ServerAuth], ..always(ENDPOINT) };
    let module_server = "spiffe://plant-7/module-server/inside";
    for (signer, draft, label, alert) in [
        (&zone.module_servers, always(module_server), "wrong_role", Alert::AccessDenied),
        (&zone.module_servers, always(ENDPOINT), "wrong_authority", Alert::AccessDenied),
        (&zone.endpoints, always("spiffe://plant-8/endpoint/a"), "wrong_zone", Alert::AccessDenied),
        (&zone.endpoints, always(REVOKED), "revoked", Alert::CertificateRevoked),
        (&zone.endpoints, ended, "not_now", Alert::CertificateExpired),
        (&stranger, always(ENDPOINT), "unknown_authority", Alert::UnknownCA),
        (&zone.endpoints, always("https://x/"), "unreadable", Alert::BadCertificate),
        (&zone.endpoints, servers_only, "path", Alert::BadCertificate),
    ] {
        let party = signer.party_of(&draft, &KeyPair::generate().unwrap());
        for versions in [Versions::Tls12, Versions::Tls12And13] {
            let handshake = dialed(&zone, &party, versions);
            assert!(handshake.server.error.is_some(), "{label}");
            assert_eq!(handshake.server.refusal.map(|refusal| refusal.label()), Some(label));
            assert_eq!(handshake.client.refusal, None, "{label}");
            assert_eq!(handshake.client.error, Some(rustls::Error::AlertReceived(alert)), "{label}");
        }
    }
}

#[test]
fn a_client_that_refuses_the_server_learns_why() {
    let zone = Zone::new();
    let port = server(leaves(&zone), None, None, Versions::Tls12).unwrap();
    let (name, anchors) = (Some(label("p2")), [zone.proxies.pem()]);
    let other = Expectation::new(label("plant-7"), Role::ZoneProxy, name, &anchors, Versions::Tls12);
    let handshake = Handshake::of(&client(other.unwrap(), None, Versions::Tls12).unwrap(), &port);
    let proxy = identity("spiffe://plant-7/zone-proxy/p1");
    let refusal = Refusal::WrongName { identity: proxy, wanted: label("p2") };
    assert_eq!(handshake.client.refusal, Some(refusal));
    assert_eq!(handshake.server.error, Some(rustls::Error::AlertReceived(Alert::AccessDenied)));
}

#[test]
fn a_refusal_is_said_in_words_that_name_the_party_and_what_is_wrong() {
    let (identity, zone) = (identity(ENDPOINT), label("plant-8"));
    let not_now = Refusal::NotNow {
        identity: identity.clone(),
        not_before: "2026-01-01T00:00:00Z".into(),
        not_after: "2026-02-01T00:00:00Z".into(),
        now: "2026-03-01T00:00:00Z".into(),
    };
    for (refusal, label, words) in [
        (
            Refusal::WrongRole { identity: identity.clone(), wanted: Role::ModuleServer },
            "wrong_role",
            "certificate of spiffe://plant-7/endpoint/host-7, but this port is for the role module-server",
        ),
        (
            Refusal::WrongAuthority { claimed: identity.clone(), vouched: Role::ModuleServer },
            "wrong_authority",
            "certificate names spiffe://plant-7/endpoint/host-7, but an authority for module-server signed \
             it: nobody may vouch for another role",
        ),
        (
            Refusal::WrongZone { identity: identity.clone(), zone },
            "wrong_zone",
            "certificate of spiffe://plant-7/endpoint/host-7, but this is zone plant-8",
        ),
        (
            Refusal::WrongName { identity: identity.clone(), wanted: label("host-8") },
            "wrong_name",
            "certificate of spiffe://plant-7/endpoint/host-7, but host-8 was expected",
        ),
        (
            Refusal::Revoked(identity.clone()),
            "revoked",
            "certificate of spiffe://plant-7/endpoint/host-7 is revoked",
        ),
        (
            not_now,
            "not_now",
            "certificate of spiffe://plant-7/endpoint/host-7 is valid from 2026-01-01T00:00:00Z to \
             2026-02-01T00:00:00Z, and now is 2026-03-01T00:00:00Z",
        ),
        (
            Refusal::UnknownAuthority(identity.clone()),
            "unknown_authority",
            "certificate of spiffe://plant-7/endpoint/host-7, signed by an authority that this zone does \
             not know",
        ),
        (Refusal::Bootstrap, "bootstrap", "certificate of a proxy that belongs to no zone"),
        (Refusal::Unreadable("no".into()), "unreadable", "no"),
        (
            Refusal::Path { identity, why: "no".into() },
            "path",
            "certificate of spiffe://plant-7/endpoint/host-7: no",
        ),
    ] {
        assert_eq!((refusal.label(), refusal.to_string().as_str()), (label, words));
    }
}

#[test]
fn a_refusal_is_collected_once_and_not_by_a_later_poll() {
    let refusal = Refusal::Revoked(identity(ENDPOINT));
    let ((), collected) = capture(|| drop(refusal.clone().into_rustls()));
    assert_eq!(collected, Some(refusal.clone()));
    assert_eq!(capture(|| ()).1, None);
    drop(refusal.into_rustls());
    assert_eq!(capture(|| ()).1, None, "one that nobody collected is not another handshake's");
}

#[test]
fn alerts_about_a_certificate_are_explained_and_other_errors_are_not() {
    let explained = |alert| explain_alert(&rustls::Error::AlertReceived(alert));
    for (alert, words) in [
        (Alert::CertificateExpired, "compare the clocks"),
        (Alert::CertificateRevoked, "revoked"),
        (Alert::UnknownCA, "does not know the authority"),
        (Alert::AccessDenied, "another role, zone or name"),
        (Alert::CertificateRequired, "we sent none"),
        (Alert::BadCertificate, "its log says why"),
        (Alert::ProtocolVersion, "no TLS version"),
        (Alert::HandshakeFailure, "no cipher suite in common"),
    ] {
        assert!(explained(alert).is_some_and(|said| said.contains(words)), "{alert:?}");
    }
    assert_eq!(explained(Alert::UserCanceled), None);
    assert_eq!(explain_alert(&rustls::Error::DecryptError), None);
}
