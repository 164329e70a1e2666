//! An answer of 17488: status, body, fields, and the proof over it.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, ETAG, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use zone_protocol::problem::{self, Problem};
use zone_protocol::trust::Trust;

use super::problems;

/// The media type of documents.
pub(super) const JSON: &str = "application/json";
/// [`zone_protocol::fields::PROOF`] as hyper wants it.
const PROOF: HeaderName = HeaderName::from_static("zone-proof");

/// An answer before its proof is added.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    media_type: &'static str,
    body: Bytes,
    pub(super) allow: Option<&'static str>,
    etag: Option<u64>,
    close: bool,
}

impl Answer {
    /// An answer with this body.
    pub(super) fn new(status: StatusCode, media_type: &'static str, body: Bytes) -> Self {
        Self { status, media_type, body, allow: None, etag: None, close: false }
    }

    /// A document.
    pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::new(status, JSON, body.into()),
            Err(error) => problems::internal(error).into(),
        }
    }

    /// The trust document, with its version as entity tag.
    pub(super) fn trust(trust: &Trust) -> Self {
        Self { etag: Some(trust.version), ..Self::json(StatusCode::OK, trust) }
    }

    /// A status alone.
    pub(super) fn empty(status: StatusCode) -> Self {
        Self::new(status, "", Bytes::new())
    }

    /// The connection ends after this answer.
    pub(super) fn closing(self) -> Self {
        Self { close: true, ..self }
    }

    /// As hyper sends it. `prove` makes the proof over the body, where its receiver can check one.
    pub(super) fn into_response(self, prove: impl FnOnce(&[u8]) -> Option<String>) -> Response<Full<Bytes>> {
        let proof = prove(&self.body);
        let etag = self.etag.map(|version| format!("\"{version}\""));
        let allow = self.allow.map(str::to_owned);
        let media_type = (!self.media_type.is_empty()).then(|| self.media_type.to_owned());
        let close = self.close.then(|| "close".to_owned());
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        for (name, value) in [(CONTENT_TYPE, media_type), (ALLOW, allow), (ETAG, etag), (CONNECTION, close)] {
            if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
                headers.insert(name, value);
            }
        }
        if let Some(value) = proof.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(PROOF, value);
        }
        response
    }
}

impl From<Problem> for Answer {
    fn from(problem: Problem) -> Self {
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        Self::new(status, problem::MEDIA_TYPE, body.into())
    }
}
