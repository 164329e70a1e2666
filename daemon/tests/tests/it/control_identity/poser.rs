//! A TLS server that poses as a proxy, by keys that a program of the proxy holds.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;
use zone_protocol::identity::Role;
use zone_protocol::tls::config::{self, Leaves};
use zone_protocol::tls::policy::Versions;
use zone_protocol::tls::verifier::{Admission, Expectation};
use zone_tests::TEST_TIMEOUT;
use zone_tests::host::Host;
use zone_tests::zone::Zone;

/// What it says of itself.
pub(super) const HOST_NAME: &str = "the-captured-relay";

/// It listens on an address of its own, asks for a Module Server's certificate and shows both leaves, as the proxy does while a
/// token is outstanding, and answers every request with a status. It ends with the test.
pub(super) struct Poser {
    address: IpAddr,
    requests: Arc<AtomicUsize>,
}

impl Poser {
    /// With the pairs of a host's state whose names begin so.
    pub(super) fn start(host: &Host, port: u16, prefix: &str) -> Self {
        let address = IpAddr::from(zone_tests::address());
        let listener = TcpListener::bind(SocketAddr::new(address, port)).expect("an address of its own");
        let config = server(host, prefix);
        let status = json!({
            "state": "provisioned", "version": "0.1.0", "host": HOST_NAME, "clock": "2026-11-23T10:00:00Z",
            "zone": "plant", "name": "p1", "trust_version": 1, "trust_digest": digest(host),
            "control_identity": "spiffe://plant/zone-control/p1", "ports": [], "relays": [], "processes": [],
        });
        let requests = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&requests);
        thread::spawn(move || {
            for tcp in listener.incoming().flatten() {
                let (config, status, counted) =
                    (Arc::clone(&config), status.to_string(), Arc::clone(&counted));
                thread::spawn(move || serve(tcp, config, &status, &counted));
            }
        });
        Self { address, requests }
    }

    pub(super) fn address(&self) -> IpAddr {
        self.address
    }

    /// How many requests have come to it.
    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn serve(tcp: TcpStream, config: Arc<ServerConfig>, status: &str, requests: &AtomicUsize) -> io::Result<()> {
    tcp.set_read_timeout(Some(TEST_TIMEOUT))?;
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut tls = StreamOwned::new(connection, tcp);
    let mut request = Vec::new();
    while !request.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        let mut chunk = [0; 4096];
        match tls.read(&mut chunk)? {
            0 => return Ok(()),
            n => request.extend_from_slice(&chunk[..n]),
        }
    }
    requests.fetch_add(1, Ordering::SeqCst);
    let length = status.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    tls.write_all(head.as_bytes())?;
    tls.write_all(status.as_bytes())?;
    tls.conn.send_close_notify();
    tls.flush()
}

fn server(host: &Host, prefix: &str) -> Arc<ServerConfig> {
    let text = |name: &str| file(host, &format!("{prefix}{name}"));
    let (rsa, ec) = ((text("rsa.crt"), text("rsa.key")), (text("ec.crt"), text("ec.key")));
    let leaves = Leaves::from_pem((&rsa.0, &rsa.1), (&ec.0, &ec.1), &Versions::Tls12.provider());
    let state: serde_json::Value = serde_json::from_str(&file(host, "state.json")).expect("JSON");
    let trust = serde_json::from_value(state["provisioning"]["document"]["trust"].clone()).expect("trust");
    let zone = "plant".parse().expect("a label");
    let admission =
        Admission::new(zone, Role::ModuleServer, &trust, false, Versions::Tls12).expect("anchors");
    config::server(leaves.expect("pairs").showing_both(), Some(admission), None, Versions::Tls12)
        .expect("a server")
}

fn digest(host: &Host) -> serde_json::Value {
    host.status()["trust_digest"].clone()
}

/// Chain and key of a P-256 pair of a host's state, PEM.
pub(super) fn pair(host: &Host, prefix: &str) -> [String; 2] {
    ["crt", "key"].map(|kind| file(host, &format!("{prefix}ec.{kind}")))
}

fn file(host: &Host, name: &str) -> String {
    fs::read_to_string(host.state().join("current").join(name)).expect("a file of the state")
}

/// Why a port of a proxy refuses this certificate of a client in the handshake; `None` where it lets it in.
pub(super) fn refused(host: &Host, port: u16, zone: &Zone, own: (&str, &str)) -> Option<String> {
    let zone = zone.directory();
    let anchors = [zone.anchor(Role::ZoneProxy).expect("the zone's authority")];
    let roles = [Role::ZoneProxy, Role::ZoneControl];
    let expected = Expectation::one_of(zone.name().clone(), &roles, None, &anchors, Versions::Tls12);
    let config = config::client(expected.expect("anchors"), Some(own), Versions::Tls12).expect("a client");
    let name = ServerName::IpAddress(IpAddr::from(host.address).into());
    let tls = ClientConnection::new(config, name).expect("a client");
    let tcp = TcpStream::connect(host.port(port)).expect("it listens");
    tcp.set_read_timeout(Some(TEST_TIMEOUT)).expect("a socket");
    let mut tls = StreamOwned::new(tls, tcp);
    while tls.conn.is_handshaking() {
        if let Err(error) = tls.conn.complete_io(&mut tls.sock) {
            return Some(error.to_string());
        }
    }
    None
}
