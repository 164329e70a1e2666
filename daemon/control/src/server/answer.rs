//! An answer of 17488: status, body, fields, and the proof over it.

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use zone_protocol::fields;
use zone_protocol::head::write_response;
use zone_protocol::problem::{self, Problem};
use zone_protocol::trust::Trust;

use super::problems;

/// The media type of documents.
pub(super) const JSON: &str = "application/json";
/// As RFC 9110, section 5.6.7, has it, in UTC.
const DATE: &[BorrowedFormatItem<'_>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");

/// An answer before its proof is added.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    media_type: &'static str,
    body: Vec<u8>,
    pub(super) allow: Option<&'static str>,
    etag: Option<u64>,
    proof: Option<String>,
    /// Whether the connection ends after it.
    pub(super) closes: bool,
}

impl Answer {
    /// An answer with this body.
    pub(super) fn new(status: u16, media_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self { status, media_type, body, allow: None, etag: None, proof: None, closes: false }
    }

    /// A document.
    pub(super) fn json(status: u16, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::new(status, JSON, body),
            Err(error) => problems::internal(error).into(),
        }
    }

    /// The trust document, with its version as entity tag.
    pub(super) fn trust(trust: &Trust) -> Self {
        Self { etag: Some(trust.version), ..Self::json(200, trust) }
    }

    /// A status alone.
    pub(super) fn empty(status: u16) -> Self {
        Self::new(status, "", Vec::new())
    }

    /// The connection ends after this answer.
    pub(super) fn closing(self) -> Self {
        Self { closes: true, ..self }
    }

    /// The same with a proof over its body, where its receiver can check one.
    pub(super) fn proved(mut self, prove: impl FnOnce(&[u8]) -> Option<String>) -> Self {
        self.proof = prove(&self.body);
        self
    }

    /// The bytes of it, at this time, for a request of this method.
    pub(super) fn to_bytes(&self, method: &str, now: OffsetDateTime) -> Vec<u8> {
        let date = now.to_offset(time::UtcOffset::UTC).format(DATE).unwrap_or_default();
        let length = self.body.len().to_string();
        let etag = self.etag.map(|version| format!("\"{version}\""));
        let mut fields = vec![("Date", date.as_str())];
        if self.status != 204 {
            // RFC 9110, section 8.6, forbids it there.
            fields.push(("Content-Length", &length));
        }
        if !self.media_type.is_empty() {
            fields.push(("Content-Type", self.media_type));
        }
        fields.extend(self.allow.map(|methods| ("Allow", methods)));
        fields.extend(etag.as_deref().map(|tag| ("ETag", tag)));
        fields.extend(self.proof.as_deref().map(|proof| (fields::PROOF, proof)));
        if self.closes {
            fields.push(("Connection", "close"));
        }
        let mut bytes = write_response(self.status, reason(self.status), &fields).into_bytes();
        if method != "HEAD" {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

impl From<Problem> for Answer {
    fn from(problem: Problem) -> Self {
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        Self::new(problem.status, problem::MEDIA_TYPE, body)
    }
}

/// The words behind a status, for a person (RFC 9110, section 15).
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        428 => "Precondition Required",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        507 => "Insufficient Storage",
        _ => "Refused",
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn an_answer_says_how_long_it_is_and_that_it_is_the_last_one() {
        let answer = Answer::new(200, JSON, "{}").closing().proved(|body| Some(body.len().to_string()));
        let text = String::from_utf8(answer.to_bytes("GET", datetime!(2026-11-09 08:07:06 +1))).unwrap();
        assert_eq!(
            text,
            "HTTP/1.1 200 OK\r\nDate: Mon, 09 Nov 2026 07:07:06 GMT\r\nContent-Length: 2\r\n\
             Content-Type: application/json\r\nZone-Proof: 2\r\nConnection: close\r\n\r\n{}"
        );
        let head = answer.to_bytes("HEAD", datetime!(2026-11-09 08:07:06 UTC));
        assert!(head.ends_with(b"\r\n\r\n"), "HEAD is answered without the body");
        let empty = Answer::empty(204).to_bytes("DELETE", datetime!(2026-11-09 08:07:06 UTC));
        assert!(!String::from_utf8(empty).unwrap().contains("Content-"));
    }
}
