//! The bytes of one session, with or without a second layer of TLS.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{client, server};

/// How long a connection that is over is kept for the other side to read the last bytes. Closing a socket with
/// unread bytes in it would reset it and destroy what is still on its way.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// The connection to the proxy.
pub(crate) type ProxyTls = client::TlsStream<TcpStream>;

/// A session as its service sees it.
///
/// Each direction ends by itself. Reading gives 0 bytes where the Module Server has ended its direction in an
/// orderly way, and an error of kind `UnexpectedEof` where the session was cut. Shutting the stream down ends
/// the other direction; dropping it without that tells the Module Server that the session was cut.
#[derive(Debug)]
pub struct SessionStream {
    layers: Layers,
    meter: Arc<Meter>,
}

#[derive(Debug)]
enum Layers {
    Plain(Box<ProxyTls>),
    EndToEnd(Box<server::TlsStream<Box<ProxyTls>>>),
}

/// Payload bytes of a session.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
}

impl SessionStream {
    pub(crate) fn plain(tls: Box<ProxyTls>, meter: Arc<Meter>) -> Self {
        Self { layers: Layers::Plain(tls), meter }
    }

    pub(crate) fn end_to_end(tls: server::TlsStream<Box<ProxyTls>>, meter: Arc<Meter>) -> Self {
        Self { layers: Layers::EndToEnd(Box::new(tls)), meter }
    }

    /// Ends a session whose directions both ended well: everything sent still arrives. A service that reads
    /// to the end and shuts down should end with this.
    pub async fn finish(mut self) -> io::Result<()> {
        self.shutdown().await?;
        // The outer close_notify that follows the inner one must be read, see DRAIN_TIMEOUT.
        drain(self.proxy_tls()).await;
        Ok(())
    }

    /// Cuts a session: what was written before still arrives, and then the other side sees a truncation.
    pub async fn abort(mut self) {
        let tcp = self.proxy_tls().get_mut().0;
        // On a connection that is broken already there is nothing left to say.
        if tcp.shutdown().await.is_ok() {
            drain(tcp).await;
        }
    }

    fn proxy_tls(&mut self) -> &mut ProxyTls {
        match &mut self.layers {
            Layers::Plain(tls) => tls,
            Layers::EndToEnd(tls) => tls.get_mut().0,
        }
    }
}

/// Reads and forgets what still comes, for [`DRAIN_TIMEOUT`] at most.
pub(crate) async fn drain(stream: &mut (impl AsyncRead + Unpin)) {
    let mut forgotten = vec![0; 512];
    let _ = timeout(DRAIN_TIMEOUT, async { while let Ok(1..) = stream.read(&mut forgotten).await {} }).await;
}

impl AsyncRead for SessionStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(match &mut self.layers {
            Layers::Plain(tls) => Pin::new(tls).poll_read(cx, buf),
            Layers::EndToEnd(tls) => Pin::new(tls).poll_read(cx, buf),
        })?;
        self.meter.received.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SessionStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(match &mut self.layers {
            Layers::Plain(tls) => Pin::new(tls).poll_write(cx, bytes),
            Layers::EndToEnd(tls) => Pin::new(tls).poll_write(cx, bytes),
        })?;
        self.meter.sent.fetch_add(written as u64, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.layers {
            Layers::Plain(tls) => Pin::new(tls).poll_flush(cx),
            Layers::EndToEnd(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.layers {
            Layers::Plain(tls) => Pin::new(tls).poll_shutdown(cx),
            Layers::EndToEnd(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
