//! One look at each relay port from the peer that did something wrong: what it is told, in one line.

use std::fs;
use std::path::Path;

use time::OffsetDateTime;
use zone_module::zone::Validity;
use zone_protocol::identity::Role;
use zone_protocol::provisioning::Status;
use zone_tests::control::Client;
use zone_tests::host::Host;
use zone_tests::process::{fail, run, succeed};
use zone_tests::zone::{Service, Zone, start_endpoint};
use zone_tests::{target, until};

use super::label;

#[test]
fn an_endpoint_is_told_what_is_wrong_with_its_certificate() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let directory = zone.directory();
    let validity = Validity::at(clock(&host, &zone));
    let day = std::time::Duration::from_secs(86_400);
    let over = Validity { not_before: validity.not_before - day * 9, not_after: validity.not_before - day };

    let expired = zone.issue_endpoint("late", &[]);
    put_certificate(&expired, &directory.issue(Role::Endpoint, &label("late"), Some(over)).expect("issued"));
    let revoked = zone.issue_endpoint("gone", &[]);
    succeed(&mut zone.cli(&["revoke", "endpoint", "gone"]), b"");
    let foreign = zone.issue_endpoint("alien", &[]);
    let other = Zone::init();
    put_certificate(
        &foreign,
        &other.directory().issue(Role::Endpoint, &label("alien"), None).expect("issued"),
    );
    let misled = zone.issue_endpoint("astray", &[]);
    change(&misled, ":17486", ":17487");

    let cases = [
        (&expired, "not valid at this time by its clock", "late is valid from"),
        (&revoked, "our certificate is revoked: have a new one issued", "gone is revoked"),
        (
            &foreign,
            "does not know the authority that signed our certificate",
            "alien, signed by an authority",
        ),
        (
            &misled,
            "it is for another role, zone or name than this port is for",
            "astray, but this port is for",
        ),
    ];
    for (folder, told, logged) in cases {
        let endpoint = start_endpoint(folder);
        endpoint.says(told);
        host.control.says(logged);
    }
    host.counts("nobody has parked", |counts| counts["parks"] == 0);
    let refused = metrics(&host, &zone);
    for reason in ["not_now", "revoked", "unknown_authority", "wrong_role"] {
        let counted = |line: &&str| line.starts_with("zone_relay") && line.contains(&format!("\"{reason}\""));
        assert!(refused.lines().any(|line| counted(&line)), "{reason} is not counted:\n{refused}");
    }
}

#[test]
fn an_endpoint_that_calls_a_strangers_proxy_does_not_park_there() {
    let (host, other) = (Host::start(""), Host::start(""));
    let (zone, stranger) = (Zone::with(&host), Zone::with(&other));
    let folder = zone.issue_endpoint("e1", &[]);
    change(&folder, &host.address.to_string(), &other.address.to_string());
    let endpoint = start_endpoint(&folder);
    endpoint.says("its certificate is refused: certificate of spiffe://plant/zone-proxy/p1");
    other.counts("nobody has parked", |counts| counts["parks"] == 0);
    drop(stranger);
}

#[test]
fn a_module_server_is_told_why_there_is_no_session() {
    let host = Host::start("[timeouts]\nconnect = 1.0");
    let zone = Zone::with(&host);
    let service = |name, port, target: std::net::SocketAddr| Service {
        name,
        port,
        target: target.to_string(),
        end_to_end: true,
    };
    let services = [service("echo", 7, target::echo()), service("dead", 9, target::nobody())];
    let _endpoint = zone.endpoint(&host, "e1", &services);
    until("e1 can be called", || run(&mut zone.cli(&["connect", "e1:echo"]), b"hello").stdout == b"hello");
    let cases =
        [("nobody:ssh", "nobody:ssh"), ("e1:absent", "No Such Service"), ("e1:dead", "Target Refused")];
    for (target, words) in cases {
        let told = fail(&mut zone.cli(&["connect", target]), b"");
        assert!(told.contains("refused") && told.contains(words), "{target}: {told}");
        assert_eq!(told.trim().lines().count(), 1, "{told}");
    }
    let told = fail(&mut zone.cli(&["connect", "--end-to-end", "off", "e1:echo"]), b"");
    assert!(told.contains("leave out --end-to-end off"), "{told}");
    for nonsense in ["e1", "e1:", ":ssh", "E1:ssh", "e1:70000"] {
        let output = run(&mut zone.cli(&["connect", nonsense]), b"");
        assert_eq!(output.status.code(), Some(2), "{nonsense}");
    }
}

#[test]
fn a_module_server_is_told_that_it_called_the_wrong_port_or_is_revoked() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let proxies = zone.path().join("proxies.json");
    let right = fs::read_to_string(&proxies).expect("the zone's proxies");
    fs::write(&proxies, right.replace("17487", "17486")).expect("written");
    let told = fail(&mut zone.cli(&["endpoints"]), b"");
    assert!(told.contains("it is for another role, zone or name than this port is for"), "{told}");
    host.control.says("module-1, but this port is for the role endpoint");
    fs::write(&proxies, right).expect("written");

    // A copy of the zone directory that somebody has taken, and the authority's holder noticed.
    let copy = zone.beside("copy");
    let copied = std::process::Command::new("cp").arg("-r").arg(zone.path()).arg(&copy).status();
    assert!(copied.expect("cp runs").success());
    succeed(&mut zone.cli(&["revoke", "module-server", "module-1"]), b"");
    for words in [&["status"] as &[_], &["endpoints"]] {
        let mut command = std::process::Command::new(zone_tests::program("zone-module"));
        let told = fail(command.arg("--zone").arg(&copy).args(words), b"");
        assert!(told.contains("our certificate is revoked"), "{words:?}: {told}");
        succeed(&mut zone.cli(words), b"");
    }
}

#[test]
fn an_endpoint_with_a_module_servers_certificate_does_not_start() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let folder = zone.issue_endpoint("e1", &[]);
    let issued = zone.directory().issue(Role::ModuleServer, &label("e1"), None).expect("issued");
    put_certificate(&folder, &issued);
    let mut command = std::process::Command::new(zone_tests::program("zone-endpoint"));
    let told = fail(command.args(["run", "--config"]).arg(folder.join("zone-endpoint.toml")), b"");
    assert!(told.contains("module-server"), "{told}");
}

fn put_certificate(folder: &Path, issued: &zone_module::zone::Issued) {
    fs::write(folder.join("endpoint.crt"), &issued.certificate).expect("written");
    fs::write(folder.join("endpoint.key"), issued.key.as_bytes()).expect("written");
}

fn change(folder: &Path, from: &str, to: &str) {
    let config = folder.join("zone-endpoint.toml");
    let text = fs::read_to_string(&config).expect("the configuration");
    assert!(text.contains(from), "{text}");
    fs::write(config, text.replace(from, to)).expect("written");
}

fn metrics(host: &Host, zone: &Zone) -> String {
    Client::member(host, zone).ask("GET", "/metrics", &[], b"").body
}

fn clock(host: &Host, zone: &Zone) -> OffsetDateTime {
    let status: Status = Client::member(host, zone).ask("GET", "/v1/status", &[], b"").document();
    status.clock
}
