//! Sessions joined to a local TCP target, byte by byte.

use std::borrow::Cow;
use std::io;
use std::os::fd::AsFd as _;
use std::pin::{Pin, pin};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::warn;
use zone_dial::{Place, Reached, Trouble, Unreached, reach};

use crate::requests::SessionRequest;
use crate::service::{Decline, Serve, ServeFuture, Service};
use crate::stream::SessionStream;

/// The size of the buffer that each direction of a session has.
const BUFFER_BYTES: usize = 16 * 1024;

/// Longer than a target may ever take: whoever opens a service has a deadline of its own, which is shorter.
const MAX_CONNECT_TIME: Duration = Duration::from_secs(3600);

/// When one direction can't deliver any more, the other may still deliver what is under way for this long.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The two sides, as errors name them.
const SESSION: &str = "the session";
const SERVICE: &str = "the service";

/// A TCP server that this host can reach.
#[derive(Debug)]
pub struct LocalTcp {
    target: Arc<str>,
}

impl LocalTcp {
    /// The server at `target`, a `host:port`.
    pub fn new(target: &str) -> Arc<Self> {
        Arc::new(Self { target: target.into() })
    }

    async fn connect(&self) -> Result<TcpStream, Unreachable> {
        let place = Place::parse(&self.target).ok_or(Unreachable::NAME)?;
        let raced = reach(slice::from_ref(&place), MAX_CONNECT_TIME, |address, _| async move {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            Ok::<_, io::Error>(tcp)
        });
        let failure = match raced.await {
            Ok(Reached { stream, .. }) => return Ok(stream),
            Err(failure) => failure,
        };
        let each = failure.each.into_iter().map(|(what, trouble)| Unreachable::new(&what, trouble));
        Err(each.max_by_key(|failed| failed.tells).unwrap_or(Unreachable::NAME))
    }
}

impl Service for LocalTcp {
    fn open<'a>(&'a self, request: &'a SessionRequest) -> ServeFuture<'a, Result<Serve, Decline>> {
        Box::pin(async move {
            let tcp = self.connect().await.map_err(|Unreachable { decline, why, .. }| {
                warn!(session = %request.id, target = %self.target, "the service can't be reached: {why}");
                decline
            })?;
            let local = ResetOnDrop { tcp, ended_well: false };
            let serve: Serve = Box::new(move |session| Box::pin(join(session, local)));
            Ok(serve)
        })
    }
}

/// Why a target can't be reached, in the words that the caller and the log get.
struct Unreachable {
    decline: Decline,
    why: Cow<'static, str>,
    /// Of several addresses, the reason that tells most is given: whoever answered is at least there.
    tells: u8,
}

impl Unreachable {
    const NAME: Self =
        Self { decline: Decline::TARGET_UNKNOWN, why: Cow::Borrowed("its name has no address"), tells: 0 };

    fn new(what: &Unreached, trouble: Trouble<io::Error>) -> Self {
        let error = match trouble {
            Trouble::Lookup(error) => {
                let why = format!("the name {what} can't be looked up: {error}").into();
                return Self { why, ..Self::NAME };
            }
            Trouble::NoAddress => return Self::NAME,
            Trouble::LookupLate | Trouble::ConnectLate | Trouble::HandshakeLate => {
                io::ErrorKind::TimedOut.into()
            }
            Trouble::Failed(error) => error,
        };
        let (decline, tells) = match error.kind() {
            io::ErrorKind::ConnectionRefused => (Decline::TARGET_REFUSED, 4),
            io::ErrorKind::PermissionDenied => (Decline::TARGET_FORBIDDEN, 3),
            io::ErrorKind::TimedOut => (Decline::TARGET_TIMED_OUT, 2),
            _ => (Decline::TARGET_UNREACHABLE, 1),
        };
        Self { decline, why: format!("{what}: {error}").into(), tells }
    }
}

/// Joins a session to a TCP connection. Each direction ends by itself: close_notify becomes FIN and the other
/// way round. A direction that breaks off becomes a reset or a missing close_notify, after what came before.
async fn join(mut session: SessionStream, mut local: ResetOnDrop) -> io::Result<()> {
    let broken = copy_both_ways(&mut session, &mut local.tcp).await;
    match broken {
        None => {
            local.ended_well = true;
            session.finish().await
        }
        Some(error) => {
            let reset = async {
                wait_until_sent(&local.tcp).await;
                drop(local);
            };
            tokio::join!(reset, session.abort());
            Err(error)
        }
    }
}

/// How one direction ended.
enum Ended {
    /// With an orderly end, which was passed on.
    InOrder,
    /// What it reads from broke off.
    Source(io::Error),
    /// What it writes to takes no more.
    Sink(io::Error),
}

/// Copies until both directions have ended; gives the first thing that broke, if anything did.
async fn copy_both_ways(session: &mut SessionStream, local: &mut TcpStream) -> Option<io::Error> {
    let broken = AtomicBool::new(false);
    let (session_read, session_write) = tokio::io::split(session);
    let (local_read, local_write) = local.split();
    let mut inward = pin!(copy((session_read, SESSION), (local_write, SERVICE), &broken));
    let mut outward = pin!(copy((local_read, SERVICE), (session_write, SESSION), &broken));
    let (first, other): (Ended, Pin<&mut (dyn Future<Output = Ended> + Send)>) = tokio::select! {
        ended = &mut inward => (ended, outward),
        ended = &mut outward => (ended, inward),
    };
    match first {
        Ended::InOrder => match other.await {
            Ended::InOrder => None,
            Ended::Source(error) | Ended::Sink(error) => Some(error),
        },
        Ended::Source(error) => Some(error),
        Ended::Sink(error) => {
            let _ = timeout(DRAIN_TIMEOUT, other).await;
            Some(error)
        }
    }
}

async fn copy(
    (mut from, source): (impl AsyncRead + Unpin, &str),
    (mut to, sink): (impl AsyncWrite + Unpin, &str),
    broken: &AtomicBool,
) -> Ended {
    let mut buffer = vec![0; BUFFER_BYTES];
    let refused = |error| {
        broken.store(true, Ordering::Relaxed);
        Ended::Sink(named(sink, &error))
    };
    loop {
        match from.read(&mut buffer).await {
            Ok(0) => break,
            Ok(read) => {
                if let Err(error) = write(&mut to, &buffer[..read]).await {
                    return refused(error);
                }
            }
            Err(error) => return Ended::Source(named(source, &error)),
        }
    }
    // The kernel reports a reset once. If the other direction met it, what looks like an orderly end is none.
    if broken.load(Ordering::Relaxed) {
        return Ended::Source(named(source, &io::ErrorKind::ConnectionReset.into()));
    }
    match to.shutdown().await {
        Ok(()) => Ended::InOrder,
        Err(error) => refused(error),
    }
}

async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

fn named(what: &str, error: &io::Error) -> io::Error {
    let why = match error.kind() {
        io::ErrorKind::UnexpectedEof => "it ended without close_notify".to_owned(),
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), format!("{what} broke off: {why}"))
}

/// A connection that is reset when it is dropped, unless it ended well before: a session that is cut, for
/// whatever reason, must not look complete to the service.
struct ResetOnDrop {
    tcp: TcpStream,
    ended_well: bool,
}

impl Drop for ResetOnDrop {
    fn drop(&mut self) {
        if !self.ended_well {
            // On a connection that is gone already there is nothing to reset.
            let _ = self.tcp.set_zero_linger();
        }
    }
}

/// Waits until the kernel has sent all that was written, because a reset discards what it still holds.
async fn wait_until_sent(tcp: &TcpStream) {
    let wait = async {
        // Writable then means: nothing is left unsent.
        SockRef::from(tcp).set_tcp_notsent_lowat(1)?;
        // A second handle, because the runtime still knows the first one as writable from before.
        let second = std::net::TcpStream::from(tcp.as_fd().try_clone_to_owned()?);
        TcpStream::from_std(second)?.writable().await
    };
    let _ = timeout(DRAIN_TIMEOUT, wait).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_target_is_not_reached_is_told_apart() {
        let what = Unreached::Address("192.0.2.1:80".parse().unwrap());
        let told = |trouble| Unreachable::new(&what, trouble).decline;
        let failed = |kind: io::ErrorKind| told(Trouble::Failed(kind.into()));
        assert_eq!(failed(io::ErrorKind::ConnectionRefused), Decline::TARGET_REFUSED);
        assert_eq!(failed(io::ErrorKind::PermissionDenied), Decline::TARGET_FORBIDDEN);
        assert_eq!(failed(io::ErrorKind::NetworkUnreachable), Decline::TARGET_UNREACHABLE);
        assert_eq!(failed(io::ErrorKind::TimedOut), Decline::TARGET_TIMED_OUT);
        assert_eq!(told(Trouble::ConnectLate), Decline::TARGET_TIMED_OUT);
        assert_eq!(told(Trouble::NoAddress), Decline::TARGET_UNKNOWN);
        assert_eq!(told(Trouble::Lookup(io::ErrorKind::Other.into())), Decline::TARGET_UNKNOWN);
    }

    #[tokio::test]
    async fn of_several_addresses_the_one_that_says_most_is_told_of() {
        // Nobody listens at the loopback addresses of this name.
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = closed.local_addr().unwrap().port();
        drop(closed);
        let failed = LocalTcp::new(&format!("localhost:{port}")).connect().await.err().unwrap();
        assert_eq!(failed.decline, Decline::TARGET_REFUSED, "{}", failed.why);
    }
}
