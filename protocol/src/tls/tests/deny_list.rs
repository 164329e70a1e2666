//! Who is denied, and for how long.

use sha2::{Digest as _, Sha256};

use super::admission::shown;
use super::zone::{Authority, Draft, NOW, Zone, identity, leaf, moment};
use crate::identity::Role;
use crate::tls::certificate::{Leaf, hex};
use crate::tls::refusal::Refusal;
use crate::tls::verifier::DenyList;
use crate::trust::Denied;

const ENDPOINT: &str = "spiffe://plant-7/endpoint/host-7";

fn by_identity(uri: &str, not_before: i64) -> Denied {
    Denied::Identity { identity: identity(uri), not_before: moment(not_before) }
}

#[test]
fn an_identity_is_denied_with_certificates_from_before_a_time_and_not_with_later_ones() {
    let zone = Zone::new();
    let list = DenyList::new(&[by_identity(ENDPOINT, NOW)]);
    let denies = |uri, not_before| {
        let draft = Draft { not_before, ..Draft::of(uri) };
        list.denies(&leaf(&zone.endpoints.sign(&draft)))
    };
    assert!(denies(ENDPOINT, NOW - 1_000_000));
    assert!(denies(ENDPOINT, NOW - 1));
    assert!(!denies(ENDPOINT, NOW));
    assert!(!denies(ENDPOINT, NOW + 1));
    for other in [
        "spiffe://plant-7/endpoint/host-8",
        "spiffe://plant-7/module-server/host-7",
        "spiffe://plant-8/endpoint/host-7",
    ] {
        assert!(!denies(other, NOW - 1), "{other}");
    }
}

#[test]
fn of_two_entries_for_an_identity_the_later_time_counts_in_either_order() {
    let certificate =
        |not_before| leaf(&Zone::new().endpoints.sign(&Draft { not_before, ..Draft::of(ENDPOINT) }));
    for times in [[NOW, NOW + 100], [NOW + 100, NOW]] {
        let list = DenyList::new(&times.map(|time| by_identity(ENDPOINT, time)));
        assert!(list.denies(&certificate(NOW + 99)));
        assert!(!list.denies(&certificate(NOW + 100)));
    }
}

#[test]
fn a_certificate_is_denied_by_its_issuer_and_serial_number_together() {
    let zone = Zone::new();
    let sign = |serial: &[u8]| Draft { serial: serial.to_vec(), ..Draft::of(ENDPOINT) };
    for serial in [&[1][..], &[0x7f], &[0x80], &[0xff; 16], &[1, 0], &[0x80, 0, 0]] {
        let denied = zone.endpoints.sign(&sign(serial));
        let (issuer, text) = (hex(&leaf(&denied).issuer), hex(serial));
        for (issuer, text) in [(issuer.to_uppercase(), text.to_uppercase()), (issuer, text)] {
            let list = DenyList::new(&[Denied::Certificate { issuer, serial: text.clone(), until: None }]);
            assert!(list.denies(&leaf(&denied)), "{text}");
            assert!(!list.denies(&leaf(&zone.module_servers.sign(&sign(serial)))), "{text}");
            assert!(!list.denies(&leaf(&zone.endpoints.sign(&sign(&[0x55])))), "{text}");
        }
    }
}

#[test]
fn a_fraction_of_a_second_denies_the_certificate_of_that_second() {
    let certificate = leaf(&Zone::new().endpoints.sign(&Draft { not_before: NOW, ..Draft::of(ENDPOINT) }));
    for (nanoseconds, denied) in [(0, false), (1, true), (500_000_000, true)] {
        let not_before = moment(NOW) + time::Duration::nanoseconds(nanoseconds);
        let entry = Denied::Identity { identity: identity(ENDPOINT), not_before };
        assert_eq!(DenyList::new(&[entry]).denies(&certificate), denied, "{nanoseconds}");
    }
}

#[test]
fn a_serial_number_is_denied_however_it_is_spelled() {
    let certificate = leaf(&Zone::new().endpoints.sign(&Draft { serial: vec![0x0a], ..Draft::of(ENDPOINT) }));
    for serial in ["a", "0a", "00a", "0A", "000000000A"] {
        let entry =
            Denied::Certificate { issuer: hex(&certificate.issuer), serial: serial.into(), until: None };
        assert!(DenyList::new(&[entry]).denies(&certificate), "{serial}");
    }
    let entry = Denied::Certificate { issuer: hex(&certificate.issuer), serial: "a0".into(), until: None };
    assert!(!DenyList::new(&[entry]).denies(&certificate));
}

#[test]
fn the_issuer_of_an_entry_is_a_digest_over_the_name_in_the_authoritys_certificate() {
    let zone = Zone::new();
    let authority = zone.endpoints.der();
    let (_, parsed) = x509_parser::parse_x509_certificate(&authority).unwrap();
    let digest: [u8; 32] = Sha256::digest(parsed.subject().as_raw()).into();
    assert_eq!(leaf(&zone.endpoints.sign(&Draft::of(ENDPOINT))).issuer, digest);
}

#[test]
fn an_empty_list_denies_nobody() {
    let certificate = leaf(&Zone::new().endpoints.sign(&Draft::of(ENDPOINT)));
    assert!(!DenyList::new(&[]).denies(&certificate));
    assert!(!DenyList::default().denies(&certificate));
}

#[test]
fn a_denied_party_is_refused_in_the_handshake_and_after_it() {
    let zone = Zone::new();
    let certificate = zone.endpoints.sign(&Draft::of(ENDPOINT));
    let port = zone.port_denying(Role::Endpoint, vec![by_identity(ENDPOINT, NOW)]);
    let refusal = Refusal::Revoked(identity(ENDPOINT));
    assert_eq!(shown(&port, std::slice::from_ref(&certificate), NOW), Err(refusal.clone()));
    assert_eq!(port.authorise(std::slice::from_ref(&certificate), moment(NOW)), Err(refusal.clone()));
    assert_eq!(port.still_admits(&leaf(&certificate), moment(NOW)), Err(refusal));
}

/// At the first handshake, when a connection is resumed, and when the rules change while it is there.
#[test]
fn an_authority_that_is_denied_takes_with_it_whom_it_vouches_for() {
    let zone = Zone::new();
    let between = Authority::under(&zone.endpoints, "between");
    let chain = [between.sign(&Draft::of(ENDPOINT)), between.der()];
    let known = Leaf::read_chain(&chain[0], &chain[1..]).unwrap();
    let (issuer, serial) = (hex(&known.shown_with[0].issuer), hex(&known.shown_with[0].serial));
    let port = zone.port_denying(Role::Endpoint, vec![Denied::Certificate { issuer, serial, until: None }]);
    let refusal = Refusal::Revoked(identity(ENDPOINT));
    assert_eq!(shown(&zone.port(Role::Endpoint), &chain, NOW), Ok(()));
    assert_eq!(shown(&port, &chain, NOW), Err(refusal.clone()));
    assert_eq!(port.authorise(&chain, moment(NOW)), Err(refusal.clone()));
    assert_eq!(port.still_admits(&known, moment(NOW)), Err(refusal));
    let other = [zone.endpoints.sign(&Draft::of(ENDPOINT))];
    assert_eq!(shown(&port, &other, NOW), Ok(()), "whom the anchor itself vouches for stays");
}
