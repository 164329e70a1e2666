//! A client of port 17488 that sends what the real one never would.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde::de::DeserializeOwned;
use serde_json::Value;
use zone_module::zone::Zone as Directory;
use zone_protocol::fields;
use zone_protocol::head::write_request;
use zone_protocol::identity::Role;
use zone_protocol::problem::Problem;
use zone_protocol::proof::{EXPORTER_LABEL, EXPORTER_LENGTH, Exported, Proof, Prover};
use zone_protocol::tls::config;
use zone_protocol::tls::policy::Versions;
use zone_protocol::tls::verifier::{Expectation, Pinned};
use zone_protocol::token::Token;

use crate::TEST_TIMEOUT;
use crate::host::Host;
use crate::zone::Zone;

/// One TLS connection to 17488.
#[derive(Debug)]
pub struct Client {
    tls: StreamOwned<ClientConnection, TcpStream>,
    exported: Exported,
    /// What proofs are made with, where they are to be made.
    pub token: Option<Token>,
}

impl Client {
    /// As the holder of a token: the proxy must show its keys, and every request carries a proof.
    pub fn by_token(host: &Host, token: &Token) -> io::Result<Self> {
        let client = Self::connect(host, Pinned::new(*token.pin()), None)?;
        Ok(Self { token: Some(token.clone()), ..client })
    }

    /// As whoever this certificate (chain and key, PEM) makes it, or nobody.
    pub fn by_certificate(host: &Host, zone: &Zone, own: Option<(&str, &str)>) -> io::Result<Self> {
        Self::connect(host, a_proxy_of(zone), own)
    }

    /// As the Module Server of the zone.
    pub fn member(host: &Host, zone: &Zone) -> Self {
        let own = zone.directory().credentials().expect("its certificate");
        Self::by_certificate(host, zone, Some((&own.certificate, &own.key))).expect("a member is let in")
    }

    fn connect(
        host: &Host,
        expected: Arc<dyn ServerCertVerifier>,
        own: Option<(&str, &str)>,
    ) -> io::Result<Self> {
        Self::connect_to(host, 17488, expected, own)
    }

    fn connect_to(
        host: &Host,
        port: u16,
        expected: Arc<dyn ServerCertVerifier>,
        own: Option<(&str, &str)>,
    ) -> io::Result<Self> {
        let config = config::client(expected, own, Versions::Tls12).expect("a TLS configuration");
        let name = ServerName::IpAddress(std::net::IpAddr::from(host.address).into());
        let tls = ClientConnection::new(config, name).expect("a TLS client");
        let tcp = TcpStream::connect_timeout(&host.port(port), TEST_TIMEOUT)?;
        tcp.set_read_timeout(Some(TEST_TIMEOUT))?;
        let mut tls = StreamOwned::new(tls, tcp);
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock)?;
        }
        let exported = tls
            .conn
            .export_keying_material([0; EXPORTER_LENGTH], EXPORTER_LABEL, None)
            .map_err(io::Error::other)?;
        Ok(Self { tls, exported, token: None })
    }

    /// Where it connects from, as the proxy's log has it.
    pub fn address(&self) -> SocketAddr {
        self.tls.sock.local_addr().expect("a connected socket")
    }

    /// Sends a request with a JSON body, or none, and a proof where there is a token; reads the answer.
    pub fn ask(&mut self, method: &str, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Answer {
        let proof = self.token.as_ref().map(|token| self.proof(token, method, path, body));
        let length = body.len().to_string();
        let mut all = vec![("Host", "proxy"), ("Content-Length", length.as_str())];
        all.extend((!body.is_empty()).then_some(("Content-Type", "application/json")));
        all.extend(fields);
        all.extend(proof.iter().map(|proof| (fields::PROOF, proof.as_str())));
        let head = write_request(method, path, &all);
        self.send(&[head.as_bytes(), body].concat());
        self.receive()
    }

    /// The proof that a request with this token would carry on this connection.
    pub fn proof(&self, token: &Token, method: &str, path: &str, body: &[u8]) -> String {
        Proof { token, prover: Prover::ModuleServer, exported: &self.exported, method, path, body }.make()
    }

    /// Sends anything. A proxy that closes meanwhile shows in its answer.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.tls.write_all(bytes).and_then(|()| self.tls.flush());
    }

    /// Reads an answer, or what came before the connection ended.
    pub fn receive(&mut self) -> Answer {
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            if let Some(answer) = Answer::read(&bytes) {
                return answer;
            }
            match self.tls.read(&mut chunk) {
                Ok(n @ 1..) => bytes.extend_from_slice(&chunk[..n]),
                ended => panic!("no answer, but {ended:?} after {:?}", String::from_utf8_lossy(&bytes)),
            }
        }
    }

    /// Whether the proxy closes the connection without another byte.
    pub fn is_closed(&mut self) -> bool {
        !matches!(self.tls.read(&mut [0]), Ok(1..))
    }
}

/// What the proxy answered.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Status line and fields.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Answer {
    fn read(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n")?;
        let field = |name: &str| {
            head.lines().find_map(|line| {
                let (field, value) = line.split_once(':')?;
                field.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
        };
        let length = field("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        let status = head.split(' ').nth(1)?.parse().ok()?;
        (body.len() >= length).then(|| Self { status, head: head.to_owned(), body: body.to_owned() })
    }

    /// The body as a document.
    pub fn document<T: DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body as a problem, which must be of this status and kind.
    pub fn problem(&self, status: u16, slug: &str) -> Problem {
        let problem: Problem = self.document();
        assert_eq!((self.status, problem.status, problem.slug()), (status, status, slug), "{self:?}");
        assert!(self.head.contains("application/problem+json"), "{self:?}");
        problem
    }
}

/// Whether one of a host's ports completes a handshake with whoever has this certificate (chain and key, PEM).
pub fn is_admitted(host: &Host, zone: &Zone, port: u16, own: (&str, &str)) -> bool {
    Client::connect_to(host, port, a_proxy_of(zone), Some(own)).is_ok()
}

/// What a client expects of a proxy in a zone.
fn a_proxy_of(zone: &Zone) -> Arc<dyn ServerCertVerifier> {
    let zone = zone.directory();
    let anchors = [zone.anchor(Role::ZoneProxy).expect("the zone's authority")];
    let roles = [Role::ZoneProxy, Role::ZoneControl];
    let expected = Expectation::one_of(zone.name().clone(), &roles, None, &anchors, Versions::Tls12);
    expected.expect("an expectation")
}

impl Zone {
    /// The zone's directory, by the library.
    pub fn directory(&self) -> Directory {
        Directory::open(&self.path()).expect("a zone")
    }
}

impl Host {
    /// The token that it shows now.
    pub fn token(&self) -> Token {
        let payload: Value = serde_json::from_str(&self.payload()).expect("JSON");
        payload["token"].as_str().and_then(|text| text.parse().ok()).expect("a token")
    }

    /// The status without what changes by itself.
    pub fn settled_status(&self) -> Value {
        let mut status = self.status();
        status.as_object_mut().expect("an object").remove("clock");
        for relay in status["relays"].as_array_mut().expect("relays") {
            relay.as_object_mut().expect("an object").remove("counts");
        }
        status
    }

    /// What it counts, asked for as the zone's Module Server: the value of a metric with its labels, or 0.
    pub fn metric(&self, zone: &Zone, name: &str) -> u64 {
        let text = Client::member(self, zone).ask("GET", "/metrics", &[], b"").body;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().expect("a whole number"))
    }

    /// Waits for a line of control's log with all of these words, and returns it. There must be no second one.
    pub fn logs(&self, words: &[&str]) -> String {
        let lines = || -> Vec<String> {
            let said = self.control.said();
            let fits = |line: &&str| words.iter().all(|word| line.contains(word));
            said.lines().filter(fits).map(str::to_owned).collect()
        };
        crate::until(&format!("a log line with {words:?}:\n{}", self.control.said()), || !lines().is_empty());
        let mut found = lines();
        assert_eq!(found.len(), 1, "{words:?}: {found:#?}");
        found.remove(0)
    }
}
