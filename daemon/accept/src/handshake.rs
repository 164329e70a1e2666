//! The TLS handshake of an accepted connection, with its deadline and the words for its failure.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use zone_protocol::tls::refusal::{Refusal, capture};

use crate::unauthenticated::Unauthenticated;

/// Why a connection got no further than its handshake.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The certificate is not accepted here.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The handshake did not finish in time.
    #[error("the handshake did not finish within the deadline")]
    TooSlow,
    /// The peer closed, or reset, before the end.
    #[error("it closed the connection during the handshake")]
    Closed,
    /// The peer's TLS is not ours.
    #[error("TLS: {0}")]
    Tls(rustls::Error),
    /// The connection failed.
    #[error("{0}")]
    Io(io::Error),
}

impl HandshakeError {
    /// A short word for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.label(),
            Self::TooSlow => "handshake_timeout",
            Self::Closed => "handshake_closed",
            Self::Tls(_) => "tls",
            Self::Io(_) => "io",
        }
    }
}

/// How many handshakes may be at work at the same time. The others wait in line here and not among the tasks that are ready to
/// run: so somebody's keystroke waits for a few of their steps and not for hundreds.
#[derive(Debug)]
pub struct HandshakeTurns(Arc<Semaphore>);

impl HandshakeTurns {
    /// So many at a time: one for each thread that does the work.
    pub fn new(at_a_time: usize) -> Self {
        Self(Arc::new(Semaphore::new(at_a_time.max(1))))
    }

    fn wait(&self) -> Pin<Box<impl Future<Output = Option<OwnedSemaphorePermit>> + use<>>> {
        let turns = Arc::clone(&self.0);
        // It is never closed.
        Box::pin(async move { turns.acquire_owned().await.ok() })
    }
}

/// Accepts until the deadline, which the caller sets when it accepts the connection, so that what comes before the handshake
/// is within it too. `buffer_limit` is how many bytes of ciphertext rustls may hold for this connection while the socket does
/// not take them; `None` leaves rustls' own limit.
pub async fn handshake(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    deadline: Instant,
    buffer_limit: Option<usize>,
    turns: &HandshakeTurns,
    unauthenticated: &Unauthenticated,
) -> Result<TlsStream<TcpStream>, HandshakeError> {
    let mut refusal = None;
    let accepting = TlsAcceptor::from(config).accept_with(stream, |tls| {
        if buffer_limit.is_some() {
            tls.set_buffer_limit(buffer_limit);
        }
    });
    let result = {
        let mut accepting = pin!(accepting);
        let mut turn = turns.wait();
        let accepted = std::future::poll_fn(|cx| {
            let Poll::Ready(_permit) = turn.as_mut().poll(cx) else {
                unauthenticated.waits_for_us(true);
                return Poll::Pending;
            };
            unauthenticated.waits_for_us(false);
            turn = turns.wait();
            let (poll, captured) = capture(|| accepting.as_mut().poll(cx));
            refusal = captured.or(refusal.take());
            poll
        });
        timeout_at(deadline, accepted).await
    };
    match (result, refusal) {
        (Ok(Ok(stream)), _) => Ok(stream),
        (_, Some(refusal)) => Err(refusal.into()),
        (Ok(Err(error)), None) => Err(explain(error)),
        (Err(_), None) => Err(HandshakeError::TooSlow),
    }
}

fn explain(error: io::Error) -> HandshakeError {
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return HandshakeError::Tls(tls.clone());
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            HandshakeError::Closed
        }
        _ => HandshakeError::Io(error),
    }
}
