//! A zone with more than the one Module Server, and a host with more than IPv4.

use std::fs;
use std::net::{Ipv6Addr, TcpListener, TcpStream};

use zone_tests::host::Host;
use zone_tests::process::{fail, succeed};
use zone_tests::session::Session;
use zone_tests::zone::{Zone, start_endpoint};
use zone_tests::{skip, target, until};

use super::python::module_connect;
use super::{is_parked, open};

/// a standby can take over, and losing one identity does not cost the other its sessions.
#[test]
fn a_second_module_server_of_the_zone_uses_the_proxy_and_can_be_revoked_by_itself() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let _endpoint = zone.endpoint(&host, "host-7", &[open("echo", 7, target::echo())]);
    let standby = zone.issue_module_server("standby");
    let mut first = Session::start(&mut zone.cli(&["connect", "--end-to-end", "off", "host-7:echo"]));
    first.exchanges(b"by the first");
    let mut second = Session::start(&mut module_connect(&host, &standby, "host-7:echo"));
    second.exchanges(b"by the standby");
    host.counts("both have a session", |counts| counts["sessions"] == 2);
    host.control.says("caller=standby");

    succeed(&mut zone.cli(&["revoke", "module-server", "standby"]), b"");
    assert_eq!(second.ends().0.code(), Some(3), "its session is cut off");
    let said = fail(&mut module_connect(&host, &standby, "host-7:echo"), b"");
    assert!(said.contains("revoked"), "{said}");
    first.exchanges(b"still by the first");
}

/// IPv6 beside IPv4, on all three ports.
#[test]
fn a_host_can_be_provisioned_and_used_over_ipv6() {
    const TEST: &str = "a_host_can_be_provisioned_and_used_over_ipv6";
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        return skip(TEST, "this machine has no IPv6");
    }
    // There is one ::1 for everybody, and 17488 can't be another number.
    until("17488 is free on ::1", || TcpStream::connect((Ipv6Addr::LOCALHOST, 17488)).is_err());
    let mut host = Host::start("");
    let address = format!("\"{}\"", host.address);
    let config = fs::read_to_string(host.config()).expect("the configuration");
    fs::write(host.config(), config.replace(&address, &format!("{address}, \"::1\""))).expect("writable");
    host.restart();

    let zone = Zone::init();
    let payload = host.payload();
    let mut provision = zone.cli(&["provision", "--name", "p1", "--address", "::1", "--listen", "::1"]);
    succeed(&mut provision, payload.as_bytes());
    let ports = host.status()["ports"].clone();
    let v6 = ports.as_array().expect("a list").iter().filter(|port| port["address"] == "::1");
    assert_eq!(v6.filter(|port| port["listening"] == true).count(), 3, "{ports}");
    assert!(!host.answers(17486) && !host.answers(17487), "what was not asked for does not listen");

    let folder = zone.issue_endpoint("host-7", &[open("echo", 7, target::echo())]);
    let endpoint = start_endpoint(&folder);
    endpoint.says("[::1]:17486");
    is_parked(&zone, "host-7");
    Session::start(&mut zone.cli(&["connect", "--end-to-end", "off", "host-7:echo"])).exchanges(b"over IPv6");
    assert!(succeed(&mut zone.cli(&["endpoints", "--json"]), b"").contains("::1"));
}
