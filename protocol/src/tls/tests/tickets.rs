//! What a ticket brings, and what it does not.

use std::sync::Arc;

use rcgen::KeyPair;
use rustls::server::ProducesTickets;
use rustls::{ClientConfig, HandshakeKind, ServerConfig};

use super::config::{leaves, proxy_expected};
use super::handshake::Handshake;
use super::zone::{Zone, identity, moment};
use crate::identity::Role;
use crate::tls::config::{Leaves, client, server};
use crate::tls::policy::Versions;
use crate::tls::refusal::Refusal;
use crate::tls::tickets::{LIFETIME_SECONDS, PortTickets, TicketKeys};
use crate::trust::Denied;

const ENDPOINT: &str = "spiffe://plant-7/endpoint/host-7";

fn tickets(port: &'static str, keys: &TicketKeys) -> Arc<dyn ProducesTickets> {
    Arc::new(PortTickets::new(port, keys).unwrap())
}

fn kind(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> HandshakeKind {
    let handshake = Handshake::of(client, server);
    assert!(handshake.succeeded(), "{:?}", handshake.server.error);
    handshake.server.connection.handshake_kind().unwrap()
}

fn dialer(zone: &Zone, versions: Versions) -> Arc<ClientConfig> {
    let own = zone.endpoints.party(ENDPOINT, &KeyPair::generate().unwrap());
    client(proxy_expected(zone, versions), Some(own.pems()), versions).unwrap()
}

fn port(
    zone: &Zone,
    leaves: &Leaves,
    tickets: Option<Arc<dyn ProducesTickets>>,
    versions: Versions,
) -> Arc<ServerConfig> {
    server(leaves.clone(), Some(zone.port(Role::Endpoint)), tickets, versions).unwrap()
}

#[test]
fn a_client_comes_back_with_its_ticket_to_the_same_port_of_the_next_generation() {
    let (zone, keys) = (Zone::new(), TicketKeys::generate().unwrap());
    let leaves = leaves(&zone);
    for versions in [Versions::Tls12, Versions::Tls12And13] {
        let dialer = dialer(&zone, versions);
        let first = port(&zone, &leaves, Some(tickets("endpoint", &keys)), versions);
        assert_eq!(kind(&dialer, &first), HandshakeKind::Full);
        assert_eq!(kind(&dialer, &first), HandshakeKind::Resumed);
        let next = port(&zone, &leaves, Some(tickets("endpoint", &keys)), versions);
        assert_eq!(kind(&dialer, &next), HandshakeKind::Resumed);
        let rotated = port(&zone, &leaves, Some(tickets("endpoint", &keys.rotated().unwrap())), versions);
        assert_eq!(kind(&dialer, &rotated), HandshakeKind::Resumed);
    }
}

#[test]
fn a_ticket_of_another_port_or_of_keys_from_before_two_rotations_brings_a_full_handshake() {
    let (zone, keys) = (Zone::new(), TicketKeys::generate().unwrap());
    let leaves = leaves(&zone);
    let twice = keys.rotated().unwrap().rotated().unwrap();
    for versions in [Versions::Tls12, Versions::Tls12And13] {
        for other in [
            Some(tickets("module-server", &keys)),
            Some(tickets("endpoint", &twice)),
            Some(tickets("endpoint", &TicketKeys::generate().unwrap())),
            None,
        ] {
            let dialer = dialer(&zone, versions);
            let first = port(&zone, &leaves, Some(tickets("endpoint", &keys)), versions);
            assert_eq!(kind(&dialer, &first), HandshakeKind::Full);
            let other = port(&zone, &leaves, other, versions);
            assert_eq!(kind(&dialer, &other), HandshakeKind::Full);
        }
    }
}

#[test]
fn without_tickets_nothing_is_resumed() {
    let zone = Zone::new();
    let leaves = leaves(&zone);
    for versions in [Versions::Tls12, Versions::Tls12And13] {
        let (dialer, port) = (dialer(&zone, versions), port(&zone, &leaves, None, versions));
        for _ in 0..3 {
            assert_eq!(kind(&dialer, &port), HandshakeKind::Full);
        }
    }
}

#[test]
fn a_resumed_handshake_shows_the_certificate_that_has_to_be_judged_again() {
    let (zone, keys) = (Zone::new(), TicketKeys::generate().unwrap());
    let leaves = leaves(&zone);
    let dialer = dialer(&zone, Versions::Tls12);
    let before = port(&zone, &leaves, Some(tickets("endpoint", &keys)), Versions::Tls12);
    assert_eq!(kind(&dialer, &before), HandshakeKind::Full);
    let now = moment(super::zone::NOW);
    let entry = Denied::Identity { identity: identity(ENDPOINT), not_before: now };
    let admission = zone.port_denying(Role::Endpoint, vec![entry]);
    let after =
        server(leaves, Some(Arc::clone(&admission)), Some(tickets("endpoint", &keys)), Versions::Tls12)
            .unwrap();
    let handshake = Handshake::of(&dialer, &after);
    assert!(handshake.succeeded(), "the verifier does not run");
    assert_eq!(handshake.server.connection.handshake_kind(), Some(HandshakeKind::Resumed));
    let chain = handshake.server.connection.peer_certificates().unwrap();
    assert_eq!(admission.authorise(chain, now), Err(Refusal::Revoked(identity(ENDPOINT))));
}

#[test]
fn keys_survive_their_way_through_a_document_and_never_show_in_a_debug_print() {
    let keys = TicketKeys::generate().unwrap().rotated().unwrap();
    let text = serde_json::to_string(&keys).unwrap();
    assert!(serde_json::from_str::<TicketKeys>(&text).unwrap() == keys);
    assert_eq!(format!("{keys:?}"), "TicketKeys(..)");
    let ticket = PortTickets::new("p", &keys).unwrap().encrypt(b"x").unwrap();
    let read = serde_json::from_str(&text).unwrap();
    assert_eq!(PortTickets::new("p", &read).unwrap().decrypt(&ticket).unwrap(), b"x");
}

#[test]
fn malformed_keys_make_no_tickets() {
    let good = data_encoding::BASE64.encode(&[7; 48]);
    let makes = |current: &str, previous: Option<&str>| {
        let document = serde_json::json!({ "current": current, "previous": previous });
        let keys: TicketKeys = serde_json::from_value(document).unwrap();
        PortTickets::new("p", &keys).is_some()
    };
    assert!(makes(&good, None));
    assert!(makes(&good, Some(&good)));
    let sizes = [0, 15, 16, 32, 47, 49, 64].map(|size| data_encoding::BASE64.encode(&vec![7; size]));
    let wrong = sizes.iter().map(String::as_str).chain(["*", good.trim_end_matches('='), &good[1..]]);
    for text in wrong.filter(|text| *text != good) {
        assert!(!makes(text, None), "'{text}'");
        assert!(!makes(&good, Some(text)), "'{text}' before");
    }
}

#[test]
fn one_changed_bit_anywhere_makes_a_ticket_worthless() {
    let tickets = PortTickets::new("p", &TicketKeys::generate().unwrap()).unwrap();
    let ticket = tickets.encrypt(b"who I am").unwrap();
    for bit in 0..ticket.len() * 8 {
        let mut changed = ticket.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(tickets.decrypt(&changed), None, "bit {bit}");
    }
    let longer = [&ticket[..], b"x"].concat();
    assert_eq!(tickets.decrypt(&longer), None);
}

#[test]
fn two_tickets_for_the_same_session_differ_and_are_good_for_a_day() {
    let tickets = PortTickets::new("p", &TicketKeys::generate().unwrap()).unwrap();
    assert_ne!(tickets.encrypt(b"x"), tickets.encrypt(b"x"));
    assert!(tickets.enabled());
    assert_eq!((tickets.lifetime(), LIFETIME_SECONDS), (86_400, 86_400));
}
