//! Request and response heads of HTTP/1.1 (RFC 9112), as every port reads and writes them.
//!
//! The tokenizing is `httparse`'s. The limits, and what a CONNECT may look like here, are ours.
//!
//! ```
//! use zone_protocol::head::{HeadLimits, parse_request, write_request};
//!
//! let sent = write_request("CONNECT", "host-7:ssh", &[("Host", "host-7:ssh")]);
//! assert_eq!(sent, "CONNECT host-7:ssh HTTP/1.1\r\nHost: host-7:ssh\r\n\r\n");
//!
//! // A head comes in pieces: `None` until it is complete.
//! let received = format!("{sent}early bytes");
//! let limits = HeadLimits::default();
//! assert_eq!(parse_request(&received.as_bytes()[..20], limits)?, None);
//! let (head, length) = parse_request(received.as_bytes(), limits)?.expect("a whole head");
//! assert_eq!(head.connect_target().unwrap().endpoint.as_str(), "host-7");
//! assert_eq!(&received[length..], "early bytes");
//! # Ok::<(), zone_protocol::head::HeadError>(())
//! ```

use std::fmt::Write as _;

use crate::identity::{IdentityError, Target, printable};

/// How large a head may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes, the closing empty line included.
    pub bytes: usize,
    /// Header fields; at most [`HeadLimits::MOST_FIELDS`].
    pub fields: usize,
}

impl HeadLimits {
    /// More fields than this are never accepted.
    pub const MOST_FIELDS: usize = 128;
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { bytes: 8192, fields: 32 }
    }
}

/// Why bytes are no head that is accepted here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// It does not end within the limit.
    #[error("the head is longer than {0} bytes")]
    TooLong(usize),
    /// More fields than the limit.
    #[error("the head has more than {0} fields")]
    TooManyFields(usize),
    /// Not HTTP/1.1.
    #[error("not an HTTP/1.1 head: {0}")]
    Malformed(String),
    /// HTTP/1.0 or something newer.
    #[error("only HTTP/1.1 is spoken here")]
    Version,
}

/// A method, target and fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// The method as sent; methods are case-sensitive.
    pub method: String,
    /// The request target as sent.
    pub target: String,
    /// The fields in order; names as sent, values without surrounding white space.
    pub fields: Fields,
}

/// A status and fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status, 100 to 999.
    pub status: u16,
    /// The words for a person behind the status.
    pub reason: String,
    /// The fields in order.
    pub fields: Fields,
}

/// Header fields in the order in which they came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    /// The value of the first field of this name, whatever its case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The values of all fields of this name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// Whether a comma-separated list field holds this token, whatever its case.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.all(name).flat_map(|v| v.split(',')).any(|t| t.trim().eq_ignore_ascii_case(token))
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }
}

/// Reads a request head from the start of `bytes`: the head and its length, or `None` where more is needed.
pub fn parse_request(bytes: &[u8], limits: HeadLimits) -> Result<Option<(RequestHead, usize)>, HeadError> {
    let mut space = [httparse::EMPTY_HEADER; HeadLimits::MOST_FIELDS];
    let mut request = httparse::Request::new(&mut space[..limits.fields.min(HeadLimits::MOST_FIELDS)]);
    let Some(length) = complete(request.parse(window(bytes, limits)), bytes, limits)? else {
        return Ok(None);
    };
    line_ends(&bytes[..length])?;
    version(request.version)?;
    let head = RequestHead {
        method: request.method.unwrap_or_default().to_owned(),
        target: request.path.unwrap_or_default().to_owned(),
        fields: fields(request.headers)?,
    };
    Ok(Some((head, length)))
}

/// Reads a response head from the start of `bytes`: the head and its length, or `None` where more is needed.
pub fn parse_response(bytes: &[u8], limits: HeadLimits) -> Result<Option<(ResponseHead, usize)>, HeadError> {
    let mut space = [httparse::EMPTY_HEADER; HeadLimits::MOST_FIELDS];
    let mut response = httparse::Response::new(&mut space[..limits.fields.min(HeadLimits::MOST_FIELDS)]);
    let Some(length) = complete(response.parse(window(bytes, limits)), bytes, limits)? else {
        return Ok(None);
    };
    line_ends(&bytes[..length])?;
    version(response.version)?;
    let status = response.code.unwrap_or_default();
    if status < 100 {
        return Err(HeadError::Malformed(format!("there is no status {status:03}")));
    }
    let head = ResponseHead {
        status,
        reason: response.reason.unwrap_or_default().to_owned(),
        fields: fields(response.headers)?,
    };
    Ok(Some((head, length)))
}

fn window(bytes: &[u8], limits: HeadLimits) -> &[u8] {
    &bytes[..bytes.len().min(limits.bytes)]
}

fn complete(
    result: httparse::Result<usize>,
    bytes: &[u8],
    limits: HeadLimits,
) -> Result<Option<usize>, HeadError> {
    match result {
        Ok(httparse::Status::Complete(length)) => Ok(Some(length)),
        Ok(httparse::Status::Partial) if bytes.len() >= limits.bytes => Err(HeadError::TooLong(limits.bytes)),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(httparse::Error::TooManyHeaders) => Err(HeadError::TooManyFields(limits.fields)),
        Err(httparse::Error::Version) => Err(HeadError::Version),
        Err(error) => Err(HeadError::Malformed(error.to_string())),
    }
}

/// Where lines may end in two ways, two readers of one head can differ in what it says.
fn line_ends(head: &[u8]) -> Result<(), HeadError> {
    let mut before = 0;
    for byte in head {
        if *byte == b'\n' && before != b'\r' {
            return Err(HeadError::Malformed(
                "a line ends in LF alone, and lines end in CR LF here".to_owned(),
            ));
        }
        before = *byte;
    }
    Ok(())
}

fn version(version: Option<u8>) -> Result<(), HeadError> {
    if version == Some(1) { Ok(()) } else { Err(HeadError::Version) }
}

fn fields(headers: &[httparse::Header<'_>]) -> Result<Fields, HeadError> {
    headers
        .iter()
        .map(|h| {
            let value = std::str::from_utf8(h.value)
                .map_err(|_| HeadError::Malformed(format!("field {} is not UTF-8", printable(h.name))))?;
            Ok((h.name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
        })
        .collect::<Result<_, _>>()
        .map(Fields)
}

/// Why a well-formed request is refused; each is answered with 400 and the connection closes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Content-Length or Transfer-Encoding: RFC 9110 section 9.3.6 gives content in a CONNECT no meaning, and
    /// what a body is to one reader is the next request to another.
    #[error("a request here carries no body: leave out Content-Length and Transfer-Encoding")]
    Body,
    /// There is no Host field, or more than one.
    #[error("exactly one Host field is needed")]
    Host,
    /// RFC 9112 section 3.2.3: they must be the same.
    #[error("the target '{target}' and Host '{host}' differ")]
    HostDiffers {
        /// The request target.
        target: String,
        /// The value of the Host field.
        host: String,
    },
    /// Not `<endpoint-id>:<service>`.
    #[error(transparent)]
    Target(#[from] IdentityError),
}

impl RequestHead {
    /// Refuses a request that announces a body.
    pub fn without_body(&self) -> Result<(), RequestError> {
        let announced = self.fields.get("Transfer-Encoding").is_some()
            || self.fields.all("Content-Length").any(|v| v != "0")
            || (self.method == "CONNECT" && self.fields.get("Content-Length").is_some());
        if announced { Err(RequestError::Body) } else { Ok(()) }
    }

    /// The one `Host` that a request must have (RFC 9112, section 3.2).
    pub fn host(&self) -> Result<&str, RequestError> {
        let mut hosts = self.fields.all("Host");
        match (hosts.next(), hosts.next()) {
            (Some(host), None) => Ok(host),
            _ => Err(RequestError::Host),
        }
    }

    /// What a CONNECT asks for, once body, Host and target are in order.
    pub fn connect_target(&self) -> Result<Target, RequestError> {
        self.without_body()?;
        let host = self.host()?;
        if !host.eq_ignore_ascii_case(&self.target) {
            return Err(RequestError::HostDiffers { target: printable(&self.target), host: printable(host) });
        }
        Ok(self.target.parse()?)
    }

    /// Whether the client wants the connection closed after the answer.
    pub fn wants_close(&self) -> bool {
        self.fields.lists("Connection", "close")
    }
}

/// The bytes of a request head. Names and values must be free of line breaks: ours are constants and labels.
pub fn write_request(method: &str, target: &str, fields: &[(&str, &str)]) -> String {
    write_fields(format!("{method} {target} HTTP/1.1\r\n"), fields)
}

/// The bytes of a response head.
pub fn write_response(status: u16, reason: &str, fields: &[(&str, &str)]) -> String {
    write_fields(format!("HTTP/1.1 {status} {reason}\r\n"), fields)
}

fn write_fields(mut head: String, fields: &[(&str, &str)]) -> String {
    for (name, value) in fields {
        debug_assert!(!value.contains(['\r', '\n']), "a line break in {name}");
        // Writing to a String can't fail.
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("\r\n");
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> RequestHead {
        parse_request(text.as_bytes(), HeadLimits::default()).unwrap().unwrap().0
    }

    #[test]
    fn a_connect_by_name_and_by_number_is_understood() {
        for target in ["host-7:ssh", "host-7:22"] {
            let head = request(&write_request("CONNECT", target, &[("Host", target)]));
            assert_eq!(head.connect_target().unwrap().to_string(), target);
        }
    }

    #[test]
    fn a_connect_with_a_body_or_another_host_is_refused() {
        let with = |fields: &str| request(&format!("CONNECT a:1 HTTP/1.1\r\n{fields}\r\n")).connect_target();
        assert_eq!(with("Host: a:1\r\nContent-Length: 0\r\n"), Err(RequestError::Body));
        assert_eq!(with("Host: a:1\r\nTransfer-Encoding: chunked\r\n"), Err(RequestError::Body));
        assert_eq!(with(""), Err(RequestError::Host));
        assert_eq!(with("Host: a:1\r\nHost: a:1\r\n"), Err(RequestError::Host));
        assert!(matches!(with("Host: b:1\r\n"), Err(RequestError::HostDiffers { .. })));
        assert!(with("Host: a:1\r\n").is_ok());
    }

    #[test]
    fn a_head_that_does_not_end_is_cut_at_the_limit() {
        let limits = HeadLimits { bytes: 100, fields: 4 };
        let long = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(200));
        assert_eq!(parse_request(&long.as_bytes()[..99], limits), Ok(None));
        assert_eq!(parse_request(long.as_bytes(), limits), Err(HeadError::TooLong(100)));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(5));
        assert_eq!(parse_request(many.as_bytes(), limits), Err(HeadError::TooManyFields(4)));
    }

    #[test]
    fn a_line_that_ends_in_lf_alone_is_malformed_wherever_it_stands() {
        for text in [
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
        ] {
            let error = parse_request(text.as_bytes(), HeadLimits::default()).unwrap_err();
            assert!(error.to_string().contains("lines end in CR LF here"), "{error}");
        }
        let answer = parse_response(b"HTTP/1.1 200 OK\nZone-End-To-End: off\n\n", HeadLimits::default());
        assert!(matches!(answer, Err(HeadError::Malformed(_))));
        let early = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nearly\nbytes";
        assert!(parse_request(early, HeadLimits::default()).unwrap().is_some(), "what follows is no head");
    }

    #[test]
    fn another_protocol_is_told_apart() {
        assert!(parse_request(b"\x16\x03\x01\x02\x00", HeadLimits::default()).is_err());
        assert_eq!(parse_request(b"GET / HTTP/1.0\r\n\r\n", HeadLimits::default()), Err(HeadError::Version));
    }

    #[test]
    fn the_length_leaves_early_bytes_behind() {
        let text = b"HTTP/1.1 200 OK\r\nZone-End-To-End: off\r\n\r\nSSH-2.0-x";
        let (head, length) = parse_response(text, HeadLimits::default()).unwrap().unwrap();
        assert_eq!((head.status, head.fields.get("zone-end-to-end")), (200, Some("off")));
        assert_eq!(&text[length..], b"SSH-2.0-x");
    }
}
