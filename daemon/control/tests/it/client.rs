//! A Module Server's side of 17488. Every answer is held against `docs/openapi.json`.

use std::net::IpAddr;
use std::sync::Arc;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use zone_protocol::identity::Role;
use zone_protocol::ports::CONTROL;
use zone_protocol::problem::Problem;
use zone_protocol::proof::{EXPORTER_LABEL, Exported, Proof, Prover};
use zone_protocol::provisioning::{Offer, OfferRequest};
use zone_protocol::tls::config;
use zone_protocol::tls::policy::Versions;
use zone_protocol::tls::verifier::{Expectation, Pinned};
use zone_protocol::token::Token;

use crate::authority::{Party, Zone};

/// One connection.
pub(crate) struct Client {
    sender: SendRequest<Full<Bytes>>,
    exported: Exported,
    token: Option<Token>,
    /// Whether the proxy has closed the connection.
    pub(crate) closed: tokio::task::JoinHandle<()>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json<T: DeserializeOwned>(&self) -> T {
        assert!(self.status < 300, "{}", self.problem());
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn problem(&self) -> Problem {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no problem: {self:?}"))
    }

    /// The status, the problem's slug, and its step.
    pub(crate) fn refusal(&self) -> (u16, String, String) {
        let problem = self.problem();
        assert_eq!(problem.status, self.status);
        (self.status, problem.slug().to_owned(), problem.step.unwrap_or_default())
    }
}

/// By the token: the proxy's keys must be pinned by it, and requests are proved with it.
pub(crate) async fn by_token(address: IpAddr, token: &Token) -> Result<Client, String> {
    let config = config::client(Pinned::new(*token.pin()), None, Versions::Tls12).unwrap();
    connect(address, config, Some(token.clone())).await
}

/// By the token, and past the first proof of it: from then on the connection has authenticated.
pub(crate) async fn holder(address: IpAddr, token: &Token) -> Client {
    let mut client = by_token(address, token).await.unwrap();
    let body = serde_json::to_vec(&serde_json::json!({"zone": "plant", "module_server": "m"})).unwrap();
    let offer = client.send(Method::POST, "/v1/provisioning", &[], body).await.unwrap();
    assert_eq!(offer.status, 201);
    client
}

/// By a certificate.
pub(crate) async fn by_certificate(address: IpAddr, zone: &Zone, party: &Party) -> Result<Client, String> {
    connect(address, member_config(zone, Some(party)), None).await
}

/// Anybody: what the proxy shows must be good, and nothing is shown to it.
pub(crate) async fn without_certificate(address: IpAddr, zone: &Zone) -> Result<Client, String> {
    connect(address, member_config(zone, None), None).await
}

/// What a Module Server dials with.
pub(crate) fn member_config(zone: &Zone, party: Option<&Party>) -> Arc<ClientConfig> {
    let zone_name = zone.name.parse().unwrap();
    let roles = [Role::ZoneProxy, Role::ZoneControl];
    let expectation =
        Expectation::one_of(zone_name, &roles, None, &zone.proxy_anchors(), Versions::Tls12).unwrap();
    let own = party.map(|party| (party.chain.as_str(), party.key.as_str()));
    config::client(expectation, own, Versions::Tls12).unwrap()
}

/// Dials with a configuration.
pub(crate) async fn connect(
    address: IpAddr,
    config: Arc<ClientConfig>,
    token: Option<Token>,
) -> Result<Client, String> {
    let tls = dial(address, config).await?;
    let exported = tls.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, None).unwrap();
    let (sender, connection) = handshake(TokioIo::new(tls)).await.map_err(|error| error.to_string())?;
    let closed = spawn_local(async move {
        let _ = connection.await;
    });
    Ok(Client { sender, exported, token, closed })
}

/// The TLS connection by itself.
pub(crate) async fn dial(address: IpAddr, config: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, String> {
    let tcp = TcpStream::connect((address, CONTROL)).await.map_err(|error| error.to_string())?;
    let name = ServerName::IpAddress(address.into());
    TlsConnector::from(config).connect(name, tcp).await.map_err(|error| error.to_string())
}

impl Client {
    /// Asks without a body.
    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], Vec::new()).await.unwrap()
    }

    /// Sends a document.
    pub(crate) async fn put(&mut self, path: &str, document: &impl Serialize) -> Answer {
        self.send(Method::PUT, path, &[], serde_json::to_vec(document).unwrap()).await.unwrap()
    }

    /// Sends a request, proved if the client has a token, and looks at the answer.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        fields: &[(&'static str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer, hyper::Error> {
        let mut request = Request::builder().method(method.clone()).uri(path).header(HOST, "proxy");
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(token) = &self.token {
            let (exported, method) = (&self.exported, method.as_str());
            let proof = Proof { token, prover: Prover::ModuleServer, exported, method, path, body: &body };
            request = request.header("zone-proof", proof.make());
        }
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let response = self.sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        let answer = Answer { status: head.status.as_u16(), headers: head.headers, body };
        is_documented(&method, path, &answer);
        if let Some(token) = &self.token
            && answer.status < 300
        {
            let field = answer.headers.get("zone-proof").expect("a proof").to_str().unwrap();
            let (exported, method, body) = (&self.exported, method.as_str(), &answer.body);
            let proof = Proof { token, prover: Prover::ZoneProxy, exported, method, path, body };
            assert!(proof.verify(field), "the answer's proof holds");
        }
        Ok(answer)
    }

    /// Opens an offer for the zone.
    pub(crate) async fn open_offer(&mut self, zone: &str) -> Answer {
        let request = OfferRequest { zone: zone.parse().unwrap(), module_server: "inside".parse().unwrap() };
        let body = serde_json::to_vec(&request).unwrap();
        self.send(Method::POST, "/v1/provisioning", &[], body).await.unwrap()
    }

    /// The same where it must succeed.
    pub(crate) async fn offer(&mut self, zone: &Zone) -> Offer {
        self.open_offer(zone.name).await.json()
    }

    /// Waits until the proxy closes the connection.
    pub(crate) async fn is_closed(&mut self) {
        let waiting = tokio::time::timeout(std::time::Duration::from_secs(10), &mut self.closed);
        waiting.await.expect("the proxy closes the connection").unwrap();
    }
}

/// The answer is one that the description has for this request, in status, media type and shape.
fn is_documented(method: &Method, path: &str, answer: &Answer) {
    if answer.status == 431 {
        // The head was not read to its end: there is no request to speak of.
        return;
    }
    let description: Value = serde_json::from_str(include_str!("../../../../docs/openapi.json")).unwrap();
    let template = match path.strip_prefix("/v1/provisioning/") {
        Some(_) => "/v1/provisioning/{id}",
        None => path,
    };
    let operation = &description["paths"][template][method.as_str().to_lowercase()];
    if operation.is_null() {
        assert!(matches!(answer.status, 404 | 405), "{method} {path}: {}", answer.status);
        return conforms(&description, &json!({"$ref": "#/components/schemas/Problem"}), answer);
    }
    let mut documented = &operation["responses"][answer.status.to_string()];
    assert!(!documented.is_null(), "{method} {path}: {} is not documented: {answer:?}", answer.status);
    if let Some(reference) = documented["$ref"].as_str() {
        documented = description.pointer(reference.trim_start_matches('#')).unwrap();
    }
    let given = answer.headers.get(CONTENT_TYPE).map(|kind| kind.to_str().unwrap());
    match given.filter(|kind| kind.ends_with("json")) {
        Some(kind) => {
            let schema = &documented["content"][kind]["schema"];
            assert!(!schema.is_null(), "{method} {path}: {kind} is not documented");
            conforms(&description, schema, answer);
        }
        None => assert!(answer.status == 204 || path == "/metrics", "{method} {path}: {given:?}"),
    }
}

fn conforms(description: &Value, schema: &Value, answer: &Answer) {
    let mut whole = schema.clone();
    whole["components"] = description["components"].clone();
    let validator = jsonschema::validator_for(&whole).unwrap();
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    let errors: Vec<_> = validator.iter_errors(&body).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?} in {body:#}");
}
