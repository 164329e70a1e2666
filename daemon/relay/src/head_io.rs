//! Reading heads from a connection, bounded in bytes and time.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout, timeout_at};
use zone_protocol::head::{HeadError, HeadLimits, RequestHead, parse_request, write_response};
use zone_protocol::identity::Label;
use zone_protocol::problem::{MEDIA_TYPE, Problem};
use zone_protocol::proxy_status::{ProxyStatus, Reason};

/// TerminationReason no head was read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The other side closed cleanly between two heads.
    #[error("closed")]
    Closed,
    /// It closed in the middle of one, or without saying so.
    #[error("the connection was cut: {0}")]
    Cut(io::Error),
    /// Nothing came for as long as an idle connection is kept.
    #[error("idle for too long")]
    Idle,
    /// The head began and did not end in time.
    #[error("the request head did not end within the deadline")]
    TooSlow,
    /// It is none, or too long.
    #[error(transparent)]
    Head(#[from] HeadError),
}

/// Reads one request head. `bytes` holds what is there already and, afterwards, what came behind the head.
///
/// `idle` is how long the first byte may take, `head` how long the rest of it.
pub async fn read_request<S: AsyncRead + Unpin>(
    stream: &mut S,
    bytes: &mut Vec<u8>,
    limits: HeadLimits,
    idle: Duration,
    head: Duration,
) -> Result<RequestHead, ReadError> {
    if bytes.is_empty() {
        let read = timeout(idle, read_some(stream, bytes, limits)).await.map_err(|_| ReadError::Idle)?;
        if read.map_err(ReadError::Cut)? == 0 {
            return Err(ReadError::Closed);
        }
    }
    let deadline = Instant::now() + head;
    loop {
        if let Some((request, length)) = parse_request(bytes, limits)? {
            bytes.drain(..length);
            return Ok(request);
        }
        let read =
            timeout_at(deadline, read_some(stream, bytes, limits)).await.map_err(|_| ReadError::TooSlow)?;
        if read.map_err(ReadError::Cut)? == 0 {
            return Err(ReadError::Cut(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

/// Appends what one read brings, never reading further than a head may be long.
pub async fn read_some<S: AsyncRead + Unpin>(
    stream: &mut S,
    bytes: &mut Vec<u8>,
    limits: HeadLimits,
) -> io::Result<usize> {
    const STEP: usize = 1_024;
    let room = limits.bytes.saturating_sub(bytes.len()).clamp(1, STEP);
    bytes.reserve(room);
    stream.take(room as u64).read_buf(bytes).await
}

/// Appends what one small read brings, by way of the worker's stack: a park that waits owns no buffer.
pub async fn receive<S: AsyncRead + Unpin>(stream: &mut S, bytes: &mut Vec<u8>) -> io::Result<usize> {
    poll_fn(|cx| {
        let mut space = [0; 256];
        let mut piece = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut piece))?;
        bytes.extend_from_slice(piece.filled());
        Poll::Ready(Ok(piece.filled().len()))
    })
    .await
}

/// Answers with a refusal: `Proxy-Status`, a problem document, `Connection: close`.
///
/// The connection must be closed afterwards without reading on (RFC 9931): what came early behind a refused
/// CONNECT must never be taken for the next request.
pub async fn refuse<S: AsyncWrite + Unpin>(
    stream: &mut S,
    refusal: &Refused<'_>,
    deadline: Duration,
) -> io::Result<()> {
    let problem = Problem::new(refusal.status, refusal.reason.error(), status_words(refusal.status))
        .detail(&refusal.details);
    let body = serde_json::to_string(&problem).unwrap_or_default();
    let proxy_status =
        ProxyStatus::new(refusal.proxy, refusal.reason, refusal.received_status, &refusal.details).to_field();
    let length = body.len().to_string();
    let mut fields = vec![
        ("Content-Type", MEDIA_TYPE),
        ("Content-Length", length.as_str()),
        ("Proxy-Status", proxy_status.as_str()),
        ("Connection", "close"),
    ];
    fields.extend(&refusal.fields);
    let mut answer = write_response(refusal.status, status_words(refusal.status), &fields);
    answer.push_str(&body);
    let write = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    };
    timeout(deadline, write).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// What is said with a refusal.
#[derive(Debug)]
pub struct Refused<'a> {
    /// Who refuses.
    pub proxy: &'a Label,
    /// HTTP status; usually the reason's own.
    pub status: u16,
    /// TerminationReason.
    pub reason: Reason,
    /// What the endpoint answered, if it did.
    pub received_status: Option<u16>,
    /// Further fields.
    pub fields: Vec<(&'a str, &'a str)>,
    /// One line for a person.
    pub details: String,
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
