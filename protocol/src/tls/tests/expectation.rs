//! Whom a client believes: by role and name, or by a token's pin.

use rcgen::{ExtendedKeyUsagePurpose, KeyPair};
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName};

use super::zone::{Draft, NOW, Zone, identity, label, rsa_key, unix};
use crate::identity::Role;
use crate::tls::certificate::spki;
use crate::tls::policy::Versions;
use crate::tls::refusal::{Refusal, capture};
use crate::tls::verifier::{Expectation, Pinned};
use crate::token::pin;

const PROXY: &str = "spiffe://plant-7/zone-proxy/p1";

/// What a client says of a chain inside the handshake.
fn shown(
    verifier: &dyn ServerCertVerifier,
    chain: &[CertificateDer<'_>],
    now: i64,
) -> Result<(), Option<Refusal>> {
    let name = ServerName::try_from("anything.example").unwrap();
    let (verified, refusal) =
        capture(|| verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], unix(now)));
    verified.map(drop).map_err(|_| refusal)
}

fn said(zone: &Zone, name: Option<&str>, draft: &Draft, now: i64) -> Option<Refusal> {
    let anchors = [zone.proxies.pem()];
    let (expected, versions) = (name.map(label), Versions::Tls12);
    let verifier = Expectation::new(label("plant-7"), Role::ZoneProxy, expected, &anchors, versions).unwrap();
    let refused = shown(&*verifier, &[zone.proxies.sign(draft)], now).err();
    refused.map(|refusal| refusal.expect("the reason"))
}

#[test]
fn a_client_takes_whoever_has_the_role_or_only_the_one_it_called() {
    let zone = Zone::new();
    assert_eq!(said(&zone, None, &Draft::of(PROXY), NOW), None);
    assert_eq!(said(&zone, Some("p1"), &Draft::of(PROXY), NOW), None);
    let refusal = Refusal::WrongName { identity: identity(PROXY), wanted: label("p2") };
    assert_eq!(said(&zone, Some("p2"), &Draft::of(PROXY), NOW), Some(refusal));
}

#[test]
fn another_role_and_another_zone_are_refused_before_the_name_is_looked_at() {
    let zone = Zone::new();
    for name in [None, Some("p1"), Some("p2")] {
        let uri = "spiffe://plant-7/endpoint/p1";
        let refusal = Refusal::WrongRole { identity: identity(uri), wanted: Role::ZoneProxy };
        assert_eq!(said(&zone, name, &Draft::of(uri), NOW), Some(refusal));
        let uri = "spiffe://plant-8/zone-proxy/p1";
        let refusal = Refusal::WrongZone { identity: identity(uri), zone: label("plant-7") };
        assert_eq!(said(&zone, name, &Draft::of(uri), NOW), Some(refusal));
    }
}

/// 17488 with and without an identity of its own: the authority for proxies vouches for both, and the role tells them apart.
#[test]
fn a_client_takes_each_of_the_roles_it_names_and_may_insist_on_one_of_them() {
    let zone = Zone::new();
    let (control, relay) = (Role::ZoneControl, Role::ZoneProxy);
    let said = |roles: &[Role], shows: Role, name: &str| {
        let anchors = [zone.proxies.pem()];
        let expected = Some(label("p1"));
        let verifier =
            Expectation::one_of(label("plant-7"), roles, expected, &anchors, Versions::Tls12).unwrap();
        let certificate = zone.proxies.sign(&Draft::of(&format!("spiffe://plant-7/{shows}/{name}")));
        shown(&*verifier, &[certificate], NOW).map_err(|refusal| refusal.expect("the reason").label())
    };
    for (roles, shows, expected) in [
        (&[control, relay][..], control, Ok(())),
        (&[control, relay], relay, Ok(())),
        (&[control, relay], Role::Endpoint, Err("wrong_role")),
        (&[control], control, Ok(())),
        (&[control], relay, Err("wrong_role")),
        (&[relay], control, Err("wrong_role")),
    ] {
        assert_eq!(said(roles, shows, "p1"), expected, "{roles:?} shown {shows}");
        let other = if expected.is_ok() { Err("wrong_name") } else { expected };
        assert_eq!(said(roles, shows, "p2"), other, "{roles:?} shown {shows}");
    }
}

#[test]
fn a_server_certificate_is_good_from_its_first_second_to_its_last() {
    let zone = Zone::new();
    let draft = Draft { not_before: NOW, not_after: NOW + 100, ..Draft::of(PROXY) };
    for (now, good) in [(-1, false), (0, true), (100, true), (101, false)] {
        let label = said(&zone, None, &draft, NOW + now).map(|refusal| refusal.label());
        assert_eq!(label, (!good).then_some("not_now"), "{now}");
    }
}

#[test]
fn a_server_that_another_authority_vouches_for_is_refused() {
    let (zone, other) = (Zone::new(), Zone::new());
    let anchors = [zone.proxies.pem()];
    let verifier =
        Expectation::new(label("plant-7"), Role::ZoneProxy, None, &anchors, Versions::Tls12).unwrap();
    for signer in [&zone.endpoints, &zone.module_servers, &other.proxies] {
        let refusal = shown(&*verifier, &[signer.sign(&Draft::of(PROXY))], NOW).unwrap_err();
        assert_eq!(refusal, Some(Refusal::UnknownAuthority(identity(PROXY))));
    }
}

#[test]
fn a_server_without_one_readable_identity_is_refused() {
    let zone = Zone::new();
    for draft in [
        Draft::with_uris(&[]),
        Draft::with_uris(&[PROXY, "spiffe://plant-7/zone-proxy/p2"]),
        Draft { authority: true, ..Draft::of(PROXY) },
    ] {
        assert!(matches!(said(&zone, None, &draft, NOW), Some(Refusal::Unreadable(_))));
    }
}

#[test]
fn a_certificate_for_clients_only_is_not_good_for_a_server() {
    let zone = Zone::new();
    let purposes = |purpose| Draft { purposes: vec![purpose], ..Draft::of(PROXY) };
    assert_eq!(said(&zone, None, &purposes(ExtendedKeyUsagePurpose::ServerAuth), NOW), None);
    let refused = said(&zone, None, &purposes(ExtendedKeyUsagePurpose::ClientAuth), NOW);
    assert!(matches!(refused, Some(Refusal::Path { .. })), "{refused:?}");
}

#[test]
fn a_client_that_trusts_nobody_refuses_everybody() {
    let zone = Zone::new();
    let verifier = Expectation::new(label("plant-7"), Role::ZoneProxy, None, &[], Versions::Tls12).unwrap();
    let refusal = shown(&*verifier, &[zone.proxies.sign(&Draft::of(PROXY))], NOW).unwrap_err();
    assert_eq!(refusal, Some(Refusal::UnknownAuthority(identity(PROXY))));
}

#[test]
fn a_pin_holds_for_both_keys_in_either_order_whatever_the_certificates_say() {
    let zone = Zone::new();
    let draft = Draft { not_after: NOW - 1, ..Draft::with_uris(&[]) };
    let (rsa, ec, other) = (
        zone.proxies.sign_key(&draft, &rsa_key()),
        zone.proxies.sign_key(&draft, &KeyPair::generate().unwrap()),
        zone.proxies.sign_key(&draft, &KeyPair::generate().unwrap()),
    );
    let keys = [&rsa, &ec].map(|certificate| spki(certificate).unwrap());
    let verifier = Pinned::new(pin(&keys[0], &keys[1]));
    let good = |chain: &[&CertificateDer<'static>]| {
        let chain: Vec<_> = chain.iter().copied().cloned().collect();
        shown(&*verifier, &chain, NOW).is_ok()
    };
    assert!(good(&[&rsa, &ec]));
    assert!(good(&[&ec, &rsa]));
    assert!(good(&[&ec, &other, &rsa]), "certificates beside the two");
    for chain in [&[&rsa][..], &[&ec], &[&rsa, &rsa], &[&ec, &other], &[&other, &rsa, &ec]] {
        assert!(!good(chain));
    }
    let unreadable = CertificateDer::from(b"x".to_vec());
    assert!(!good(&[&unreadable, &rsa]));
    assert!(!good(&[&rsa, &unreadable, &ec]), "nothing unreadable is passed over");
}

#[test]
fn a_pin_has_the_rsa_key_first() {
    let zone = Zone::new();
    let (one, two) = (rsa_key(), KeyPair::generate().unwrap());
    let certificates = [one, two].map(|key| zone.proxies.sign_key(&Draft::of(PROXY), &key));
    let keys = certificates.each_ref().map(|certificate| spki(certificate).unwrap());
    assert_ne!(pin(&keys[0], &keys[1]), pin(&keys[1], &keys[0]));
}
