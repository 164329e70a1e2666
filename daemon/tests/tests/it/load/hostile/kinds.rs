//! The kinds of hostile connections.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use zone_module::zone::Zone as Directory;
use zone_protocol::identity::Role;
use zone_protocol::tls::config::client;
use zone_protocol::tls::policy::Versions;
use zone_protocol::tls::verifier::Expectation;
use zone_tests::host::Host;
use zone_tests::zone::Zone;

use crate::load::peers::label;

/// What a stranger, or a Module Server that is out of order, can do to a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Certificates among which a path is hard to find: too many, or as many as may be, all of one name.
    BombChain,
    /// A connection that says nothing.
    Silent,
    /// A handshake without a certificate, and a request that never ends.
    SlowHead,
    /// A ClientHello, and nothing after it.
    HalfHandshake,
    /// What is no TLS.
    Garbage,
    /// A connection that is closed at once.
    ConnectAndClose,
    /// A PROXY protocol header, which only balancers may send.
    ProxyHeader,
    /// A CONNECT to an endpoint that is not there.
    RefusedConnect,
}

/// All of them.
pub(super) const KINDS: [Kind; 8] = [
    Kind::BombChain,
    Kind::Silent,
    Kind::SlowHead,
    Kind::HalfHandshake,
    Kind::Garbage,
    Kind::ConnectAndClose,
    Kind::ProxyHeader,
    Kind::RefusedConnect,
];

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::BombChain => "bomb chain",
            Self::Silent => "silent TCP",
            Self::SlowHead => "slow head",
            Self::HalfHandshake => "half handshake",
            Self::Garbage => "garbage",
            Self::ConnectAndClose => "connect and close",
            Self::ProxyHeader => "PROXY header of a stranger",
            Self::RefusedConnect => "refused CONNECT",
        }
    }
}

/// How long a hostile connection stays if nobody ends it.
const STAY: Duration = Duration::from_secs(1);
/// For an answer that is only waited for.
const ANSWER: Duration = Duration::from_secs(10);
/// The three ports.
pub(super) const PORTS: [u16; 3] = [17486, 17487, 17488];

/// Makes hostile connections to a host, from many addresses.
#[derive(Clone)]
pub(super) struct Attacker {
    address: Ipv4Addr,
    /// By a stranger's authority: chains within the bound of intermediates and beyond it.
    bombs: [Arc<ClientConfig>; 2],
    /// Without a certificate.
    stranger: Arc<ClientConfig>,
    endpoint: Arc<ClientConfig>,
    module_server: Arc<ClientConfig>,
    hello: Arc<[u8]>,
}

impl Attacker {
    pub(super) fn new(host: &Host, zone: &Zone) -> Self {
        let directory = Directory::open(&zone.path()).expect("a zone");
        let issued = |role: Role, name: &str| {
            let issued = directory.issue(role, &label(name), None).expect("a certificate");
            config(&directory, Some((&issued.certificate, &issued.key)))
        };
        let bomb = |intermediates: usize| {
            let (chain, key) = bomb(intermediates);
            config(&directory, Some((&chain, &key)))
        };
        let stranger = config(&directory, None);
        let mut greeting = ClientConnection::new(Arc::clone(&stranger), name()).expect("a greeting");
        let mut hello = Vec::new();
        greeting.write_tls(&mut hello).expect("memory");
        Self {
            address: host.address,
            bombs: [bomb(4), bomb(60)],
            stranger,
            endpoint: issued(Role::Endpoint, "plain"),
            module_server: issued(Role::ModuleServer, "greedy"),
            hello: hello.into(),
        }
    }

    /// One connection of a kind, which stays as long as it may.
    pub(super) async fn attack(&self, kind: Kind, number: usize) {
        self.carry_out(kind, number, STAY).await;
    }

    /// One that leaves as soon as the proxy has done what it does.
    pub(super) async fn attack_and_leave(&self, kind: Kind, number: usize) {
        self.carry_out(kind, number, Duration::from_millis(5)).await;
    }

    /// Silent connections, as many on each port.
    pub(super) async fn silent(&self, on_each: usize) -> Vec<TcpStream> {
        let mut silent = Vec::new();
        for port in PORTS {
            for number in 0..on_each {
                silent.extend(self.dial(port, number).await);
            }
        }
        silent
    }

    /// What an endpoint costs that comes and goes.
    pub(super) async fn plain_handshake(&self, number: usize) {
        let mut tls = self.tls(17486, number, &self.endpoint).await.expect("an endpoint is let in");
        let _ = tls.shutdown().await;
    }

    async fn carry_out(&self, kind: Kind, number: usize, stay: Duration) {
        let any = PORTS[number / KINDS.len() % PORTS.len()];
        match kind {
            Kind::BombChain => {
                let chain = &self.bombs[number / KINDS.len() % self.bombs.len()];
                if let Some(mut tls) = self.tls(PORTS[number / 2 % 2], number, chain).await {
                    let _ = timeout(ANSWER, tls.read(&mut [0; 1])).await;
                }
            }
            Kind::Silent => self.say(any, number, b"", stay).await,
            Kind::HalfHandshake => self.say(any, number, &self.hello, stay).await,
            Kind::Garbage => self.say(any, number, &[b'x'; 40], ANSWER).await,
            Kind::ConnectAndClose => drop(self.dial(any, number).await),
            Kind::ProxyHeader => {
                let header = b"PROXY TCP4 203.0.113.7 192.0.2.1 4242 17486\r\n";
                self.say(any, number, header, ANSWER).await;
            }
            Kind::SlowHead => {
                if let Some(mut tls) = self.tls(17488, number, &self.stranger).await {
                    let _ = tls.write_all(b"GET /v1/status HTTP/1.1\r\nHo").await;
                    let _ = tls.flush().await;
                    let _ = timeout(stay, tls.read(&mut [0; 1])).await;
                }
            }
            Kind::RefusedConnect => {
                if let Some(mut tls) = self.tls(17487, number, &self.module_server).await {
                    let target = format!("host-{number}:ssh");
                    let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
                    let _ = tls.write_all(head.as_bytes()).await;
                    let _ = timeout(ANSWER, tls.read(&mut [0; 1_024])).await;
                }
            }
        }
    }

    /// Says something and stays until it is turned away, or as long as it likes.
    async fn say(&self, port: u16, number: usize, bytes: &[u8], stay: Duration) {
        if let Some(mut stream) = self.dial(port, number).await {
            let _ = stream.write_all(bytes).await;
            let _ = timeout(stay, stream.read(&mut [0; 1_024])).await;
        }
    }

    async fn tls(
        &self,
        port: u16,
        number: usize,
        config: &Arc<ClientConfig>,
    ) -> Option<TlsStream<TcpStream>> {
        let stream = self.dial(port, number).await?;
        let connecting = TlsConnector::from(Arc::clone(config)).connect(name(), stream);
        timeout(ANSWER, connecting).await.ok()?.ok()
    }

    async fn dial(&self, port: u16, number: usize) -> Option<TcpStream> {
        let socket = TcpSocket::new_v4().ok()?;
        let [.., high, low] = number.to_be_bytes();
        socket.bind(SocketAddr::from((Ipv4Addr::new(127, 32, high, low), 0))).ok()?;
        let dialled = socket.connect(SocketAddr::from((self.address, port)));
        timeout(ANSWER, dialled).await.ok()?.ok()
    }
}

fn name() -> ServerName<'static> {
    ServerName::from(std::net::IpAddr::from(Ipv4Addr::LOCALHOST))
}

fn config(directory: &Directory, own: Option<(&str, &str)>) -> Arc<ClientConfig> {
    let versions = Versions::Tls12;
    let anchor = directory.anchor(Role::ZoneProxy).expect("an anchor");
    let zone = directory.name().clone();
    let proxy = Expectation::new(zone, Role::ZoneProxy, None, &[anchor], versions).expect("an anchor");
    let mut config = (*client(proxy, own, versions).expect("a certificate")).clone();
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// A leaf with so many intermediates behind it, all of one name, none of which vouches for another: PEM, and the key.
fn bomb(intermediates: usize) -> (String, String) {
    let authority = |key: &KeyPair| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "x");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.self_signed(key).expect("a certificate")
    };
    let keys: Vec<_> = (0..intermediates).map(|_| KeyPair::generate().expect("a key")).collect();
    let mut named = CertificateParams::default();
    named.distinguished_name.push(DnType::CommonName, "x");
    let signer = Issuer::new(named, KeyPair::generate().expect("a key"));
    let mut leaf = CertificateParams::default();
    leaf.subject_alt_names =
        vec![SanType::URI("spiffe://plant/endpoint/x".try_into().expect("an ASCII string"))];
    let key = KeyPair::generate().expect("a key");
    let leaf = leaf.signed_by(&key, &signer).expect("a certificate");
    let chain: String =
        std::iter::once(leaf.pem()).chain(keys.iter().map(|key| authority(key).pem())).collect();
    (chain, key.serialize_pem())
}
