//! Clients and endpoints that are not ours, and ours as an admin uses them, against the real proxy.

mod curl;
mod presence;
mod python;
mod refusals;
mod secrecy;
mod ssh;
mod zones;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use zone_tests::host::Host;
use zone_tests::process::Process;
use zone_tests::until;
use zone_tests::zone::{Service, Zone};

pub(crate) use secrecy::holds;

/// A new relay lets calls wait for endpoints that it has not seen yet; this one only for a moment.
const SETTLED: &str = "[timeouts]\nsettle = 0.001\n";

/// A service without TLS end to end: what strangers' clients can use.
fn open(name: &'static str, port: u16, target: SocketAddr) -> Service {
    Service { name, port, target: target.to_string(), end_to_end: false }
}

/// A service with TLS end to end.
fn sealed(name: &'static str, port: u16, target: SocketAddr) -> Service {
    Service { end_to_end: true, ..open(name, port, target) }
}

/// `python3 -m http.server` over this folder: the process and where it listens.
fn web_server(folder: &Path) -> (Process, SocketAddr) {
    let mut command = Command::new("python3");
    command.args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory"]).arg(folder);
    let server = Process::start(&mut command);
    server.says("port ");
    let said = server.said();
    let port = said.split_once("port ").and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
    (server, ([127, 0, 0, 1], port.expect("a port")).into())
}

/// `curl` with the proxy and the certificate of the Module Server whose files are in this folder.
fn curl(host: &Host, bundle: &Path) -> Command {
    let mut command = Command::new("curl");
    command.args([
        "-q",
        "--silent",
        "--show-error",
        "--fail",
        "--max-time",
        "30",
        "--noproxy",
        "",
        "--proxytunnel",
    ]);
    command.args(["--proxy", &format!("https://{}", host.port(17487))]);
    for (option, file) in [
        ("--proxy-cacert", "zone-proxy-ca.crt"),
        ("--proxy-cert", "module-server.crt"),
        ("--proxy-key", "module-server.key"),
    ] {
        command.arg(option).arg(bundle.join(file));
    }
    command
}

/// Provisions another proxy of the zone under a name of its own.
fn join(zone: &Zone, host: &Host, name: &str) {
    let address = host.address.to_string();
    let mut provision = zone.cli(&["provision", "--name", name, "--listen", &address]);
    zone_tests::process::succeed(&mut provision, host.payload().as_bytes());
}

/// Waits until an endpoint is in the list of some proxy.
fn is_parked(zone: &Zone, id: &str) {
    until(&format!("{id} is parked"), || parked_at(zone, id).is_some());
}

/// The proxy where an endpoint is parked. Proxies that don't answer have none.
fn parked_at(zone: &Zone, id: &str) -> Option<String> {
    let output = zone_tests::process::run(&mut zone.cli(&["endpoints"]), b"");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let row = text.lines().find(|line| line.split_whitespace().next() == Some(id))?;
    row.split_whitespace().nth(1).map(str::to_owned)
}

/// Adds lines to the top of an endpoint's configuration, where keys without a section stand.
fn configure(endpoint: &Path, lines: &str) {
    let file = endpoint.join("zone-endpoint.toml");
    let text = fs::read_to_string(&file).expect("the configuration");
    fs::write(file, format!("{lines}\n{text}")).expect("writable");
}
