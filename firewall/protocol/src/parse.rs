//! What somebody sent, as a request.

use crate::message::{MAX_LINE_BYTES, Request};

/// What was sent can't be taken for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It is no JSON, or not of a [`Request`].
    #[error("what was sent is no request")]
    NotARequest,
    /// The line has no end within its bound.
    #[error("the request is longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
    /// Nothing was sent at all.
    #[error("the connection was closed without a request")]
    Empty,
}

/// The request in what a connection has carried: its first line, or all of it where no line ended.
///
/// More bytes change nothing once there are [`MAX_LINE_BYTES`] of them, or the end of a line is among them.
///
/// ```
/// use zone_firewall_protocol::{Request, RequestError, parse_request};
///
/// assert_eq!(parse_request(b"\"verify\"\n"), Ok(Request::Verify));
/// assert_eq!(parse_request(b"GET / HTTP/1.1\r\n"), Err(RequestError::NotARequest));
/// assert_eq!(parse_request(b""), Err(RequestError::Empty));
/// ```
pub fn parse_request(received: &[u8]) -> Result<Request, RequestError> {
    let end = received.iter().position(|byte| *byte == b'\n');
    let line = &received[..end.unwrap_or(received.len())];
    if line.len() >= MAX_LINE_BYTES {
        return Err(RequestError::TooLong);
    }
    if received.is_empty() {
        return Err(RequestError::Empty);
    }
    serde_json::from_slice(line).map_err(|_| RequestError::NotARequest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_counts_whole_or_not() {
        for received in [&b"\"plan\"\n"[..], b"\"plan\"", b"\"plan\"\n\"verify\"\n", b" \"plan\" \r\n"] {
            assert_eq!(parse_request(received), Ok(Request::Plan), "{received:?}");
        }
        for received in [&b"\n"[..], b"\n\"plan\"\n", b"\"pl", b"\"plan\" x\n", b"\xff\n", b"{}\n"] {
            assert_eq!(parse_request(received), Err(RequestError::NotARequest), "{received:?}");
        }
    }

    #[test]
    fn the_bound_holds_for_the_line_with_its_end() {
        let line = |length: usize| [b"\"plan\"", &b" ".repeat(length - 6)[..]].concat();
        let with_end = |length| [&line(length - 1)[..], b"\n"].concat();
        assert_eq!(parse_request(&with_end(MAX_LINE_BYTES)), Ok(Request::Plan));
        assert_eq!(parse_request(&with_end(MAX_LINE_BYTES + 1)), Err(RequestError::TooLong));
        assert_eq!(parse_request(&line(MAX_LINE_BYTES - 1)), Ok(Request::Plan));
        assert_eq!(parse_request(&line(MAX_LINE_BYTES)), Err(RequestError::TooLong));
    }
}
