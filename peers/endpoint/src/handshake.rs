//! Polling a TLS handshake so that its failure says what a person can act on.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;

use zone_protocol::tls::refusal::{Refusal, capture, explain_alert};

/// Why a TLS handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// This side refused the other's certificate.
    #[error("its certificate is refused: {0}")]
    Certificate(Refusal),
    /// The other side ended it, for a reason that has words.
    #[error("{0}")]
    Alert(&'static str),
    /// The connection broke, or TLS failed for another reason.
    #[error("TLS handshake failed: {0}")]
    Other(io::Error),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        alert(&error).map_or(Self::Other(error), Self::Alert)
    }
}

/// What an alert inside `error` means, if there is one that has words.
pub(crate) fn alert(error: &io::Error) -> Option<&'static str> {
    error.get_ref()?.downcast_ref::<rustls::Error>().and_then(explain_alert)
}

/// Drives `handshake`, one of tokio-rustls's fallible futures, and gives its stream back where it fails.
pub(crate) async fn shake_hands<F, T, S>(mut handshake: F) -> Result<T, (HandshakeError, S)>
where
    F: Future<Output = Result<T, (io::Error, S)>> + Unpin,
{
    poll_fn(|cx| {
        let (poll, refusal) = capture(|| Pin::new(&mut handshake).poll(cx));
        poll.map_err(|(error, stream)| {
            (refusal.map_or_else(|| HandshakeError::from(error), HandshakeError::Certificate), stream)
        })
    })
    .await
}
