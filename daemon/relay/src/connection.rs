//! A connection past its TLS handshake.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

/// A connection past its handshake. Boxed, because it is handed on from task to task, and a future holds room for
/// each hand that a value goes through.
pub(crate) type Connection = Box<TlsStream<TcpStream>>;

/// Bytes of ciphertext that rustls may hold for one connection while the socket does not take them.
pub(crate) const MAX_TLS_BUFFER_BYTES: usize = 32 * 1024;

/// For a `close_notify` to be taken by a peer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Writes a whole text and flushes it.
pub(crate) async fn write(stream: &mut Connection, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes()).await?;
    stream.flush().await
}

/// The same within a time.
pub(crate) async fn write_in_time(stream: &mut Connection, text: &str, deadline: Duration) -> io::Result<()> {
    timeout(deadline, write(stream, text)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Closes cleanly, with `close_notify`, unless the peer does not take it.
pub(crate) async fn close(stream: &mut Connection) {
    // The peer may be gone; the connection is closed either way.
    let _ = timeout(CLOSE_TIMEOUT, stream.shutdown()).await;
}
