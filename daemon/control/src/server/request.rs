//! A request to 17488 as it comes off the connection: its head, and its body once somebody wants it.
//!
//! Heads are read as on the relay's ports, by [`zone_protocol::head`]: there is one opinion of what a request is.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zone_protocol::head::{HeadError, HeadLimits, RequestError, RequestHead, parse_request};

/// Bytes that are read at once.
const MAX_READ_BYTES: usize = 16 * 1_024;
/// Said to a client that waits for it before it sends its body (RFC 9110, section 10.1.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Why there is no next request.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The client has closed the connection between two requests.
    #[error("closed")]
    Closed,
    /// The connection ended in the middle of a request, or without saying so.
    #[error("the connection was cut: {0}")]
    Cut(#[from] io::Error),
    /// What came is no head that is accepted here.
    #[error(transparent)]
    Head(#[from] HeadError),
}

/// Why a request whose head is well-formed is refused before anybody looks at what it asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FramingError {
    /// There is no Host field, or more than one.
    #[error(transparent)]
    Host(RequestError),
    /// Two readers of such a body can differ in where it ends (RFC 9112, section 6.1).
    #[error("a body here has a Content-Length: leave out Transfer-Encoding")]
    TransferEncoding,
    /// Not one whole number of bytes.
    #[error("Content-Length must be there once at most, and be a whole number of bytes")]
    ContentLength,
}

/// How long the body of a request is, by its head; 0 where it has none.
pub(super) fn body_length(head: &RequestHead) -> Result<u64, FramingError> {
    head.host().map_err(FramingError::Host)?;
    if head.fields.get("Transfer-Encoding").is_some() {
        return Err(FramingError::TransferEncoding);
    }
    let mut lengths = head.fields.all("Content-Length");
    match (lengths.next(), lengths.next()) {
        (None, _) => Ok(0),
        (Some(length), None) if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) => {
            // What is no number of 64 bits is beyond every limit.
            Ok(length.parse().unwrap_or(u64::MAX))
        }
        _ => Err(FramingError::ContentLength),
    }
}

/// A connection that brings requests, one after the other.
#[derive(Debug)]
pub(super) struct Requests<S> {
    stream: S,
    /// What has come behind the last head.
    bytes: Vec<u8>,
    /// Bytes of the body of the last request that have not been taken.
    unread: u64,
    /// Whether the client waits to be told that it may send that body.
    is_held_back: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Requests<S> {
    /// On a connection whose handshake is done.
    pub(super) fn new(stream: S) -> Self {
        Self { stream, bytes: Vec::new(), unread: 0, is_held_back: false }
    }

    /// Waits for the next head. The body before it must have been taken.
    pub(super) async fn next_head(&mut self, limits: HeadLimits) -> Result<RequestHead, ReadError> {
        debug_assert_eq!(self.unread, 0, "the last body would be taken for a head");
        let mut is_worth_a_look = !self.bytes.is_empty();
        loop {
            // A head that comes byte by byte is not looked at byte by byte.
            if is_worth_a_look && let Some((head, length)) = parse_request(&self.bytes, limits)? {
                self.bytes.drain(..length);
                return Ok(head);
            }
            let before = self.bytes.len();
            // Never further than a head may be long: what comes early waits in the kernel.
            let room = limits.bytes.saturating_sub(before).clamp(1, MAX_READ_BYTES);
            self.bytes.reserve(room);
            match (&mut self.stream).take(room as u64).read_buf(&mut self.bytes).await? {
                0 if before == 0 => return Err(ReadError::Closed),
                0 => return Err(ReadError::Cut(io::ErrorKind::UnexpectedEof.into())),
                _ => {}
            }
            let is_full = self.bytes.len() >= limits.bytes;
            is_worth_a_look = before == 0 || is_full || self.bytes[before..].contains(&b'\n');
        }
    }

    /// Notes that a body of this length follows, and whether the client waits for a word before it sends it.
    pub(super) fn expect_body(&mut self, head: &RequestHead, length: u64) {
        self.unread = length;
        self.is_held_back = length > 0 && head.fields.lists("Expect", "100-continue");
    }

    /// Whether there is a body that nobody has taken: it can't be told from a next request.
    pub(super) fn has_unread_body(&self) -> bool {
        self.unread > 0
    }

    /// Takes the body, all of it.
    pub(super) async fn body(&mut self) -> io::Result<Vec<u8>> {
        let early = self.bytes.len().min(usize::try_from(self.unread).unwrap_or(usize::MAX));
        let mut body: Vec<u8> = self.bytes.drain(..early).collect();
        self.unread -= early as u64;
        if self.unread > 0 && std::mem::take(&mut self.is_held_back) {
            self.send(CONTINUE).await?;
        }
        while self.unread > 0 {
            let room = self.unread.min(MAX_READ_BYTES as u64);
            body.reserve(usize::try_from(room).unwrap_or(MAX_READ_BYTES));
            match (&mut self.stream).take(room).read_buf(&mut body).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => self.unread -= read as u64,
            }
        }
        Ok(body)
    }

    /// Sends an answer, or the like.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// The connection, for its end.
    pub(super) fn into_stream(self) -> S {
        self.stream
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::ReadBuf;

    use super::*;

    /// Bytes that come in pieces, and then the end; what is said to them is kept.
    #[derive(Debug)]
    struct Pieces {
        left: Vec<Vec<u8>>,
        said: Vec<u8>,
    }

    impl Pieces {
        /// Of these bytes, cut at these places.
        fn of(bytes: &[u8], cuts: &[usize]) -> Self {
            let ends = cuts.iter().copied().chain([bytes.len()]);
            let starts = [0].into_iter().chain(cuts.iter().copied());
            let pieces = starts.zip(ends).map(|(start, end)| bytes[start..end].to_vec());
            let mut left: Vec<_> = pieces.filter(|piece| !piece.is_empty()).collect();
            left.reverse();
            Self { left, said: Vec::new() }
        }
    }

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            space: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if let Some(mut piece) = self.left.pop() {
                let rest = piece.split_off(piece.len().min(space.remaining()));
                space.put_slice(&piece);
                if !rest.is_empty() {
                    self.left.push(rest);
                }
            }
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Pieces {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.said.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// What a connection comes to.
    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Seen {
        Request { target: String, body: Vec<u8> },
        Refused,
        Cut,
        Closed,
    }

    /// As 17488 reads: a refusal is the end.
    async fn read(pieces: Pieces) -> Vec<Seen> {
        let (mut requests, mut seen) = (Requests::new(pieces), Vec::new());
        loop {
            let head = match requests.next_head(HeadLimits { bytes: 400, fields: 8 }).await {
                Ok(head) => head,
                Err(ReadError::Closed) => break seen.push(Seen::Closed),
                Err(ReadError::Cut(_)) => break seen.push(Seen::Cut),
                Err(ReadError::Head(_)) => break seen.push(Seen::Refused),
            };
            let Ok(length) = body_length(&head) else { break seen.push(Seen::Refused) };
            requests.expect_body(&head, length);
            match requests.body().await {
                Ok(body) => seen.push(Seen::Request { target: head.target, body }),
                Err(_) => break seen.push(Seen::Cut),
            }
        }
        seen
    }

    /// A number below `below`, from a seed that it moves on.
    fn draw(seed: &mut u64, below: usize) -> usize {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        usize::try_from(*seed % below as u64).unwrap()
    }

    /// Bytes of a connection, and what they come to: known because of how they are made.
    fn connection(seed: &mut u64) -> (Vec<u8>, Vec<Seen>) {
        let (mut bytes, mut seen) = (Vec::new(), Vec::new());
        for number in 0..draw(seed, 4) {
            let text = b"\r\n\r\nGET / HTTP/1.1\r\n\n";
            let body = text[..draw(seed, text.len() + 1)].to_vec();
            let (target, length) = (format!("/{number}"), body.len());
            let head = |fields: &str| format!("PUT {target} HTTP/1.1\r\n{fields}\r\n").into_bytes();
            let sized = head(&format!("Host: a\r\nContent-Length: {length}\r\n"));
            let wrong = match draw(seed, 24) {
                0 => head("Host: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n"),
                1 => head("Host: a\r\nContent-Length: 1, 1\r\n"),
                2 => head("Host: a\r\nContent-Length: +1\r\n"),
                3 => head("Host: a\r\nContent-Length:\r\n"),
                4 => head("Host: a\r\nTransfer-Encoding: chunked\r\n"),
                5 => head("Host: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
                6 => head("Content-Length: 1\r\n"),
                7 => head("Host: a\r\nHost: a\r\n"),
                8 => head("Host: a\nX: b\r\n"),
                9 => head("Host: a\r\nX: b\rc\r\n"),
                10 => head("Host : a\r\n"),
                11 => head("Host: a\r\n folded\r\n"),
                12 => head(&format!("Host: a\r\nX: {}\r\n", "x".repeat(400))),
                13 => head(&format!("Host: a\r\n{}", "X: y\r\n".repeat(8))),
                14 => format!("GET {target} HTTP/1.0\r\nHost: a\r\n\r\n").into_bytes(),
                15 => format!("GET {target} HTTP/1.1\nHost: a\r\n\r\n").into_bytes(),
                16 => format!("GET {target} HTTP/1.1\r\nHost: a\r\n\n").into_bytes(),
                17 => b"\x16\x03\x01\x02\x00".to_vec(),
                18 => {
                    // One that ends too early.
                    let whole = [sized, body].concat();
                    bytes.extend_from_slice(&whole[..=draw(seed, whole.len() - 1)]);
                    seen.push(Seen::Cut);
                    return (bytes, seen);
                }
                _ => {
                    bytes.extend(sized);
                    bytes.extend_from_slice(&body);
                    seen.push(Seen::Request { target, body });
                    continue;
                }
            };
            bytes.extend(wrong);
            seen.push(Seen::Refused);
            // What follows a refusal is nobody's request.
            bytes.extend_from_slice(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
            return (bytes, seen);
        }
        seen.push(Seen::Closed);
        (bytes, seen)
    }

    #[tokio::test]
    async fn a_connection_comes_to_the_same_however_its_bytes_are_cut() {
        let mut seed = 0x9e37_79b9_7f4a_7c15;
        let mut kinds = [0; 4];
        for round in 0..2_000 {
            let (bytes, expected) = connection(&mut seed);
            let of_kind = match expected.last() {
                Some(Seen::Refused) => 0,
                Some(Seen::Cut) => 1,
                Some(Seen::Closed) if expected.len() > 1 => 2,
                _ => 3,
            };
            kinds[of_kind] += 1;
            let told = |cuts: &[usize]| format!("round {round}, {cuts:?}: {}", bytes.escape_ascii());
            assert_eq!(read(Pieces::of(&bytes, &[])).await, expected, "{}", told(&[]));
            let each: Vec<_> = (1..bytes.len()).collect();
            assert_eq!(read(Pieces::of(&bytes, &each)).await, expected, "{}", told(&each));
            if round < 200 {
                for cut in 1..bytes.len() {
                    assert_eq!(read(Pieces::of(&bytes, &[cut])).await, expected, "{}", told(&[cut]));
                }
            }
            let mut some: Vec<_> =
                (0..draw(&mut seed, 6)).map(|_| draw(&mut seed, bytes.len() + 1)).collect();
            some.sort_unstable();
            assert_eq!(read(Pieces::of(&bytes, &some)).await, expected, "{}", told(&some));
        }
        assert!(kinds.iter().all(|count| *count > 50), "every kind of end was there: {kinds:?}");
    }

    #[tokio::test]
    async fn a_body_that_waits_for_a_word_is_asked_for_once_it_is_wanted() {
        let head = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-Continue\r\n\r\n";
        let mut requests = Requests::new(Pieces::of(&[head, &b"{}"[..]].concat(), &[head.len()]));
        let read = requests.next_head(HeadLimits::default()).await.unwrap();
        requests.expect_body(&read, body_length(&read).unwrap());
        assert!(requests.has_unread_body() && requests.stream.said.is_empty());
        assert_eq!(requests.body().await.unwrap(), b"{}");
        assert_eq!(requests.stream.said, CONTINUE);
        assert!(!requests.has_unread_body());
    }

    #[test]
    fn a_length_of_more_than_64_bits_is_beyond_every_limit() {
        let text = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", "9".repeat(40));
        let (head, _) = parse_request(text.as_bytes(), HeadLimits::default()).unwrap().unwrap();
        assert_eq!(body_length(&head), Ok(u64::MAX));
    }
}
