//! Requests that are refused: what is said to the peer about it, and to whoever reads log and metrics.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use uuid::Uuid;
use zone_protocol::head::{HeadError, write_response};
use zone_protocol::identity::Label;
use zone_protocol::problem::{MEDIA_TYPE, Problem};
use zone_protocol::proxy_status::{ProxyStatus, Reason};
use zone_protocol::{PARK_UPGRADE, fields};

use crate::connection::Connection;

/// Why a request is not served.
#[derive(Debug)]
pub(crate) enum RequestError {
    /// The connection has ended, or is to end without a word.
    ConnectionEnded,
    /// The connection failed in the middle of a request or of its answer: for the log only.
    ConnectionFailed(String),
    /// The peer is told why, and the connection is closed.
    Refused(Box<Refusal>),
}

/// A request that is refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// HTTP status; usually the reason's own.
    pub(crate) status: u16,
    /// The reason in `Proxy-Status`.
    pub(crate) reason: Reason,
    /// What the endpoint answered, if it did.
    pub(crate) received_status: Option<u16>,
    /// The session that was asked for, if it had come to that.
    pub(crate) session: Option<Uuid>,
    /// Whether the answer goes without its body, since the request was a HEAD (RFC 9110, section 9.3.2).
    pub(crate) head_only: bool,
    /// A short word for metrics.
    pub(crate) label: &'static str,
    /// One line for a person.
    pub(crate) details: String,
}

impl Refusal {
    /// With the status that goes with the reason.
    pub(crate) fn new(reason: Reason, label: &'static str, details: impl Into<String>) -> Self {
        Self {
            status: reason.status(),
            reason,
            received_status: None,
            session: None,
            head_only: false,
            label,
            details: details.into(),
        }
    }

    /// A request that is wrong in itself.
    pub(crate) fn bad_request(status: u16, label: &'static str, details: impl Into<String>) -> Self {
        Self { status, ..Self::new(Reason::BadRequest, label, details) }
    }

    /// A request whose head can't be read.
    pub(crate) fn bad_head(label: &'static str, error: &HeadError) -> Self {
        let too_large = matches!(error, HeadError::TooLong(_) | HeadError::TooManyFields(_));
        Self::bad_request(if too_large { 431 } else { 400 }, label, error.to_string())
    }

    /// The same for a request of this method.
    pub(crate) fn of_method(self, method: &str) -> Self {
        Self { head_only: method == "HEAD", ..self }
    }

    /// Answers with it: `Proxy-Status`, a problem document, `Connection: close`.
    ///
    /// The connection must be closed afterwards without reading on (RFC 9931): what came early behind a refused
    /// CONNECT must never be taken for the next request.
    pub(crate) async fn answer(
        &self,
        stream: &mut Connection,
        proxy: &Label,
        deadline: Duration,
    ) -> io::Result<()> {
        let answer = self.text(proxy);
        let write = async {
            stream.write_all(answer.as_bytes()).await?;
            stream.shutdown().await
        };
        timeout(deadline, write).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// The whole answer of the proxy of this name.
    fn text(&self, proxy: &Label) -> String {
        let problem =
            Problem::new(self.status, self.reason.error(), status_words(self.status)).detail(&self.details);
        let body = serde_json::to_string(&problem).unwrap_or_default();
        let proxy_status =
            ProxyStatus::new(proxy, self.reason, self.received_status, &self.details).to_field();
        let (length, session) = (body.len().to_string(), self.session.map(|id| id.to_string()));
        let mut fields = vec![
            ("Content-Type", MEDIA_TYPE),
            ("Content-Length", length.as_str()),
            ("Proxy-Status", proxy_status.as_str()),
            ("Connection", "close"),
        ];
        if self.status == 426 {
            fields.push(("Upgrade", PARK_UPGRADE));
        }
        if let Some(session) = &session {
            fields.push((fields::SESSION, session));
        }
        let head = write_response(self.status, status_words(self.status), &fields);
        if self.head_only { head } else { head + &body }
    }
}

impl RequestError {
    /// The same for a request of this method.
    pub(crate) fn of_method(self, method: &str) -> Self {
        match self {
            Self::Refused(refusal) => refusal.of_method(method).into(),
            other => other,
        }
    }
}

impl From<Refusal> for RequestError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

fn status_words(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Refused",
    }
}
