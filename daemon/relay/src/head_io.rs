//! Reading heads from a connection, bounded in bytes and time.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::time::{Instant, timeout, timeout_at};
use zone_protocol::head::{HeadError, HeadLimits, RequestHead, parse_request};

/// Why no head was read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
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
pub(crate) async fn read_request<S: AsyncRead + Unpin>(
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
async fn read_some<S: AsyncRead + Unpin>(
    stream: &mut S,
    bytes: &mut Vec<u8>,
    limits: HeadLimits,
) -> io::Result<usize> {
    const MAX_READ_BYTES: usize = 1_024;
    let room = limits.bytes.saturating_sub(bytes.len()).clamp(1, MAX_READ_BYTES);
    bytes.reserve(room);
    stream.take(room as u64).read_buf(bytes).await
}

/// Appends what one small read brings, by way of the worker's stack: a park that waits owns no buffer.
pub(crate) async fn receive<S: AsyncRead + Unpin>(stream: &mut S, bytes: &mut Vec<u8>) -> io::Result<usize> {
    poll_fn(|cx| {
        let mut space = [0; 256];
        let mut piece = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut piece))?;
        bytes.extend_from_slice(piece.filled());
        Poll::Ready(Ok(piece.filled().len()))
    })
    .await
}
