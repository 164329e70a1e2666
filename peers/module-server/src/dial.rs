//! TCP and TLS towards a proxy: every failure in words, every step with a deadline.

use std::error::Error as StdError;
use std::future::Future as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use zone_dial::{Failure, Place, Progress, Reached, Trouble, reach};
use zone_protocol::identity::{Identity, Role};
use zone_protocol::proof::{EXPORTER_LABEL, EXPORTER_LENGTH, Exported};
use zone_protocol::tls::certificate::Leaf;
use zone_protocol::tls::refusal::{Refusal, capture, explain_alert};

use crate::error::{Error, Result, legible};

/// How long a proxy may take to be reached: the lookup of its names, and the race of its addresses to the end of TLS.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection is silent before the kernel asks whether the other side is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// How long the kernel waits between questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Where a port of a proxy is, and how TLS is to be spoken there.
///
/// One dialer for each port of each proxy: its TLS configuration holds the tickets of that port.
#[derive(Debug, Clone)]
pub(crate) struct Dialer {
    places: Vec<Place>,
    tls: Arc<ClientConfig>,
}

/// A connection with its handshake done.
#[derive(Debug)]
pub(crate) struct Link {
    /// Ready for bytes.
    pub(crate) stream: TlsStream<TcpStream>,
    /// The address that answered.
    pub(crate) address: SocketAddr,
    /// What binds a proof to this connection.
    pub(crate) exported: Exported,
}

impl Link {
    /// Who the other side is by its certificate; `None` where that is none of this protocol. A resumed connection has that
    /// of the one before.
    pub(crate) fn identity(&self) -> Option<Identity> {
        let shown = self.stream.get_ref().1.peer_certificates()?.first()?;
        Leaf::read(shown).ok().map(|leaf| leaf.identity)
    }
}

impl Dialer {
    /// `hosts` are names or addresses of one proxy, in order of preference.
    pub(crate) fn new(hosts: Vec<String>, port: u16, tls: Arc<ClientConfig>) -> Self {
        Self { places: hosts.into_iter().map(|host| Place { host, port }).collect(), tls }
    }

    /// What is dialed, for messages, where no address has answered yet.
    pub(crate) fn peer(&self) -> String {
        self.places.first().map_or_else(|| "proxy (no address)".to_owned(), peer)
    }

    /// Connects to the address that shakes hands first; they are tried one beside the other.
    pub(crate) async fn dial(&self) -> Result<Link> {
        let raced = reach(&self.places, DIAL_TIMEOUT, |address, progress| {
            attempt(Arc::clone(&self.tls), address, progress)
        });
        let Reached { stream, address } = raced.await.map_err(|failure| self.failed(failure))?;
        let exported = stream
            .get_ref()
            .1
            .export_keying_material([0; EXPORTER_LENGTH], EXPORTER_LABEL, None)
            .map_err(|e| Error::Handshake { peer: peer(&address), why: e.to_string() })?;
        Ok(Link { stream, address, exported })
    }

    /// What a race without a winner comes to: whoever answered and was not taken says more than those that did not answer.
    fn failed(&self, failure: Failure<Error>) -> Error {
        let late = |peer, step: &str| Error::Deadline { peer, step: step.into(), after: failure.limit };
        let mut each = Vec::new();
        for (unreached, trouble) in failure.each {
            let peer = peer(&unreached);
            each.push(match trouble {
                Trouble::Lookup(error) => {
                    let why = format!("the name can't be looked up: {}", legible(&error.to_string()));
                    Error::Dial { peer, why, refused: false }
                }
                Trouble::NoAddress => {
                    Error::Dial { peer, why: "the name has no address".into(), refused: false }
                }
                Trouble::LookupLate => late(peer, "looking up its name"),
                Trouble::ConnectLate => late(peer, "connecting"),
                Trouble::HandshakeLate => late(peer, "TLS handshake"),
                Trouble::Failed(error) => error,
            });
        }
        let answered = |error: &Error| !matches!(error, Error::Dial { .. } | Error::Deadline { .. });
        if let Some(position) = each.iter().position(answered) {
            return each.swap_remove(position);
        }
        match each.pop() {
            None => Error::Dial { peer: self.peer(), why: "it has no address".into(), refused: false },
            Some(only) if each.is_empty() => only,
            Some(last) => {
                each.push(last);
                Error::NoneReached { each }
            }
        }
    }
}

/// From an address to the end of the TLS handshake there.
async fn attempt(
    tls: Arc<ClientConfig>,
    address: SocketAddr,
    progress: Progress,
) -> Result<TlsStream<TcpStream>> {
    let called = peer(&address);
    let tcp = TcpStream::connect(address).await.map_err(|error| dial_error(&called, &error))?;
    set_options(&tcp).map_err(|error| dial_error(&called, &error))?;
    progress.connected();
    handshake(&tls, ServerName::IpAddress(address.ip().into()), tcp, &called).await
}

/// What is typed in a session must not wait for more to follow, and a proxy that vanished must be noticed: a
/// session carries no pings of its own.
fn set_options(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(4);
    SockRef::from(tcp).set_tcp_keepalive(&keepalive)
}

/// A TLS handshake over any stream.
pub(crate) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    tls: &Arc<ClientConfig>,
    name: ServerName<'static>,
    stream: S,
    peer: &str,
) -> Result<TlsStream<S>> {
    let mut refusal = None;
    let mut connecting = pin!(TlsConnector::from(Arc::clone(tls)).connect(name, stream));
    let shaken = std::future::poll_fn(|context| {
        let (polled, refused) = capture(|| connecting.as_mut().poll(context));
        refusal = refused.or(refusal.take());
        polled
    });
    match timeout(HANDSHAKE_TIMEOUT, shaken).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(match refusal {
            Some(Refusal::WrongRole { identity, wanted: Role::ZoneControl })
                if identity.role == Role::ZoneProxy =>
            {
                Error::RelayIdentity { peer: peer.into(), shown: identity }
            }
            Some(Refusal::Bootstrap) => Error::Reset { peer: peer.into(), name: None },
            Some(Refusal::WrongZone { identity, .. }) => {
                Error::OtherZone { peer: peer.into(), shown: identity, name: None }
            }
            Some(refusal) => Error::NotTrusted { peer: peer.into(), why: refusal.to_string() },
            None => handshake_error(peer, &error),
        }),
        Err(_) => {
            Err(Error::Deadline { peer: peer.into(), step: "TLS handshake".into(), after: HANDSHAKE_TIMEOUT })
        }
    }
}

fn handshake_error(peer: &str, error: &io::Error) -> Error {
    use rustls::CertificateError::ApplicationVerificationFailure;
    let peer = peer.to_owned();
    match tls_cause(error) {
        Some(rustls::Error::InvalidCertificate(ApplicationVerificationFailure)) => Error::NotPinned { peer },
        Some(rustls::Error::InvalidCertificate(why)) => Error::NotTrusted { peer, why: why.to_string() },
        _ => Error::Handshake { peer, why: explain(error) },
    }
}

fn dial_error(peer: &str, error: &io::Error) -> Error {
    let refused = error.kind() == io::ErrorKind::ConnectionRefused;
    let why =
        if refused { "nothing listens there (connection refused)".to_owned() } else { error.to_string() };
    Error::Dial { peer: peer.to_owned(), why, refused }
}

/// What a transport error means, in one line: an alert in words, an end without close_notify as such.
pub(crate) fn explain(error: &(dyn StdError + 'static)) -> String {
    if let Some(words) = tls_cause(error).and_then(explain_alert) {
        return words.to_owned();
    }
    match io_kind(error) {
        Some(io::ErrorKind::UnexpectedEof) => "the other side closed the connection in the middle".into(),
        Some(io::ErrorKind::ConnectionReset) => "the other side reset the connection".into(),
        _ => innermost(error),
    }
}

/// Whether it is an alert that says that our certificate, or what we offer, is not accepted.
pub(crate) fn is_alert_about_us(error: &(dyn StdError + 'static)) -> bool {
    tls_cause(error).and_then(explain_alert).is_some()
}

/// The TLS error behind a chain of others.
fn tls_cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    causes(error).find_map(|cause| {
        let wrapped = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause.downcast_ref().or_else(|| wrapped?.downcast_ref())
    })
}

fn io_kind(error: &(dyn StdError + 'static)) -> Option<io::ErrorKind> {
    causes(error).find_map(|cause| cause.downcast_ref::<io::Error>().map(io::Error::kind))
}

fn innermost(error: &(dyn StdError + 'static)) -> String {
    causes(error).last().map_or_else(String::new, |cause| legible(&cause.to_string()))
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

/// How a proxy is called in messages.
pub(crate) fn peer(address: &impl ToString) -> String {
    format!("proxy {}", address.to_string())
}

/// `host:port`, an IPv6 address in brackets.
pub fn join_host_port(host: &str, port: u16) -> String {
    match host.parse::<IpAddr>() {
        Ok(address) => SocketAddr::new(address, port).to_string(),
        Err(_) => format!("{host}:{port}"),
    }
}
