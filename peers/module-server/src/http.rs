//! HTTP/1.1 exchanges, each over a connection of its own that ends cleanly.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use zone_protocol::problem::Problem;
use zone_protocol::proof::Exported;

use crate::dial::{Link, explain, peer};
use crate::error::{Error, Result};

/// How long an answer may take, body included.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the end of a connection may take once its answer is there.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest body that is read: a list of about 100,000 endpoints.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The `Zone-Proof` field.
    pub(crate) proof: Option<String>,
    pub(crate) body: Bytes,
    /// What binds a proof to the connection that it came over.
    pub(crate) exported: Exported,
    /// Who answered, for messages.
    pub(crate) peer: String,
}

/// What a request holds, besides method and path.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) body: Bytes,
    pub(crate) fields: Vec<(&'static str, String)>,
}

/// Sends a request over a connection and reads the whole answer. `content` is made for that connection.
pub(crate) async fn exchange(
    link: Link,
    method: &Method,
    path: &str,
    deadline: Duration,
    content: impl FnOnce(&Exported) -> Content,
) -> Result<Answer> {
    let mut connection = Connection::over(link).await?;
    let content = content(&connection.exported);
    match timeout(deadline, connection.exchange(method, path, content)).await {
        Ok(answer) => {
            connection.close().await;
            answer
        }
        Err(_) => Err(Error::Deadline {
            peer: connection.peer.clone(),
            step: format!("{method} {path}"),
            after: deadline,
        }),
    }
}

/// Sends a GET whose answer has no end in sight.
pub(crate) async fn open(link: Link, path: &str) -> Result<(Response<Incoming>, Connection)> {
    let mut connection = Connection::over(link).await?;
    let step = format!("GET {path}");
    match timeout(ANSWER_TIMEOUT, connection.send(&Method::GET, path, Content::default())).await {
        Ok(Ok(response)) if response.status().is_success() => Ok((response, connection)),
        Ok(Ok(response)) => {
            let answer = timeout(ANSWER_TIMEOUT, connection.read(response, &step)).await;
            let nothing = || connection.broken(&step, "answered nothing of use".into());
            Err(answer.ok().and_then(Result::ok).and_then(|a| a.success(&step).err()).unwrap_or_else(nothing))
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(Error::Deadline { peer: connection.peer.clone(), step, after: ANSWER_TIMEOUT }),
    }
}

/// A connection for one request.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Moves bytes; its result tells why the connection ended.
    driver: Option<JoinHandle<hyper::Result<()>>>,
    address: SocketAddr,
    pub(crate) peer: String,
    exported: Exported,
}

impl Connection {
    async fn over(link: Link) -> Result<Self> {
        let peer = peer(&link.address);
        let (sender, connection) = http1::handshake(TokioIo::new(link.stream))
            .await
            .map_err(|e| Error::Broken { peer: peer.clone(), step: "connecting".into(), why: explain(&e) })?;
        let driver = Some(tokio::spawn(connection));
        Ok(Self { sender, driver, address: link.address, peer, exported: link.exported })
    }

    async fn exchange(&mut self, method: &Method, path: &str, content: Content) -> Result<Answer> {
        let response = self.send(method, path, content).await?;
        self.read(response, &format!("{method} {path}")).await
    }

    async fn send(&mut self, method: &Method, path: &str, content: Content) -> Result<Response<Incoming>> {
        let step = format!("{method} {path}");
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(HOST, self.address.to_string()).header(CONNECTION, "close");
        if !content.body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        for (name, value) in &content.fields {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(content.body)).map_err(|e| self.broken(&step, e.to_string()))?;
        match self.sender.send_request(request).await {
            Ok(response) => Ok(response),
            Err(error) => {
                let why = self.why_ended(error).await;
                Err(self.broken(&step, why))
            }
        }
    }

    async fn read(&self, response: Response<Incoming>, step: &str) -> Result<Answer> {
        let status = response.status().as_u16();
        let proof = response.headers().get(zone_protocol::fields::PROOF);
        let proof = proof.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
        let body = body.map_err(|error| self.broken(step, explain(&*error)))?.to_bytes();
        Ok(Answer { status, proof, body, exported: self.exported, peer: self.peer.clone() })
    }

    /// An alert that came while nobody waited for an answer is found in the driver's result, not in `error`.
    async fn why_ended(&mut self, error: hyper::Error) -> String {
        if !error.is_canceled() && !error.is_closed() && !error.is_incomplete_message() {
            return explain(&error);
        }
        match self.driver_ended().await {
            Some(Err(cause)) => explain(&cause),
            _ => "the other side closed the connection without an answer".into(),
        }
    }

    /// Lets the driver send close_notify: without it the proxy logs a connection that was cut.
    async fn close(mut self) {
        // A connection that does not end in time is dropped.
        self.driver_ended().await;
    }

    /// How the driver ended, once: its result is gone then.
    async fn driver_ended(&mut self) -> Option<hyper::Result<()>> {
        let mut driver = self.driver.take()?;
        let ended = timeout(CLOSE_TIMEOUT, &mut driver).await;
        if ended.is_err() {
            driver.abort();
        }
        ended.ok()?.ok()
    }

    pub(crate) fn broken(&self, step: &str, why: String) -> Error {
        Error::Broken { peer: self.peer.clone(), step: step.to_owned(), why }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(driver) = &self.driver {
            driver.abort();
        }
    }
}

impl Answer {
    /// The document in it, where the status is one of success; otherwise the problem.
    pub(crate) fn document<T: serde::de::DeserializeOwned>(&self, step: &str) -> Result<T> {
        self.success(step)?;
        serde_json::from_slice(&self.body).map_err(|error| self.unreadable(step, &error))
    }

    /// A body that is not what it should be.
    pub(crate) fn unreadable(&self, step: &str, error: &serde_json::Error) -> Error {
        Error::Broken {
            peer: self.peer.clone(),
            step: step.to_owned(),
            why: format!("the answer is not the document that belongs there: {error}"),
        }
    }

    /// Whether the status is one of success.
    pub(crate) fn success(&self, step: &str) -> Result<()> {
        if (200..300).contains(&self.status) {
            return Ok(());
        }
        let (peer, step) = (self.peer.clone(), step.to_owned());
        Err(match serde_json::from_slice::<Problem>(&self.body) {
            Ok(problem) => Error::Problem { peer, step, problem: Box::new(problem) },
            Err(_) => {
                Error::Broken { peer, step, why: format!("answered {} and gave no reason", self.status) }
            }
        })
    }
}
