//! Copies the bytes of a session, both ways, until both ways have ended.
//!
//! Each direction ends by itself: a `close_notify` of one side becomes a `close_notify` and FIN towards the
//! other, while the opposite direction goes on. A connection that ends without `close_notify` was truncated;
//! what came before is delivered, then both sides are reset. A session owns no buffer while its peers keep up:
//! bytes are read into the worker's `records::Scratch` and written from there. What the other side does not take at
//! once waits with its connection, encrypted as far as that may hold it, and nothing more is read until it is gone.

mod records;

use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep, sleep_until};

use self::records::{READ_BYTES, Scratch};
use crate::connection::Connection;
use crate::metrics::Metrics;

/// Bytes that a session reads in one direction in a turn, before others have theirs.
pub const TURN_BYTES: usize = 64 * 1024;
const READS_IN_A_TURN: usize = TURN_BYTES / READ_BYTES;

/// For what was written before a reset to be acknowledged.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(5);

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Both directions ended with `close_notify`.
    Finished,
    /// No payload for the idle time.
    Idle,
    /// The caller's side was cut.
    CallerCut,
    /// The endpoint's side was cut.
    EndpointCut,
}

impl Outcome {
    /// A short word for logs and metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Idle => "idle",
            Self::CallerCut => "caller_cut",
            Self::EndpointCut => "endpoint_cut",
        }
    }
}

/// What a session moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Bytes from the caller to the endpoint.
    pub(crate) from_caller: u64,
    /// Bytes from the endpoint to the caller.
    pub(crate) from_endpoint: u64,
}

/// Both connections of a session and what is on its way between them.
#[derive(Debug)]
pub(crate) struct BidirectionalCopy<'a> {
    caller: Connection,
    endpoint: Connection,
    outward: Direction,
    inward: Direction,
    idle: Duration,
    active: Instant,
    timer: Pin<Box<Sleep>>,
    metrics: &'a Metrics,
}

impl<'a> BidirectionalCopy<'a> {
    /// A session over two connections, with the bytes that were read from them early.
    pub(crate) fn new(
        caller: Connection,
        from_caller: Vec<u8>,
        endpoint: Connection,
        from_endpoint: Vec<u8>,
        idle: Duration,
        metrics: &'a Metrics,
    ) -> Self {
        let active = Instant::now();
        Self {
            caller,
            endpoint,
            outward: Direction::new(from_caller, metrics),
            inward: Direction::new(from_endpoint, metrics),
            idle,
            active,
            timer: Box::pin(sleep_until(active + idle)),
            metrics,
        }
    }

    /// Moves bytes until the end. Can be cancelled, and [`BidirectionalCopy::abort`] called after it.
    pub(crate) async fn run(&mut self) -> Outcome {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    /// What was moved so far.
    pub(crate) fn moved(&self) -> Moved {
        Moved { from_caller: self.outward.moved, from_endpoint: self.inward.moved }
    }

    /// What cut it, if it was cut: one line for a person.
    pub(crate) fn cause(&self) -> Option<&'static str> {
        self.outward.cause.or(self.inward.cause).map(|kind| match kind {
            ErrorKind::UnexpectedEof => {
                "the connection was closed without close_notify, as by a balancer that lost patience"
            }
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => "the connection was reset",
            ErrorKind::BrokenPipe => "the connection was closed while bytes were on their way",
            ErrorKind::TimedOut => "the other side acknowledges nothing any more",
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "the other side can't be reached",
            ErrorKind::InvalidData => "what came is no TLS of this connection",
            _ => "the connection failed",
        })
    }

    /// Resets both sides: neither may take this for a proper end.
    pub(crate) fn abort(&self) {
        reset(&self.caller);
        reset(&self.endpoint);
    }

    /// Resets both sides once the side that was not cut has got everything.
    pub(crate) async fn abort_delivered(&self, outcome: Outcome) {
        let whole = if outcome == Outcome::CallerCut { &self.endpoint } else { &self.caller };
        let deadline = Instant::now() + DELIVERY_TIMEOUT;
        let socket = whole.get_ref().0;
        while Instant::now() < deadline && zone_sys::unsent_bytes(socket).is_ok_and(|n| n > 0) {
            // The kernel does not tell when a queue is empty; this runs for cut sessions only, and not for long.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.abort();
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let before = self.moved();
        let outward = self.outward.poll(cx, &mut self.caller, &mut self.endpoint, self.metrics);
        let inward = self.inward.poll(cx, &mut self.endpoint, &mut self.caller, self.metrics);
        if self.moved() != before {
            self.active = Instant::now();
        }
        match (outward, inward) {
            (Poll::Ready(Err(Cut::Reader)), _) | (_, Poll::Ready(Err(Cut::Writer))) => {
                return Poll::Ready(Outcome::CallerCut);
            }
            (_, Poll::Ready(Err(Cut::Reader))) | (Poll::Ready(Err(Cut::Writer)), _) => {
                return Poll::Ready(Outcome::EndpointCut);
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(Outcome::Finished),
            _ => {}
        }
        // The timer is moved only when it fires: payload must not cost a timer update each time.
        while self.timer.as_mut().poll(cx).is_ready() {
            let due = self.active + self.idle;
            if due <= Instant::now() {
                return Poll::Ready(Outcome::Idle);
            }
            self.timer.as_mut().reset(due);
        }
        Poll::Pending
    }
}

/// Which side of a direction was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Reader,
    Writer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Moving,
    /// The reader has ended; the writer is being told.
    Ending,
    /// The reader was cut; what came before is still being written.
    Cut,
    Ended,
}

/// One direction.
#[derive(Debug)]
struct Direction {
    /// What the writer did not take at once, from `start` on.
    kept: Box<[u8]>,
    start: usize,
    /// Of what was written, the bytes that wait with the connection; the socket may have taken some of them.
    unsent: usize,
    stage: Stage,
    moved: u64,
    /// The error of the read or write that cut this direction; `None` where its end came in order.
    cause: Option<ErrorKind>,
}

impl Direction {
    fn new(early: Vec<u8>, metrics: &Metrics) -> Self {
        metrics.buffered.inc_by(signed(early.len()));
        Self {
            moved: early.len() as u64,
            kept: early.into_boxed_slice(),
            start: 0,
            unsent: 0,
            stage: Stage::Moving,
            cause: None,
        }
    }

    fn cut(&mut self, error: &io::Error, who: Cut) -> Cut {
        self.cause = Some(error.kind());
        who
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut Connection,
        writer: &mut Connection,
        metrics: &Metrics,
    ) -> Poll<Result<(), Cut>> {
        for _ in 0..READS_IN_A_TURN {
            ready!(self.poll_kept(cx, writer))?;
            ready!(self.poll_unsent(cx, writer, metrics))?;
            match self.stage {
                Stage::Moving => ready!(self.poll_chunk(cx, reader, writer, metrics))?,
                Stage::Ending => {
                    ready!(Pin::new(&mut *writer).poll_shutdown(cx))
                        .map_err(|error| self.cut(&error, Cut::Writer))?;
                    self.stage = Stage::Ended;
                }
                Stage::Cut => return Poll::Ready(Err(Cut::Reader)),
                Stage::Ended => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what is kept until nothing is.
    fn poll_kept(&mut self, cx: &mut Context<'_>, writer: &mut Connection) -> Poll<Result<(), Cut>> {
        while self.start < self.kept.len() {
            let n = ready!(Pin::new(&mut *writer).poll_write(cx, &self.kept[self.start..]))
                .map_err(|error| self.cut(&error, Cut::Writer))?;
            self.start += n;
            self.unsent += n;
        }
        if !self.kept.is_empty() {
            self.kept = Box::default();
            self.start = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Waits until the socket has taken what was written. Nothing is read before, so that what the session holds does not
    /// grow.
    fn poll_unsent(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut Connection,
        metrics: &Metrics,
    ) -> Poll<Result<(), Cut>> {
        if self.unsent > 0 {
            ready!(Pin::new(writer).poll_flush(cx)).map_err(|error| self.cut(&error, Cut::Writer))?;
            metrics.buffered.dec_by(signed(self.unsent));
            self.unsent = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once, into the worker's scratch, and writes from there.
    fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut Connection,
        writer: &mut Connection,
        metrics: &Metrics,
    ) -> Poll<Result<(), Cut>> {
        Scratch::with(|scratch| {
            let chunk = ready!(scratch.poll_read(cx, reader));
            self.moved += chunk.bytes as u64;
            let result = self.write(cx, writer, scratch.payload(&chunk), metrics);
            match chunk.end {
                None => {}
                Some(Ok(())) => self.stage = Stage::Ending,
                Some(Err(error)) => {
                    self.cause = Some(error.kind());
                    self.stage = Stage::Cut;
                }
            }
            Poll::Ready(result)
        })
    }

    /// Writes a chunk. What the socket does not take of it waits encrypted, as far as the connection may hold it, and the
    /// rest is kept here: that rest and the record that is not complete yet are one record together at most.
    fn write(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut Connection,
        chunk: &[u8],
        metrics: &Metrics,
    ) -> Result<(), Cut> {
        let mut rest = chunk;
        while !rest.is_empty() {
            match Pin::new(&mut *writer).poll_write(cx, rest) {
                Poll::Ready(Ok(n)) => rest = &rest[n..],
                Poll::Ready(Err(error)) => return Err(self.cut(&error, Cut::Writer)),
                Poll::Pending => {
                    self.kept = rest.into();
                    self.start = 0;
                    break;
                }
            }
        }
        if writer.get_ref().1.wants_write() {
            self.unsent = chunk.len() - rest.len();
        }
        metrics.buffered.inc_by(signed(self.held()));
        Ok(())
    }

    /// Bytes of payload that the writer has not taken yet.
    fn held(&self) -> usize {
        self.unsent + self.kept.len() - self.start
    }
}

impl Drop for BidirectionalCopy<'_> {
    fn drop(&mut self) {
        for direction in [&self.outward, &self.inward] {
            self.metrics.buffered.dec_by(signed(direction.held()));
        }
    }
}

/// Makes the close of a connection a reset (SO_LINGER 0, socket(7)).
fn reset(leg: &Connection) {
    // Without it the close is a FIN, which without close_notify still reads as a truncation.
    let _ = leg.get_ref().0.set_zero_linger();
}

fn signed(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod turns;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_direction_owns_no_buffer() {
        let metrics = Metrics::new();
        let direction = Direction::new(Vec::new(), &metrics);
        assert_eq!(direction.kept.len(), 0);
        assert!(size_of::<Direction>() <= 64, "{}", size_of::<Direction>());
    }

    #[test]
    fn a_session_is_little_more_than_its_two_connections() {
        assert!(size_of::<BidirectionalCopy<'_>>() <= 256, "{}", size_of::<BidirectionalCopy<'_>>());
    }
}
