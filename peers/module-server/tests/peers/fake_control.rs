//! A proxy's control port: enough of it to be provisioned and asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use time::{Duration, OffsetDateTime};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use zone_protocol::features::Features;
use zone_protocol::fields;
use zone_protocol::identity::Role;
use zone_protocol::problem::Problem;
use zone_protocol::proof::{EXPORTER_LABEL, Exported, Proof, Prover};
use zone_protocol::provisioning::{
    HostFacts, NewIdentity, Offer, PortStatus, Provisioned, Provisioning, Status,
};
use zone_protocol::tls::certificate::{chain_from_pem, spki};
use zone_protocol::tls::config;
use zone_protocol::tls::policy::Versions;
use zone_protocol::tls::verifier::Admission;
use zone_protocol::token::{Token, pin};
use zone_protocol::trust::Trust;

use crate::Keys;

pub(crate) const OFFER: &str = "0193-offer";

/// How it misbehaves.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Quirks {
    /// Answers to this method carry a proof made with another token.
    pub(crate) wrong_proof: Option<&'static str>,
    /// Completes the provisioning and closes without an answer, so many times.
    pub(crate) lost_answers: usize,
    /// Closes each connection before it has read a request.
    pub(crate) closes: bool,
    /// Its clock is ahead by this.
    pub(crate) clock_ahead: Duration,
}

pub(crate) struct FakeControl {
    pub(crate) address: SocketAddr,
    pub(crate) token: Token,
    state: Arc<Mutex<State>>,
    accepting: tokio::task::JoinHandle<()>,
}

struct State {
    quirks: Quirks,
    token: Token,
    keys: Keys,
    provisioning: Option<Provisioning>,
    tls: Arc<ServerConfig>,
    seen: Vec<String>,
}

impl FakeControl {
    pub(crate) async fn start(quirks: Quirks) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let keys = Keys::generate();
        let bootstrap = keys.self_signed();
        let of = |pem: &str| spki(&chain_from_pem(pem, "leaf").unwrap()[0]).unwrap();
        let token = Token::new(pin(&of(&bootstrap.rsa), &of(&bootstrap.ec)), [5; 20]);
        let leaves = keys.leaves(&bootstrap).showing_both();
        let tls = config::server(leaves, None, None, Versions::Tls12).unwrap();
        let state = State { quirks, token: token.clone(), keys, provisioning: None, tls, seen: Vec::new() };
        let (state, address) = (Arc::new(Mutex::new(state)), listener.local_addr().unwrap());
        let accepting = tokio::spawn(accept(listener, Arc::clone(&state)));
        Self { address, token, state, accepting }
    }

    /// Requests so far, `METHOD /path`.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.state.lock().unwrap().seen.clone()
    }

    pub(crate) fn provisioning(&self) -> Option<Provisioning> {
        self.state.lock().unwrap().provisioning.clone()
    }

    /// It tells another trust document from now on than the one it was sent.
    pub(crate) fn says(&self, change: impl FnOnce(&mut Trust)) {
        let mut state = self.state.lock().unwrap();
        change(&mut state.provisioning.as_mut().unwrap().trust);
    }

    /// From now on it closes each connection after the handshake.
    pub(crate) fn closes_without_an_answer(&self) {
        self.state.lock().unwrap().quirks.closes = true;
    }

    /// Another token is in force from now on, as after `zone-proxy token new`.
    pub(crate) fn replace_keys(&self) {
        let mut state = self.state.lock().unwrap();
        state.keys = Keys::generate();
        let leaves = state.keys.leaves(&state.keys.self_signed()).showing_both();
        state.tls = config::server(leaves, None, None, Versions::Tls12).unwrap();
    }
}

impl Drop for FakeControl {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>) {
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        tokio::spawn(serve(tcp, Arc::clone(&state)));
    }
}

async fn serve(tcp: TcpStream, state: Arc<Mutex<State>>) {
    let tls = Arc::clone(&state.lock().unwrap().tls);
    let Ok(stream) = TlsAcceptor::from(tls).accept(tcp).await else { return };
    if state.lock().unwrap().quirks.closes {
        use tokio::io::AsyncWriteExt as _;
        let mut stream = stream;
        let _ = stream.shutdown().await;
        return;
    }
    let exported: Exported =
        stream.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, None).unwrap();
    let service = service_fn(|request: Request<Incoming>| {
        let state = Arc::clone(&state);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            let asked = Asked {
                method: parts.method.to_string(),
                path: parts.uri.path().to_owned(),
                proof: parts.headers.get(fields::PROOF).map(|v| v.to_str().unwrap().to_owned()),
                if_match: parts.headers.get("if-match").map(|v| v.to_str().unwrap().to_owned()),
                body,
                exported,
            };
            match state.lock().unwrap().answer(&asked) {
                Some(answer) => Ok::<_, Lost>(answer),
                None => Err(Lost),
            }
        }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// hyper closes the connection without an answer.
#[derive(Debug)]
struct Lost;

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("lost")
    }
}

impl std::error::Error for Lost {}

struct Asked {
    method: String,
    path: String,
    proof: Option<String>,
    if_match: Option<String>,
    body: Bytes,
    exported: Exported,
}

impl State {
    fn answer(&mut self, asked: &Asked) -> Option<Response<Full<Bytes>>> {
        self.seen.push(format!("{} {}", asked.method, asked.path));
        let by_token = self.provisioning.is_none();
        if by_token && !self.proved(asked) {
            let problem = Problem::new(401, "proof", "the proof is missing or wrong");
            return Some(respond(401, serde_json::to_vec(&problem).unwrap()));
        }
        let (status, body) = self.handle(asked)?;
        let mut response = respond(status, body.clone());
        if by_token && (200..300).contains(&status) {
            let wrong = self.quirks.wrong_proof == Some(asked.method.as_str());
            let token = if wrong { Token::new([0; 32], [0; 20]) } else { self.token.clone() };
            let Asked { method, path, exported, .. } = asked;
            let proof =
                Proof { token: &token, prover: Prover::ZoneProxy, exported, method, path, body: &body };
            response.headers_mut().insert(fields::PROOF, proof.make().parse().unwrap());
        }
        Some(response)
    }

    fn proved(&self, asked: &Asked) -> bool {
        let Asked { method, path, exported, body, .. } = asked;
        let expected =
            Proof { token: &self.token, prover: Prover::ModuleServer, exported, method, path, body };
        expected.verify(asked.proof.as_deref().unwrap_or_default())
    }

    fn handle(&mut self, asked: &Asked) -> Option<(u16, Vec<u8>)> {
        let method: Method = asked.method.parse().unwrap();
        let complete = format!("/v1/provisioning/{OFFER}");
        Some(match (method, asked.path.as_str()) {
            (Method::POST, "/v1/provisioning" | "/v1/identity") => (201, self.offer()),
            (Method::PUT, path) if path == complete => {
                let document: Provisioning = serde_json::from_slice(&asked.body).unwrap();
                self.become_member(document);
                if self.quirks.lost_answers > 0 {
                    self.quirks.lost_answers -= 1;
                    return None;
                }
                (200, self.provisioned())
            }
            (Method::GET, "/v1/provisioning") => (200, self.provisioned()),
            (Method::DELETE, "/v1/provisioning") => (204, Vec::new()),
            (Method::PUT, "/v1/identity") => {
                let identity: NewIdentity = serde_json::from_slice(&asked.body).unwrap();
                let mut document = self.provisioning.clone().unwrap();
                document.certificates = Some(identity.certificates);
                self.become_member(document);
                (200, self.provisioned())
            }
            (Method::GET, "/v1/status") => (200, self.status()),
            (Method::GET, "/v1/trust") => {
                (200, serde_json::to_vec(&self.provisioning.as_ref().unwrap().trust).unwrap())
            }
            (Method::PUT, "/v1/trust") => self.replace_trust(asked),
            _ => {
                let problem = Problem::new(404, "not-found", "there is nothing at this path");
                (404, serde_json::to_vec(&problem).unwrap())
            }
        })
    }

    fn offer(&self) -> Vec<u8> {
        let clock = OffsetDateTime::now_utc() + self.quirks.clock_ahead;
        let offer = Offer {
            id: OFFER.into(),
            signing_requests: self.keys.requests(),
            control_signing_requests: None,
            host: HostFacts { host: "dmz-1".into(), version: "0.1.0".into(), os: "Debian 12".into() },
            clock,
            expires_at: clock + Duration::minutes(10),
            features: Features::own(),
        };
        serde_json::to_vec(&offer).unwrap()
    }

    fn become_member(&mut self, document: Provisioning) {
        let leaves = self.keys.leaves(document.certificates.as_ref().unwrap());
        let admission =
            Admission::new(document.zone.clone(), Role::ModuleServer, &document.trust, true, Versions::Tls12);
        self.tls = config::server(leaves, Some(admission.unwrap()), None, Versions::Tls12).unwrap();
        self.provisioning = Some(document);
    }

    fn replace_trust(&mut self, asked: &Asked) -> (u16, Vec<u8>) {
        let mut document = self.provisioning.clone().unwrap();
        if asked.if_match != Some(format!("\"{}\"", document.trust.version)) {
            let problem = Problem::new(412, "trust-version", "the version differs");
            return (412, serde_json::to_vec(&problem).unwrap());
        }
        document.trust = serde_json::from_slice::<Trust>(&asked.body).unwrap();
        self.become_member(document);
        (200, asked.body.to_vec())
    }

    fn provisioned(&self) -> Vec<u8> {
        let document = self.provisioning.as_ref().unwrap();
        let provisioned = Provisioned {
            id: OFFER.into(),
            zone: document.zone.clone(),
            name: document.name.clone(),
            trust_version: document.trust.version,
            ports: self.ports(),
        };
        serde_json::to_vec(&provisioned).unwrap()
    }

    fn ports(&self) -> Vec<PortStatus> {
        let Some(document) = &self.provisioning else { return Vec::new() };
        let ports = [
            ("endpoint", document.ports.endpoint, &document.listen.endpoint),
            ("module-server", document.ports.module_server, &document.listen.module_server),
        ];
        let status = |purpose: &str, port, address| PortStatus {
            purpose: purpose.into(),
            address,
            port,
            listening: true,
            firewall: "none".into(),
        };
        ports
            .into_iter()
            .flat_map(|(purpose, port, listen)| listen.iter().map(move |a| status(purpose, port, *a)))
            .collect()
    }

    fn status(&self) -> Vec<u8> {
        let document = self.provisioning.as_ref().unwrap();
        let status = Status {
            state: "provisioned".into(),
            version: "0.1.0".into(),
            host: "dmz-1".into(),
            clock: OffsetDateTime::now_utc(),
            zone: Some(document.zone.clone()),
            name: Some(document.name.clone()),
            provisioning: Some(OFFER.into()),
            trust_version: Some(document.trust.version),
            anchors: Vec::new(),
            trust_digest: Some(zone_protocol::merge::digest(&document.trust).unwrap()),
            control_identity: None,
            certificate_expires_at: None,
            ports: self.ports(),
            relays: Vec::new(),
            processes: Vec::new(),
            features: Features::own(),
        };
        serde_json::to_vec(&status).unwrap()
    }
}

fn respond(status: u16, body: Vec<u8>) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::new(body.into())).unwrap()
}
