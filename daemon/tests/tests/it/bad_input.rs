//! What goes wrong, and what strangers send: a clear error at the one who caused it, one line in the log, a
//! count, and nothing changed.
//!
//! The relay's ports by themselves are tested in `daemon/relay`; here is 17488, the durable state, the clock and
//! the configuration, and one look at each peer.

mod broken_off;
mod clock;
mod config;
mod disk;
mod documents;
mod members;
mod peers;
mod strangers;
mod tokens;

use serde_json::Value;
use zone_protocol::identity::Label;
use zone_protocol::provisioning::{Certificates, Offer, OfferRequest, PerPort, Provisioning};
use zone_tests::control::Client;
use zone_tests::host::Host;
use zone_tests::process::run;
use zone_tests::zone::Zone;

/// What a refusal must leave as it was: the state, what listens, and the token.
#[derive(Debug, PartialEq)]
struct Snapshot {
    status: Value,
    payload: Option<Value>,
    listening: Vec<u16>,
}

impl Snapshot {
    fn of(host: &Host) -> Self {
        let shown = run(&mut host.cli(&["show", "payload"]), b"");
        let payload =
            serde_json::from_slice::<Value>(&shown.stdout).ok().map(|payload| payload["token"].clone());
        let ports = [17486, 17487, 17488, 20486, 20487];
        let listening = ports.into_iter().filter(|port| host.answers(*port)).collect();
        Self { status: host.settled_status(), payload, listening }
    }
}

fn label(text: &str) -> Label {
    text.parse().expect("a label")
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("JSON")
}

/// Opens an offer for this zone.
fn offer(client: &mut Client, zone: &Zone) -> Offer {
    let directory = zone.directory();
    let request =
        OfferRequest { zone: directory.name().clone(), module_server: directory.module_server().clone() };
    let answer = client.ask("POST", "/v1/provisioning", &[], &json(&request));
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.document()
}

/// The certificates that the zone's Module Server would sign for an offer.
fn certificates(zone: &Zone, name: &str, offer: &Offer) -> Certificates {
    let validity = zone_module::zone::Validity::at(offer.clock);
    zone.directory().sign_proxy(&label(name), &offer.signing_requests, &[], validity).expect("certificates")
}

/// A document that would complete the offer.
fn document(zone: &Zone, offer: &Offer, host: &Host) -> Provisioning {
    let directory = zone.directory();
    let listen = vec![host.address.into()];
    Provisioning {
        zone: directory.name().clone(),
        name: label("p1"),
        certificates: Some(certificates(zone, "p1", offer)),
        control_certificates: None,
        trust: directory.trust().expect("the trust document"),
        ports: PerPort { endpoint: 17486, module_server: 17487 },
        listen: PerPort { endpoint: listen.clone(), module_server: listen },
        allowed_networks: PerPort { endpoint: Vec::new(), module_server: Vec::new() },
        limits: std::collections::BTreeMap::new(),
    }
}

/// Where an offer is completed.
fn path(offer: &Offer) -> String {
    format!("/v1/provisioning/{}", offer.id)
}
