//! What the proxy says on a parked connection: pings, and at most one CONNECT. Pure; no I/O.

use std::sync::Arc;

use uuid::Uuid;
use zone_protocol::fields;
use zone_protocol::head::{HeadError, HeadLimits, RequestError, RequestHead, parse_request};
use zone_protocol::identity::{Label, Service, printable};
use zone_protocol::park_end::ParkEnd;

/// How large a head of the proxy may be: ours have three fields.
const HEAD_LIMITS: HeadLimits = HeadLimits { bytes: 4096, fields: 16 };

/// A CONNECT: which session wants which service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRequest {
    /// The session's name in every log on its way.
    pub id: Uuid,
    /// The service as the caller wrote it.
    pub service: Service,
    /// Who calls, as the proxy tells it. A captured proxy tells what it likes: only the certificate shown end
    /// to end says who is really there.
    pub forwarded_for: Option<Label>,
    /// The proxy that it came through, as configured.
    pub proxy: Arc<str>,
}

/// Something that the proxy asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// `OPTIONS *`: to be answered, or the park counts as dead.
    Ping,
    /// `CONNECT`: this connection becomes a session, or is refused.
    Session(SessionRequest),
    /// The last `OPTIONS *`, which is not answered: the proxy lets the park go, and says why.
    End(ParkEnd),
}

/// A breach of the park protocol; the connection is dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("it sent something else than a request: {0}")]
    Head(#[from] HeadError),
    #[error("it sent '{0}', and only OPTIONS * and CONNECT belong on a park")]
    Method(String),
    #[error("its request is wrong: {0}")]
    Request(#[from] RequestError),
    #[error("it sent a CONNECT for endpoint {0}, which is not this one")]
    Misdirected(Label),
    #[error("its CONNECT carries no session id (a UUID in {})", fields::SESSION)]
    SessionId,
    #[error("it sent {0} bytes behind a CONNECT that was not answered yet")]
    Early(usize),
}

/// The proxy's side of one park, from its 101 to its CONNECT. Holds no memory between requests.
#[derive(Debug)]
pub(crate) struct RequestDecoder {
    id: Label,
    proxy: Arc<str>,
    received: Vec<u8>,
}

impl RequestDecoder {
    /// `received` is what came with the 101.
    pub(crate) fn new(id: Label, proxy: Arc<str>, received: Vec<u8>) -> Self {
        Self { id, proxy, received }
    }

    /// Takes bytes from the proxy. [`RequestDecoder::next_request`] is to be called until it has no more.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// The next thing that the proxy asks for, or `None` where its request is not complete yet.
    pub(crate) fn next_request(&mut self) -> Result<Option<Request>, Violation> {
        let Some((head, length)) = parse_request(&self.received, HEAD_LIMITS)? else { return Ok(None) };
        let behind = self.received.len() - length;
        let request = match (head.method.as_str(), head.target.as_str()) {
            ("OPTIONS", "*") => {
                head.without_body()?;
                match head.fields.get(fields::PARK_END) {
                    Some(reason) => Request::End(ParkEnd::from_field(reason)),
                    None => Request::Ping,
                }
            }
            ("CONNECT", _) if behind > 0 => return Err(Violation::Early(behind)),
            ("CONNECT", _) => Request::Session(self.session(&head)?),
            (method, target) => return Err(Violation::Method(printable(&format!("{method} {target}")))),
        };
        self.received = self.received.split_off(length);
        Ok(Some(request))
    }

    fn session(&self, head: &RequestHead) -> Result<SessionRequest, Violation> {
        let target = head.connect_target()?;
        if target.endpoint != self.id {
            return Err(Violation::Misdirected(target.endpoint));
        }
        let id = head.fields.get(fields::SESSION).and_then(|id| Uuid::parse_str(id).ok());
        Ok(SessionRequest {
            id: id.ok_or(Violation::SessionId)?,
            service: target.service,
            forwarded_for: head.fields.get("Forwarded").and_then(forwarded_for),
            proxy: Arc::clone(&self.proxy),
        })
    }
}

/// The name in `for=_name` (RFC 7239, section 6.3: an obfuscated identifier).
fn forwarded_for(field: &str) -> Option<Label> {
    field.split([',', ';']).find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        if !name.eq_ignore_ascii_case("for") {
            return None;
        }
        value.trim_matches('"').strip_prefix('_')?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: &str = "OPTIONS * HTTP/1.1\r\nHost: host-7\r\n\r\n";
    const CONNECT: &str = "CONNECT host-7:ssh HTTP/1.1\r\nHost: host-7:ssh\r\n\
        Zone-Session: 0193f5a0-0000-7000-8000-000000000001\r\nForwarded: for=_inside\r\n\r\n";

    fn decoder() -> RequestDecoder {
        RequestDecoder::new("host-7".parse().unwrap(), "proxy:17486".into(), Vec::new())
    }

    fn said(text: &str) -> Result<Option<Request>, Violation> {
        let mut decoder = decoder();
        decoder.feed(text.as_bytes());
        decoder.next_request()
    }

    #[test]
    fn a_ping_is_understood_however_it_is_cut() {
        for cut in 1..PING.len() {
            let mut decoder = decoder();
            decoder.feed(&PING.as_bytes()[..cut]);
            assert_eq!(decoder.next_request(), Ok(None), "cut at {cut}");
            decoder.feed(&PING.as_bytes()[cut..]);
            assert_eq!(decoder.next_request(), Ok(Some(Request::Ping)));
            assert_eq!(decoder.next_request(), Ok(None));
        }
    }

    #[test]
    fn the_last_request_on_a_park_says_why_it_ends() {
        let last = PING.replace("\r\n\r\n", "\r\nConnection: close\r\nZone-Park-End: evicted\r\n\r\n");
        assert_eq!(said(&last), Ok(Some(Request::End(ParkEnd::Evicted))));
        assert_eq!(said(&last.replace("evicted", "later")), Ok(Some(Request::End(ParkEnd::Other))));
    }

    #[test]
    fn a_connect_names_session_service_and_caller() {
        let Ok(Some(Request::Session(request))) = said(CONNECT) else { panic!("no session") };
        assert_eq!(request.id.to_string(), "0193f5a0-0000-7000-8000-000000000001");
        assert_eq!(request.service.to_string(), "ssh");
        assert_eq!(request.forwarded_for.unwrap().as_str(), "inside");
    }

    #[test]
    fn a_connect_right_behind_a_ping_is_a_second_request() {
        let mut decoder = decoder();
        decoder.feed(format!("{PING}{CONNECT}").as_bytes());
        assert_eq!(decoder.next_request(), Ok(Some(Request::Ping)));
        assert!(matches!(decoder.next_request(), Ok(Some(Request::Session(_)))));
    }

    #[test]
    fn an_idle_park_holds_no_buffer() {
        let mut decoder = decoder();
        decoder.feed(PING.as_bytes());
        assert_eq!(decoder.next_request(), Ok(Some(Request::Ping)));
        assert_eq!(decoder.received.capacity(), 0);
    }

    #[test]
    fn payload_before_the_answer_is_a_breach() {
        assert_eq!(said(&format!("{CONNECT}SSH-2.0-x")), Err(Violation::Early(9)));
    }

    #[test]
    fn garbage_and_other_requests_are_a_breach() {
        assert!(matches!(said("\u{1}\u{2}\u{3}"), Err(Violation::Head(_))));
        assert!(matches!(said("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), Err(Violation::Method(_))));
        assert!(matches!(
            said(&PING.replace("HTTP/1.1", "HTTP/1.0")),
            Err(Violation::Head(HeadError::Version))
        ));
        let with_body = PING.replace("\r\n\r\n", "\r\nContent-Length: 4\r\n\r\n");
        assert_eq!(said(&with_body), Err(Violation::Request(RequestError::Body)));
    }

    #[test]
    fn an_endless_head_is_cut_off_at_the_limit() {
        let endless = format!("OPTIONS * HTTP/1.1\r\nX: {}", "x".repeat(HEAD_LIMITS.bytes));
        assert_eq!(said(&endless), Err(Violation::Head(HeadError::TooLong(HEAD_LIMITS.bytes))));
    }

    #[test]
    fn a_connect_for_somebody_else_or_without_a_session_id_is_a_breach() {
        assert!(matches!(said(&CONNECT.replace("host-7", "host-8")), Err(Violation::Misdirected(_))));
        assert_eq!(said(&CONNECT.replace("0193f5a0-", "")), Err(Violation::SessionId));
    }

    #[test]
    fn a_caller_without_a_readable_name_has_none() {
        assert_eq!(forwarded_for("for=192.0.2.1"), None);
        assert_eq!(forwarded_for("by=_x;for=\"_inside\"").unwrap().as_str(), "inside");
    }
}
