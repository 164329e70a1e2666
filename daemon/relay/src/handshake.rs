//! The TLS handshake of an accepted connection, with its deadline and the words for its failure.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustls::ServerConfig;
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use zone_protocol::tls::TlsError;
use zone_protocol::tls::certificate::{Leaf, NameHash, issuers};
use zone_protocol::tls::refusal::{Refusal, capture};
use zone_protocol::tls::verifier::Admission;

/// A connection past its handshake. Boxed, because it is handed on from task to task, and a future holds room for
/// each hand that a value goes through.
pub type Connection = Box<TlsStream<TcpStream>>;

/// How much ciphertext rustls may hold for one connection while the socket does not take it.
pub const TLS_BUFFER: usize = 16 * 1024;

/// Why a connection got no further than its handshake.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// Its certificate is not accepted here.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It did not finish in time.
    #[error("the handshake did not finish within the deadline")]
    TooSlow,
    /// It closed, or reset, before the end.
    #[error("it closed the connection during the handshake")]
    Closed,
    /// Its TLS is not ours.
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

/// Accepts within the deadline.
pub async fn accept(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    deadline: Duration,
) -> Result<Connection, HandshakeError> {
    let mut refusal = None;
    let accepting =
        TlsAcceptor::from(config).accept_with(stream, |tls| tls.set_buffer_limit(Some(TLS_BUFFER)));
    let result = {
        let mut accepting = pin!(accepting);
        timeout(
            deadline,
            std::future::poll_fn(|cx| {
                let (poll, captured) = capture(|| accepting.as_mut().poll(cx));
                refusal = captured.or(refusal.take());
                if poll.is_ready() { poll } else { Poll::Pending }
            }),
        )
        .await
    };
    match (result, refusal) {
        (Ok(Ok(stream)), _) => Ok(Box::new(stream)),
        (_, Some(refusal)) => Err(refusal.into()),
        (Ok(Err(error)), None) => Err(explain(error)),
        (Err(_), None) => Err(HandshakeError::TooSlow),
    }
}

/// Who a connection showed itself to be, in its handshake or in the one that it resumed, and who vouches for that.
pub fn peer(stream: &Connection) -> Result<(Leaf, Box<[NameHash]>), HandshakeError> {
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let Some(der) = chain.first() else {
        return Err(Refusal::Unreadable("no client certificate was shown".into()).into());
    };
    let unreadable = |error: TlsError| Refusal::Unreadable(error.to_string());
    Ok((Leaf::read(der).map_err(unreadable)?, issuers(chain).map_err(unreadable)?))
}

/// Looks at role, zone, time and deny-list once more: a resumed connection never ran the verifier.
pub fn authorise(leaf: &Leaf, admission: &Admission) -> Result<(), HandshakeError> {
    Ok(admission.still_admits(leaf, OffsetDateTime::now_utc())?)
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
