//! A session: the byte stream to a service of an endpoint.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::io::fcntl_dupfd_cloexec;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use zone_protocol::identity::{Label, Role};
use zone_protocol::tls::config;
use zone_protocol::tls::policy::Versions;
use zone_protocol::tls::verifier::Expectation;

use crate::dial::{explain, handshake, is_alert_about_us};
use crate::error::{Error, Result};
use crate::zone::Credentials;

pub use crate::end_to_end::EndToEnd;

/// An open session. Each direction ends by itself: shutting it down sends close_notify and leaves the other
/// direction open; reading 0 bytes is the other side's close_notify, and an end without one is an error.
#[derive(Debug)]
pub struct Session {
    id: String,
    peer: String,
    policy: EndToEnd,
    reset: ResetWatch,
    stream: Box<dyn Duplex>,
}

trait Duplex: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin> Duplex for S {}

type Outer = Early<TlsStream<TcpStream>>;

impl Session {
    pub(crate) fn plain(id: String, peer: String, stream: Outer) -> Self {
        let reset = ResetWatch::of(&stream);
        Self { id, peer, policy: EndToEnd::Off, reset, stream: Box::new(stream) }
    }

    /// Runs TLS inside, towards the endpoint that was called and nobody else.
    pub(crate) async fn end_to_end(
        id: String,
        peer: String,
        stream: Outer,
        endpoint: &Label,
        own: &Credentials,
    ) -> Result<Self> {
        let called = Some(endpoint.clone());
        let versions = Versions::EndToEnd;
        let expected =
            Expectation::new(own.zone.clone(), Role::Endpoint, called, &own.endpoint_anchors, versions)?;
        let tls = config::client(expected, Some((&own.certificate, &own.key)), versions)?;
        // The verifier goes by identity, and no name is sent: this one only has to be there.
        let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
        let reset = ResetWatch::of(&stream);
        let inner = handshake(&tls, name, stream, &format!("endpoint {endpoint} through {peer}")).await?;
        Ok(Self { id, peer, policy: EndToEnd::Required, reset, stream: Box::new(inner) })
    }

    /// The id that both legs and the proxy's log carry.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The proxy that it goes through, for messages.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    pub(crate) fn reset_watch(&self) -> ResetWatch {
        self.reset.clone()
    }

    /// Whether the proxy can read it.
    pub fn policy(&self) -> EndToEnd {
        self.policy
    }
}

/// Notices that a connection was reset while nobody reads from it: after the other side's close_notify, reading
/// tells nothing more, and a direction with nothing to send would wait for ever.
#[derive(Debug, Clone, Default)]
pub(crate) struct ResetWatch(Option<Arc<TcpStream>>);

impl ResetWatch {
    fn of(stream: &Outer) -> Self {
        let duplicate = fcntl_dupfd_cloexec(stream.stream.get_ref().0, 0);
        // Without a descriptor to spare, the reset is noticed at the next write.
        let watched = duplicate.ok().and_then(|fd| TcpStream::from_std(fd.into()).ok());
        Self(watched.map(Arc::new))
    }

    /// Done when the connection was reset.
    pub(crate) async fn reset(&self) -> io::Error {
        match &self.0 {
            Some(socket) => match socket.ready(Interest::ERROR).await {
                Ok(_) => io::ErrorKind::ConnectionReset.into(),
                Err(error) => error,
            },
            None => std::future::pending().await,
        }
    }
}

/// What an I/O error of a session means. In TLS 1.3 an endpoint refuses our certificate only after our side of
/// the handshake is done: then its alert is the first thing that is read.
pub(crate) fn cut_off(peer: &str, policy: EndToEnd, error: &io::Error) -> Error {
    let (peer, why) = (peer.to_owned(), explain(error));
    if policy == EndToEnd::Required && is_alert_about_us(error) {
        return Error::Handshake { peer: format!("endpoint through {peer}"), why };
    }
    Error::Truncated { peer, why }
}

impl AsyncRead for Session {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Session {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A stream of which some bytes were read already, behind the head.
#[derive(Debug)]
pub(crate) struct Early<S> {
    bytes: Vec<u8>,
    given: usize,
    stream: S,
}

impl<S> Early<S> {
    pub(crate) fn new(bytes: Vec<u8>, stream: S) -> Self {
        Self { bytes, given: 0, stream }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Early<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let left = &this.bytes[this.given..];
        if left.is_empty() {
            return Pin::new(&mut this.stream).poll_read(context, buffer);
        }
        let length = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..length]);
        this.given += length;
        if this.given == this.bytes.len() {
            (this.bytes, this.given) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Early<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was written must be on its way before the direction is closed behind it.
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
