//! Who may connect to which port, by the certificate alone.

use rcgen::string::Ia5String;
use rcgen::{ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};
use rustls::pki_types::CertificateDer;
use rustls::server::danger::ClientCertVerifier as _;

use super::zone::{Authority, Draft, NOW, Zone, admission, identity, label, leaf, moment, unix};
use crate::identity::Role;
use crate::tls::TlsError;
use crate::tls::certificate::{MAX_CHAIN_BYTES, MAX_INTERMEDIATES};
use crate::tls::refusal::{Refusal, capture};
use crate::tls::verifier::Admission;
use crate::trust::{Anchors, Trust};

const ENDPOINT: &str = "spiffe://plant-7/endpoint/host-7";
const PORTS: [Role; 2] = [Role::Endpoint, Role::ModuleServer];

/// What the port says of a chain inside the handshake.
pub(super) fn shown(port: &Admission, chain: &[CertificateDer<'_>], now: i64) -> Result<(), Refusal> {
    let (verified, refusal) = capture(|| port.verify_client_cert(&chain[0], &chain[1..], unix(now)));
    match (verified, refusal) {
        (Ok(_), None) => Ok(()),
        (Err(_), Some(refusal)) => Err(refusal),
        (verified, refusal) => panic!("{verified:?} goes with {refusal:?}"),
    }
}

fn words(result: Result<(), Refusal>) -> String {
    result.map_or_else(|refusal| refusal.label().to_owned(), |()| "admitted".to_owned())
}

#[test]
fn each_port_admits_the_role_it_is_for_and_names_every_other_it_knows() {
    let zone = Zone::new();
    for port in PORTS {
        for role in Role::FIRST_VERSION {
            let uri = format!("spiffe://plant-7/{role}/a");
            let certificate = zone.authority(role).sign(&Draft::of(&uri));
            let expected = match role {
                _ if role == port => Ok(()),
                // No client port trusts the proxies' authority.
                Role::ZoneProxy => Err(Refusal::UnknownAuthority(identity(&uri))),
                _ => Err(Refusal::WrongRole { identity: identity(&uri), wanted: port }),
            };
            assert_eq!(shown(&zone.port(port), &[certificate], NOW), expected, "{uri} on {port}");
        }
    }
}

#[test]
fn an_authority_that_vouches_for_another_role_is_not_believed() {
    let zone = Zone::new();
    for (claimed, signer) in [(Role::Endpoint, Role::ModuleServer), (Role::ModuleServer, Role::Endpoint)] {
        let uri = format!("spiffe://plant-7/{claimed}/a");
        let certificate = [zone.authority(signer).sign(&Draft::of(&uri))];
        let wrong_authority = Refusal::WrongAuthority { claimed: identity(&uri), vouched: signer };
        assert_eq!(shown(&zone.port(claimed), &certificate, NOW), Err(wrong_authority));
        let wrong_role = Refusal::WrongRole { identity: identity(&uri), wanted: signer };
        assert_eq!(shown(&zone.port(signer), &certificate, NOW), Err(wrong_role));
    }
}

#[test]
fn authorities_that_bear_the_same_name_are_told_apart_by_their_keys() {
    let same = || Authority::new("authority");
    let zone = Zone { endpoints: same(), module_servers: same(), proxies: same() };
    let port = zone.port(Role::Endpoint);
    let say = |signer: &Authority, uri| words(shown(&port, &[signer.sign(&Draft::of(uri))], NOW));
    assert_eq!(say(&zone.endpoints, ENDPOINT), "admitted");
    assert_eq!(say(&zone.module_servers, "spiffe://plant-7/module-server/a"), "wrong_role");
    assert_eq!(say(&zone.module_servers, ENDPOINT), "wrong_authority");
    assert_eq!(say(&zone.proxies, ENDPOINT), "unknown_authority");
}

#[test]
fn a_certificate_of_another_zone_is_refused_whoever_signed_it() {
    let zone = Zone::new();
    let uri = "spiffe://plant-8/endpoint/host-7";
    let certificate = zone.endpoints.sign(&Draft::of(uri));
    let refusal = Refusal::WrongZone { identity: identity(uri), zone: label("plant-7") };
    assert_eq!(shown(&zone.port(Role::Endpoint), &[certificate], NOW), Err(refusal));
    let stranger = Zone::new().endpoints.sign(&Draft::of(uri));
    let refusal = Refusal::UnknownAuthority(identity(uri));
    assert_eq!(shown(&zone.port(Role::Endpoint), &[stranger], NOW), Err(refusal));
}

#[test]
fn a_certificate_holds_exactly_one_uri_and_that_is_a_spiffe_identity() {
    let zone = Zone::new();
    let port = zone.port(Role::Endpoint);
    let say = |uris: &[&str]| words(shown(&port, &[zone.endpoints.sign(&Draft::with_uris(uris))], NOW));
    assert_eq!(say(&[ENDPOINT]), "admitted");
    for wrong in [
        &[][..],
        &[ENDPOINT, "spiffe://plant-7/endpoint/host-8"],
        &[ENDPOINT, "https://plant-7/"],
        &["https://plant-7/endpoint/host-7"],
        &["spiffe://plant-7/endpoint"],
        &["spiffe://plant-7/endpoint/host-7/"],
        &["spiffe://plant-7/Endpoint/host-7"],
        &["SPIFFE://plant-7/endpoint/host-7"],
    ] {
        assert_eq!(say(wrong), "unreadable", "{wrong:?}");
    }
}

#[test]
fn names_beside_the_uri_do_not_matter() {
    let zone = Zone::new();
    let mut draft = Draft::of(ENDPOINT);
    draft.names.insert(0, SanType::DnsName(Ia5String::try_from("host-8").unwrap()));
    draft.names.push(SanType::IpAddress([192, 0, 2, 1].into()));
    assert_eq!(shown(&zone.port(Role::Endpoint), &[zone.endpoints.sign(&draft)], NOW), Ok(()));
}

#[test]
fn a_certificate_is_good_from_its_first_second_to_its_last() {
    let zone = Zone::new();
    let port = zone.port(Role::Endpoint);
    let draft = Draft { not_before: NOW, not_after: NOW + 100, ..Draft::of(ENDPOINT) };
    let certificate = [zone.endpoints.sign(&draft)];
    for (now, good) in [(-1, false), (0, true), (1, true), (99, true), (100, true), (101, false)] {
        let now = NOW + now;
        let expected = if good { "admitted" } else { "not_now" };
        assert_eq!(words(shown(&port, &certificate, now)), expected, "in the handshake, at {now}");
        let again = port.authorise(&certificate, moment(now)).map(drop);
        assert_eq!(words(again), expected, "after the handshake, at {now}");
    }
    let refusal = shown(&port, &certificate, NOW + 101).unwrap_err();
    let words = "certificate of spiffe://plant-7/endpoint/host-7 is valid from 2026-09-21T14:13:20Z to \
        2026-09-21T14:15:00Z, and now is 2026-09-21T14:15:01Z";
    assert_eq!(refusal.to_string(), words);
}

#[test]
fn a_wrong_time_is_told_before_a_wrong_authority() {
    let zone = Zone::new();
    let ended = Draft { not_after: NOW - 1, ..Draft::of(ENDPOINT) };
    let certificate = Zone::new().endpoints.sign(&ended);
    assert_eq!(words(shown(&zone.port(Role::Endpoint), &[certificate], NOW)), "not_now");
}

#[test]
fn what_is_no_certificate_of_a_party_is_unreadable() {
    let zone = Zone::new();
    let port = zone.port(Role::Endpoint);
    let whole = zone.endpoints.sign(&Draft::of(ENDPOINT));
    let authority = zone.endpoints.sign(&Draft { authority: true, ..Draft::of(ENDPOINT) });
    let longer = CertificateDer::from([whole.as_ref(), b"x"].concat());
    let shorter = CertificateDer::from(whole[..whole.len() - 1].to_vec());
    let empty = CertificateDer::from(Vec::new());
    for wrong in [authority, longer, shorter, empty] {
        assert!(matches!(
            port.authorise(std::slice::from_ref(&wrong), moment(NOW)),
            Err(Refusal::Unreadable(_))
        ));
        assert_eq!(words(shown(&port, &[wrong], NOW)), "unreadable");
    }
}

#[test]
fn a_certificate_for_servers_only_is_not_good_for_a_client() {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let zone = Zone::new();
    let port = zone.port(Role::Endpoint);
    let say = |purposes: &[ExtendedKeyUsagePurpose]| {
        let draft = Draft { purposes: purposes.to_vec(), ..Draft::of(ENDPOINT) };
        words(shown(&port, &[zone.endpoints.sign(&draft)], NOW))
    };
    assert_eq!(say(&[ClientAuth]), "admitted");
    assert_eq!(say(&[ServerAuth, ClientAuth]), "admitted");
    assert_eq!(say(&[ServerAuth]), "path");
}

#[test]
fn a_chain_of_up_to_four_authorities_below_the_anchor_is_followed() {
    let zone = Zone::new();
    let port = zone.port(Role::Endpoint);
    let mut below = vec![Authority::under(&zone.endpoints, "level 1")];
    for level in 2..=8 {
        below.push(Authority::under(below.last().unwrap(), &format!("level {level}")));
    }
    for depth in 1..=below.len() {
        let mut chain = vec![below[depth - 1].sign(&Draft::of(ENDPOINT))];
        chain.extend(below[..depth].iter().rev().map(Authority::der));
        let expected = if depth <= 4 { "admitted" } else { "unreadable" };
        assert_eq!(words(shown(&port, &chain, NOW)), expected, "{depth} authorities");
    }
}

/// Before any way up the chain is tried: that is what a stranger could make long.
#[test]
fn a_chain_that_is_too_long_is_refused_by_its_size_whoever_signed_it() {
    let zone = Zone::new();
    let port = zone.port(Role::Endpoint);
    let leaf = zone.endpoints.sign(&Draft::of(ENDPOINT));
    let chain = |count: usize| [vec![leaf.clone()], vec![zone.proxies.der(); count]].concat();
    assert_eq!(shown(&port, &chain(MAX_INTERMEDIATES), NOW), Ok(()));
    let refusal = shown(&port, &chain(MAX_INTERMEDIATES + 1), NOW).unwrap_err();
    assert_eq!(refusal.to_string(), "certificate chain: 5 certificates behind the leaf; 4 are the most");

    let mut large = Draft::of(ENDPOINT);
    let name = |n: usize| SanType::DnsName(format!("{n:05}.{}", "x".repeat(50)).try_into().unwrap());
    large.names.extend((0..MAX_CHAIN_BYTES / 58).map(name));
    let refusal = shown(&port, &[zone.endpoints.sign(&large)], NOW).unwrap_err().to_string();
    assert!(refusal.ends_with("bytes; 16384 are the most"), "{refusal}");
}

#[test]
fn an_authority_that_may_not_sign_certificates_vouches_for_nobody() {
    let zone = Zone::new();
    let port = zone.port(Role::Endpoint);
    let usages = [KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
    let below = Authority::under_for(&zone.endpoints, "below", &usages);
    let chain = [below.sign(&Draft::of(ENDPOINT)), below.der()];
    let refusal = shown(&port, &chain, NOW).unwrap_err().to_string();
    assert!(refusal.contains("may not sign certificates (keyCertSign)"), "{refusal}");
}

#[test]
fn a_chain_may_be_out_of_order_and_hold_more_than_is_needed_but_not_less() {
    let zone = Zone::new();
    let port = zone.port(Role::Endpoint);
    let upper = Authority::under(&zone.endpoints, "upper");
    let lower = Authority::under(&upper, "lower");
    let leaf = lower.sign(&Draft::of(ENDPOINT));
    let more = [leaf.clone(), zone.proxies.der(), upper.der(), zone.endpoints.der(), lower.der()];
    assert_eq!(words(shown(&port, &more, NOW)), "admitted");
    assert_eq!(words(shown(&port, &[leaf.clone(), lower.der()], NOW)), "unknown_authority");
    assert_eq!(words(shown(&port, &[leaf], NOW)), "unknown_authority");
}

#[test]
fn keys_of_p256_p384_and_rsa_2048_are_taken() {
    let zone = Zone::new();
    let port = zone.port(Role::Endpoint);
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    for key in [KeyPair::generate().unwrap(), p384, super::zone::rsa_key()] {
        let certificate = zone.endpoints.sign_key(&Draft::of(ENDPOINT), &key);
        assert_eq!(shown(&port, &[certificate], NOW), Ok(()), "{key:?}");
    }
}

#[test]
fn keys_of_other_kinds_are_refused_by_their_kind() {
    let zone = Zone::new();
    let port = zone.port(Role::Endpoint);
    for algorithm in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P521_SHA512] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = zone.endpoints.sign_key(&Draft::of(ENDPOINT), &key);
        let refusal = shown(&port, &[certificate], NOW).unwrap_err().to_string();
        assert!(refusal.contains("neither ECDSA on P-256 or P-384 nor RSA"), "{refusal}");
    }
}

#[test]
fn a_port_needs_an_anchor_for_its_own_role_and_does_without_one_for_the_other() {
    let zone = Zone::new();
    let trust = |endpoint: Vec<String>, module_server: Vec<String>| {
        let anchors = Anchors { endpoint, module_server };
        Trust::of(1, anchors, Vec::new())
    };
    let one_sided = trust(vec![zone.endpoints.pem()], Vec::new());
    let port = admission(Role::Endpoint, &one_sided).unwrap();
    assert_eq!(words(shown(&port, &[zone.endpoints.sign(&Draft::of(ENDPOINT))], NOW)), "admitted");
    let module_server = zone.module_servers.sign(&Draft::of("spiffe://plant-7/module-server/a"));
    assert_eq!(words(shown(&port, &[module_server], NOW)), "unknown_authority");
    let error = admission(Role::ModuleServer, &one_sided).unwrap_err();
    assert_eq!(error.to_string(), "trust anchors for module-server: at least one is needed");
}

#[test]
fn every_anchor_of_a_role_vouches_for_it() {
    let (zone, newer) = (Zone::new(), Authority::new("newer"));
    for pems in [vec![zone.endpoints.pem(), newer.pem()], vec![zone.endpoints.pem() + &newer.pem()]] {
        let anchors = Anchors { endpoint: pems, module_server: Vec::new() };
        let trust = Trust::of(1, anchors, Vec::new());
        let port = admission(Role::Endpoint, &trust).unwrap();
        for signer in [&zone.endpoints, &newer] {
            assert_eq!(shown(&port, &[signer.sign(&Draft::of(ENDPOINT))], NOW), Ok(()));
        }
    }
}

#[test]
fn an_anchor_that_is_no_authority_or_no_certificate_is_refused_by_name() {
    let zone = Zone::new();
    let party = zone.endpoints.party(ENDPOINT, &KeyPair::generate().unwrap());
    let refused = |pem: String| {
        let anchors = Anchors { endpoint: vec![zone.endpoints.pem(), pem], module_server: Vec::new() };
        admission(Role::Endpoint, &Trust::of(1, anchors, Vec::new())).unwrap_err()
    };
    let words = "trust anchors for endpoint: a trust anchor must be an \
        authority's certificate (CA:TRUE)";
    assert_eq!(refused(party.chain).to_string(), words);
    for pem in [String::new(), "nothing".into(), party.key] {
        assert_eq!(refused(pem).to_string(), "trust anchors for endpoint: no certificate in it");
    }
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(refused(broken.into()), TlsError::Certificate { .. }));
    assert!(matches!(refused(broken.replace("AAAA", "*")), TlsError::Pem { .. }));
}

#[test]
fn a_leaf_that_was_read_before_is_judged_by_the_rules_and_the_time_of_now() {
    let zone = Zone::new();
    let admitted = leaf(&zone.endpoints.sign(&Draft::of(ENDPOINT)));
    assert_eq!(zone.port(Role::Endpoint).still_admits(&admitted, moment(NOW)), Ok(()));
    let other = zone.port(Role::ModuleServer).still_admits(&admitted, moment(NOW));
    assert_eq!(words(other), "wrong_role");
    let late = zone.port(Role::Endpoint).still_admits(&admitted, moment(NOW + 1_000_000));
    assert_eq!(words(late), "not_now");
}

#[test]
fn strangers_are_not_told_whose_port_it_is_and_a_certificate_is_asked_for_as_configured() {
    let zone = Zone::new();
    for mandatory in [true, false] {
        let trust = zone.trust(Vec::new());
        let versions = crate::tls::policy::Versions::Tls12;
        let port = Admission::new(label("plant-7"), Role::Endpoint, &trust, mandatory, versions).unwrap();
        assert!(port.offer_client_auth() && port.root_hint_subjects().is_empty());
        assert_eq!(port.client_auth_mandatory(), mandatory);
    }
}
