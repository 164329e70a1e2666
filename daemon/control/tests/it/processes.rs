//! control and relay as real processes.

use std::fs;
use std::net::{IpAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use zone_protocol::provisioning::{Payload, Status};

use crate::authority::Zone;
use crate::client;
use crate::commands::Host;
use crate::harness::run;

/// Where the relay is, if it was built: in `ZONE_BIN_DIR`, or beside the binary under test.
fn relay() -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_BIN_EXE_zone-proxy")).with_file_name("zone-relay");
    let path =
        std::env::var_os("ZONE_BIN_DIR").map_or_else(beside, |dir| PathBuf::from(dir).join("zone-relay"));
    path.exists().then_some(path)
}

fn accepts(address: IpAddr, port: u16) -> bool {
    TcpStream::connect((address, port)).is_ok()
}

#[test]
fn a_relay_outlives_a_kill_of_control_and_is_taken_up_by_the_next_one() {
    let Some(relay) = relay() else {
        println!("skipped: zone-relay is not built (cargo build -p zone-relay, or set ZONE_BIN_DIR)");
        return;
    };
    let host = Host::new("");
    // The daemon's user may be unable to reach the folder that it was built in.
    let own = host.path("zone-relay");
    fs::copy(relay, &own).unwrap();
    let file = host.path("zone-proxy.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{text}[relay]\nprogram = \"{}\"\n", own.display())).unwrap();
    let daemon = host.daemon();
    let payload: Payload = serde_json::from_slice(&host.run(&["show", "payload"]).stdout).unwrap();
    let address = payload.addresses[0];
    run(async {
        let zone = Zone::new("plant");
        let mut client = client::by_token(address, &payload.token).await.unwrap();
        let offer = client.offer(&zone).await;
        let document = zone.document(&offer, "p1", address);
        assert_eq!(client.put(&format!("/v1/provisioning/{}", offer.id), &document).await.status, 200);
    });
    let status = || -> Status { serde_json::from_slice(&host.run(&["status", "--json"]).stdout).unwrap() };
    let before = status();

    drop(daemon);
    assert!(accepts(address, 17486) && accepts(address, 17487), "the relay serves without control");
    let daemon = host.daemon();
    let after = status();
    assert_eq!(before.relays, after.relays);
    assert!(after.ports.iter().all(|port| port.listening));
    assert_eq!(after.processes.len(), 2);

    daemon.terminate();
    let since = Instant::now();
    while accepts(address, 17486) || accepts(address, 17487) {
        assert!(since.elapsed() < Duration::from_secs(5), "the ports close when control is stopped");
    }
}
