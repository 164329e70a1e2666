//! `Proxy-Status` (RFC 9209): why a CONNECT was refused, by whom.
//!
//! ```
//! use zone_protocol::proxy_status::{ProxyStatus, Reason};
//!
//! let proxy = "p1".parse().unwrap();
//! let field = ProxyStatus::new(&proxy, Reason::Refused, Some(403), "not for you").to_field();
//! assert_eq!(field, r#"p1; error=connection_refused; received-status=403; details="not for you""#);
//!
//! let status = ProxyStatus::from_field(&field).expect("one of ours");
//! assert_eq!((status.error.as_str(), status.received_status), (Reason::Refused.error(), Some(403)));
//! ```

use std::fmt::Write as _;

use crate::identity::Label;

/// The reasons that this proxy gives, each an error type of RFC 9209 section 2.3 with its HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No endpoint of this id is connected, nor was one lately.
    UnknownEndpoint,
    /// The endpoint is known, but no park of it came free in time.
    NoPark,
    /// The endpoint said no; `received-status` tells how.
    Refused,
    /// The endpoint took the CONNECT and did not answer it.
    NoAnswer,
    /// A limit is reached.
    Limit,
    /// The proxy is being stopped or replaced.
    Draining,
    /// The request itself was wrong.
    BadRequest,
    /// The caller may not.
    Denied,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::UnknownEndpoint,
        Self::NoPark,
        Self::Refused,
        Self::NoAnswer,
        Self::Limit,
        Self::Draining,
        Self::BadRequest,
        Self::Denied,
    ];

    /// The error type token.
    pub fn error(self) -> &'static str {
        match self {
            Self::UnknownEndpoint => "destination_not_found",
            Self::NoPark | Self::Draining => "destination_unavailable",
            Self::Refused => "connection_refused",
            Self::NoAnswer => "connection_timeout",
            Self::Limit => "connection_limit_reached",
            Self::BadRequest => "http_request_error",
            Self::Denied => "http_request_denied",
        }
    }

    /// The status that goes with it.
    pub fn status(self) -> u16 {
        match self {
            Self::UnknownEndpoint => 404,
            Self::NoPark | Self::Limit | Self::Draining => 503,
            Self::Refused => 502,
            Self::NoAnswer => 504,
            Self::BadRequest => 400,
            Self::Denied => 403,
        }
    }
}

/// One member of the `Proxy-Status` list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyStatus {
    /// The name of the proxy that speaks.
    pub proxy: String,
    /// The error type token.
    pub error: String,
    /// The status that the endpoint gave, if it gave one.
    pub received_status: Option<u16>,
    /// One line for a person.
    pub details: Option<String>,
}

impl ProxyStatus {
    /// What `proxy` says of a refusal.
    pub fn new(proxy: &Label, reason: Reason, received_status: Option<u16>, details: &str) -> Self {
        Self {
            proxy: proxy.to_string(),
            error: reason.error().to_owned(),
            received_status,
            details: Some(details.to_owned()),
        }
    }

    /// The field value. Characters that a structured string can't hold become `?`.
    pub fn to_field(&self) -> String {
        let proxy = if is_token(&self.proxy) { self.proxy.clone() } else { quoted(&self.proxy) };
        let mut field = format!("{proxy}; error={}", self.error);
        if let Some(status) = self.received_status {
            // Writing to a String can't fail.
            let _ = write!(field, "; received-status={status}");
        }
        if let Some(details) = &self.details {
            let _ = write!(field, "; details={}", quoted(details));
        }
        field
    }

    /// Reads the first member of a field value; `None` where it is not of the form that [`to_field`] writes.
    ///
    /// [`to_field`]: Self::to_field
    pub fn from_field(field: &str) -> Option<Self> {
        if !field.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            return None;
        }
        let (proxy, rest) = item(field)?;
        let mut rest = rest.trim_start().strip_prefix(';')?;
        let mut status = Self { proxy, error: String::new(), received_status: None, details: None };
        loop {
            let (name, after) = rest.split_once('=')?;
            let (value, after) = item(after)?;
            match name.trim() {
                "error" => status.error = value,
                "received-status" => status.received_status = value.parse().ok(),
                "details" => status.details = Some(value),
                _ => {}
            }
            match after.trim_start().strip_prefix(';') {
                Some(more) => rest = more,
                None => break,
            }
        }
        is_token(&status.error).then_some(status)
    }
}

/// A bare item (RFC 8941 section 3.3) and what follows it.
fn item(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ',']).unwrap_or(text.len());
        return Some((text[..end].trim().to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

fn quoted(text: &str) -> String {
    let mut string = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => string.extend(['\\', c]),
            ' '..='~' => string.push(c),
            _ => string.push('?'),
        }
    }
    string.push('"');
    string
}

/// RFC 8941 section 3.3.4. A label may begin with a digit, and a token may not.
fn is_token(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '*')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_survives_the_way_through_the_field() {
        let name = "proxy-1".parse().unwrap();
        for reason in Reason::ALL {
            let status = ProxyStatus::new(&name, reason, Some(403), "no \"way\"; really\\");
            assert_eq!(ProxyStatus::from_field(&status.to_field()).unwrap(), status);
        }
    }

    #[test]
    fn a_line_break_in_the_details_never_reaches_the_field() {
        let name = "p".parse().unwrap();
        let field = ProxyStatus::new(&name, Reason::Limit, None, "a\r\nX: y").to_field();
        assert_eq!(field, "p; error=connection_limit_reached; details=\"a??X: y\"");
    }
}
