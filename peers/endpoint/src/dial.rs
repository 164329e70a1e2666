//! From nothing to a parked connection: TCP, TLS, the park request and its 101.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use zone_dial::{Failure, Place, Progress, Reached, Trouble, Unreached, reach};
use zone_protocol::features::PARK_END;
use zone_protocol::head::{HeadLimits, ResponseHead, parse_response, write_request};
use zone_protocol::identity::printable;
use zone_protocol::instance::Instance;
use zone_protocol::proxy_status::ProxyStatus;
use zone_protocol::{PARK_UPGRADE, fields};

use crate::handshake::{HandshakeError, alert, shake_hands};
use crate::stream::ProxyTls;

/// The head of the proxy's answer may be this large; a refusal explains itself in it.
const HEAD_LIMITS: HeadLimits = HeadLimits { bytes: 4096, fields: 32 };

/// Where a name may have further addresses, one that ended the handshake has this part of the time that is left for its answer.
const ASK_SHARE: u32 = 2;

/// Addresses of a name that are told apart where none could be parked at.
const MAX_SHOWN_ADDRESSES: usize = 4;

/// A session carries no pings of its own: these let the kernel find out that the proxy is gone. It asks after
/// this much silence.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// Time between two questions of the kernel.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// So many questions without an answer end the connection.
const KEEPALIVE_PROBES: u32 = 4;

/// Why a proxy could not be parked at.
#[derive(Debug, thiserror::Error)]
#[error("proxy {proxy}: {cause}")]
pub struct DialError {
    /// The proxy, as configured.
    pub proxy: Arc<str>,
    /// What went wrong.
    pub cause: DialCause,
}

/// The step of a dial that failed, and how.
#[derive(Debug, thiserror::Error)]
pub enum DialCause {
    /// The name could not be looked up.
    #[error("its name can't be resolved: {0}")]
    Resolve(io::Error),
    /// DNS knows no address.
    #[error("its name has no address")]
    NoAddress,
    /// No TCP connection came about.
    #[error("no TCP connection to {address}: {source}")]
    Connect {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The TLS handshake failed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The connection ended while the answer was awaited.
    #[error("the connection ended before it answered the park request: {0}")]
    Broken(io::Error),
    /// The proxy said no.
    #[error("it refuses the park: {status} {reason}")]
    Refused {
        /// The HTTP status of its answer.
        status: u16,
        /// The proxy's words.
        reason: String,
    },
    /// The proxy speaks something else.
    #[error("its answer is not that of a zone proxy: {0}")]
    Answer(String),
    /// A step took too long.
    #[error("{step} took longer than {} s", .limit.as_secs_f32())]
    Late {
        /// The step that was not done in time.
        step: &'static str,
        /// The time that it had.
        limit: Duration,
    },
    /// The name has several addresses, and none could be parked at.
    #[error("none of its {} addresses could be parked at: {}", .0.len(), Each(.0))]
    Addresses(Vec<(SocketAddr, DialCause)>),
}

/// The first few addresses, each with what went wrong.
struct Each<'a>(&'a [(SocketAddr, DialCause)]);

impl fmt::Display for Each<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (address, cause)) in self.0.iter().take(MAX_SHOWN_ADDRESSES).enumerate() {
            let before = if n == 0 { "" } else { "; " };
            write!(f, "{before}{address}: {cause}")?;
        }
        if self.0.len() > MAX_SHOWN_ADDRESSES { f.write_str("; ...") } else { Ok(()) }
    }
}

/// A parked connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) proxy: Arc<str>,
    pub(crate) local: SocketAddr,
    pub(crate) tls: Box<ProxyTls>,
    /// How many parks the proxy keeps of this endpoint, where it says so.
    pub(crate) keeps: Option<u32>,
    /// What came right behind the 101.
    pub(crate) received: Vec<u8>,
}

/// Dials proxies for one endpoint.
pub(crate) struct Dialer {
    pub(crate) source: Option<IpAddr>,
    pub(crate) instance: Instance,
    /// For everything from the name to the 101.
    pub(crate) limit: Duration,
}

impl Dialer {
    /// Parks one connection at `proxy`, a `host:port`.
    pub(crate) async fn park(
        &self,
        proxy: &Arc<str>,
        tls: Arc<ClientConfig>,
    ) -> Result<Connection, DialError> {
        self.try_park(proxy, tls).await.map_err(|cause| DialError { proxy: Arc::clone(proxy), cause })
    }

    async fn try_park(&self, proxy: &Arc<str>, tls: Arc<ClientConfig>) -> Result<Connection, DialCause> {
        let no_place = || DialCause::Resolve(io::Error::other("it is not of the form host:port"));
        let place = Place::parse(proxy).ok_or_else(no_place)?;
        let deadline = Instant::now() + self.limit;
        // Those that came to the end of the handshake and took no park; the next race goes without them.
        let mut declined = BTreeMap::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let raced = reach(slice::from_ref(&place), left, |address, progress| {
                let (passed, source, tls) = (declined.contains_key(&address), self.source, Arc::clone(&tls));
                async move {
                    if passed {
                        Err(None)
                    } else {
                        attempt(address, source, tls, progress).await.map_err(Some)
                    }
                }
            });
            let Reached { stream: mut tls, address } = match raced.await {
                Ok(reached) => reached,
                Err(failure) => return Err(self.failed(failure, declined)),
            };
            let local = tls.get_ref().0.local_addr().map_err(DialCause::Broken)?;
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = if place.address().is_some() { left } else { left / ASK_SHARE };
            let cause = match timeout(limit, self.ask(&mut tls, proxy)).await {
                Ok(Ok((keeps, received))) => {
                    return Ok(Connection { proxy: Arc::clone(proxy), local, tls, keeps, received });
                }
                Ok(Err(cause)) => cause,
                Err(_) => DialCause::Late { step: "its answer to the park request", limit },
            };
            if place.address().is_some() {
                return Err(cause);
            }
            declined.insert(address, cause);
        }
    }

    /// What a race without a winner comes to; `declined` has the reasons of those that were passed over.
    fn failed(
        &self,
        failure: Failure<Option<DialCause>>,
        mut declined: BTreeMap<SocketAddr, DialCause>,
    ) -> DialCause {
        let late = |step| DialCause::Late { step, limit: self.limit };
        let mut addresses = BTreeMap::new();
        for (unreached, trouble) in failure.each {
            let cause = match trouble {
                Trouble::Lookup(error) => DialCause::Resolve(error),
                Trouble::NoAddress => DialCause::NoAddress,
                Trouble::LookupLate => late("looking up its name"),
                Trouble::ConnectLate => late("the TCP connection"),
                Trouble::HandshakeLate => late("the TLS handshake"),
                Trouble::Failed(Some(cause)) => cause,
                Trouble::Failed(None) => continue,
            };
            match unreached {
                Unreached::Name(_) => return cause,
                Unreached::Address(address) => drop(addresses.insert(address, cause)),
            }
        }
        addresses.append(&mut declined);
        let mut addresses: Vec<_> = addresses.into_iter().collect();
        match addresses.pop() {
            None => DialCause::NoAddress,
            Some((_, cause)) if addresses.is_empty() => cause,
            Some(last) => {
                addresses.push(last);
                DialCause::Addresses(addresses)
            }
        }
    }

    /// Sends the park request and reads the 101: how many parks the proxy keeps, and its first words, which follow the head.
    async fn ask(&self, tls: &mut ProxyTls, proxy: &str) -> Result<(Option<u32>, Vec<u8>), DialCause> {
        let request = write_request(
            "GET",
            "/v1/park",
            &[
                ("Host", proxy),
                ("Connection", "Upgrade"),
                ("Upgrade", PARK_UPGRADE),
                (fields::INSTANCE, &self.instance.to_string()),
                (fields::FEATURES, PARK_END),
            ],
        );
        tls.write_all(request.as_bytes()).await.map_err(broken)?;
        tls.flush().await.map_err(broken)?;
        let mut received = Vec::new();
        loop {
            let parsed =
                parse_response(&received, HEAD_LIMITS).map_err(|e| DialCause::Answer(e.to_string()))?;
            if let Some((head, length)) = parsed {
                upgraded(&head)?;
                let keeps = head.fields.get(fields::PARKS).and_then(|keeps| keeps.parse().ok());
                return Ok((keeps, received.split_off(length)));
            }
            if tls.read_buf(&mut received).await.map_err(broken)? == 0 {
                return Err(DialCause::Broken(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

/// From an address to the end of the TLS handshake there.
async fn attempt(
    address: SocketAddr,
    source: Option<IpAddr>,
    tls: Arc<ClientConfig>,
    progress: Progress,
) -> Result<Box<ProxyTls>, DialCause> {
    let tcp = connect(address, source).await.map_err(|source| DialCause::Connect { address, source })?;
    progress.connected();
    // The verifier knows proxies by role and zone; the name only finds the tickets of this address.
    let name = ServerName::IpAddress(address.ip().into());
    let handshake = TlsConnector::from(tls).connect(name, tcp).into_fallible();
    Ok(Box::new(shake_hands(handshake).await.map_err(|(error, _)| error)?))
}

async fn connect(address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let tcp = socket.connect(address).await?;
    tcp.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    SockRef::from(&tcp).set_tcp_keepalive(&keepalive)?;
    Ok(tcp)
}

fn broken(error: io::Error) -> DialCause {
    match alert(&error) {
        Some(words) => HandshakeError::Alert(words).into(),
        None => DialCause::Broken(error),
    }
}

/// Whether a head is the 101 that was asked for.
fn upgraded(head: &ResponseHead) -> Result<(), DialCause> {
    if head.status != 101 {
        let details = head
            .fields
            .get("Proxy-Status")
            .and_then(ProxyStatus::from_field)
            .and_then(|status| status.details)
            .map(|details| format!(" ({})", printable(&details)))
            .unwrap_or_default();
        let reason = format!("{}{details}", printable(&head.reason));
        return Err(DialCause::Refused { status: head.status, reason });
    }
    if !head.fields.lists("Connection", "Upgrade") || !head.fields.lists("Upgrade", PARK_UPGRADE) {
        return Err(DialCause::Answer(format!("a 101 that does not upgrade to {PARK_UPGRADE}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(text: &str) -> Result<(), String> {
        let (head, _) = parse_response(text.as_bytes(), HEAD_LIMITS).unwrap().unwrap();
        upgraded(&head).map_err(|cause| DialError { proxy: "p:1".into(), cause }.to_string())
    }

    #[test]
    fn only_a_101_to_this_protocol_is_a_park() {
        let good = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ptth/1\r\n\r\n";
        assert_eq!(judged(good), Ok(()));
        assert!(judged(&good.replace("ptth/1", "websocket")).unwrap_err().contains("ptth/1"));
        assert!(judged(&good.replace("Connection", "X")).is_err());
    }

    #[test]
    fn a_refusal_says_which_proxy_refused_and_why() {
        let text = "HTTP/1.1 503 Service Unavailable\r\n\
            Proxy-Status: p1; error=destination_unavailable; details=\"draining\"\r\n\r\n";
        let words = "proxy p:1: it refuses the park: 503 Service Unavailable (draining)";
        assert_eq!(judged(text).unwrap_err(), words);
    }
}
