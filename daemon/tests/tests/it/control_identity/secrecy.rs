//! No relay is given the keys of 17488: its memory and its files are searched for them.

use std::fs;

use zone_tests::host::Host;
use zone_tests::process::succeed;
use zone_tests::skip;
use zone_tests::zone::Zone;

use super::poser::pair;
use crate::clients::holds;

/// The relay's own key shows that the search would find it. After a rotation as after the first provisioning.
#[test]
fn the_relay_holds_its_own_private_key_and_not_that_of_17488() {
    const TEST: &str = "the_relay_holds_its_own_private_key_and_not_that_of_17488";
    let host = Host::start("");
    let zone = Zone::with(&host);
    if holds(host.relay(), b"zone").is_none() {
        return skip(TEST, "the system lets nobody read another process' memory");
    }
    for what in ["provisioned", "rotated"] {
        let relay = host.relay();
        let traces = |prefix: &str| {
            let scalar = scalar(&pair(&host, prefix)[1]);
            let rsa =
                fs::read_to_string(host.state().join(format!("current/{prefix}rsa.key"))).expect("a key");
            // As it is written, as a library of big numbers holds it, and as text.
            [
                scalar.clone(),
                scalar.into_iter().rev().collect(),
                middle(&pair(&host, prefix)[1]),
                middle(&rsa),
            ]
            .map(|trace| holds(relay, &trace).expect("it was read before"))
        };
        assert!(traces("").contains(&true), "{what}: the search finds nothing at all");
        assert_eq!(traces("control-"), [false; 4], "{what}: a key of 17488 in the relay");
        succeed(&mut zone.cli(&["rotate", "p1"]), b"");
    }
}

/// The private number of a P-256 key in PKCS #8: the octet string of 32 bytes (RFC 5915, section 3).
fn scalar(pem: &str) -> Vec<u8> {
    let key = zone_protocol::tls::certificate::key_from_pem(pem, "key").expect("a key");
    let der = key.secret_der();
    let at = der.windows(2).position(|bytes| bytes == [4, 32]).expect("an octet string of 32 bytes");
    der[at + 2..at + 34].to_vec()
}

/// A line of text from the middle of a key.
fn middle(pem: &str) -> Vec<u8> {
    let lines: Vec<_> = pem.lines().collect();
    lines[lines.len() / 2].as_bytes().to_vec()
}
