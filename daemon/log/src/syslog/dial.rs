//! Reaching a server: the addresses of its name race to the end of their handshake, on one thread.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use zone_dial::{Action, End, Event, Place, Race, look_up};

use super::connection::{Connection, Tls, Way, ended, too_late};
use super::server::{Server, SyslogError, Transport};

/// For the kernel to have a message acknowledged before it gives a connection up (tcp(7)), in milliseconds.
const UNACKNOWLEDGED_TIMEOUT_MS: u32 = 30_000;
/// Silence after which the kernel asks whether the server is still there; firewalls forget idle connections.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);

/// Reaches a server.
#[derive(Debug)]
pub(super) struct Dialer {
    server: Server,
    tls: Option<TlsClient>,
    /// How often it has dialled.
    dials: AtomicUsize,
}

type TlsClient = (Arc<ClientConfig>, ServerName<'static>);

impl Dialer {
    pub(super) fn new(server: Server) -> Result<Self, SyslogError> {
        let tls = match &server.transport {
            Transport::Udp | Transport::Tcp => None,
            Transport::Tls { ca } => {
                let name = ServerName::try_from(server.host.clone())
                    .map_err(|_| SyslogError::Name(server.host.clone()))?;
                Some((client(ca)?, name))
            }
        };
        Ok(Self { server, tls, dials: AtomicUsize::new(0) })
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// Reaches one of the server's addresses, whichever ends its handshake first.
    ///
    /// Where the transport has no handshake, nothing shows that an address which is reached takes anything: so each dial, which
    /// follows upon a failure, begins with the next address.
    pub(super) fn dial(&self) -> io::Result<Connection> {
        let begun = Instant::now();
        let mut addresses = self.look_up()?;
        let dials = self.dials.fetch_add(1, Ordering::Relaxed);
        if self.tls.is_none() && !addresses.is_empty() {
            let next = dials % addresses.len();
            addresses.rotate_left(next);
        }
        let way = match self.server.transport {
            Transport::Udp => self.route(&addresses)?,
            Transport::Tcp | Transport::Tls { .. } => self.race(addresses, begun)?,
        };
        Ok(Connection { way, write: self.server.pace.write })
    }

    /// The resolver has times of its own, which may be longer than ours.
    fn look_up(&self) -> io::Result<Vec<SocketAddr>> {
        let (told, found) = mpsc::sync_channel(1);
        let place = Place { host: self.server.host.clone(), port: self.server.port };
        // Nobody waits for what is told too late.
        look_up(&place, move |addresses| drop(told.send(addresses)));
        found.recv_timeout(self.server.pace.connect).unwrap_or_else(|error| {
            Err(match error {
                mpsc::RecvTimeoutError::Timeout => {
                    io::Error::new(io::ErrorKind::TimedOut, "looking up its name took too long")
                }
                mpsc::RecvTimeoutError::Disconnected => {
                    io::Error::other("there is no thread left to look up its name on")
                }
            })
        })
    }

    /// The first address that a way leads to.
    fn route(&self, addresses: &[SocketAddr]) -> io::Result<Way> {
        let mut last = no_address();
        for address in addresses {
            let any: IpAddr =
                if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let connected = UdpSocket::bind((any, 0)).and_then(|socket| {
                socket.connect(address)?;
                socket.set_write_timeout(Some(self.server.pace.write))?;
                Ok(socket)
            });
            match connected {
                Ok(socket) => return Ok(Way::Udp(socket)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn race(&self, addresses: Vec<SocketAddr>, begun: Instant) -> io::Result<Way> {
        let mut race = Race::new(1, self.server.pace.connect);
        let mut attempts = BTreeMap::new();
        let mut events = VecDeque::from([Event::Found(addresses)]);
        let mut last = no_address();
        loop {
            if events.is_empty() {
                events = self.wait(&mut attempts, begun + race.next_deadline(), &mut last)?;
            }
            for action in race.handle(begun.elapsed(), events.pop_front().unwrap_or(Event::Tick)) {
                match action {
                    Action::Start { attempt, address } => match Attempt::start(address) {
                        Ok(started) => drop(attempts.insert(attempt, started)),
                        Err(error) => {
                            last = error;
                            events.push_back(Event::Failed(attempt));
                        }
                    },
                    Action::Abandon(attempt) => drop(attempts.remove(&attempt)),
                    Action::End(End::Won(attempt)) => {
                        return attempts.remove(&attempt).ok_or_else(no_address)?.into_way();
                    }
                    Action::End(End::AllFailed) => return Err(last),
                    Action::End(End::TooLate) => return Err(too_late()),
                }
            }
        }
    }

    /// Waits until `by` for attempts to get on; what they did.
    fn wait(
        &self,
        attempts: &mut BTreeMap<usize, Attempt>,
        by: Instant,
        last: &mut io::Error,
    ) -> io::Result<VecDeque<Event>> {
        let left = by.saturating_duration_since(Instant::now());
        let mut waited: Vec<_> =
            attempts.values().map(|attempt| PollFd::new(&attempt.stream, attempt.awaits())).collect();
        match poll(&mut waited, Some(&Timespec::try_from(left).map_err(io::Error::other)?)) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(VecDeque::new()),
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<_> = waited.iter().map(|waited| !waited.revents().is_empty()).collect();
        let mut events = VecDeque::new();
        for (number, attempt) in attempts.iter_mut().zip(ready).filter_map(|(it, ready)| ready.then_some(it))
        {
            match attempt.advance(self.tls.as_ref()) {
                Ok(None) => {}
                Ok(Some(Step::Connected)) => events.push_back(Event::Advanced(*number)),
                Ok(Some(Step::Done)) => events.push_back(Event::Succeeded(*number)),
                Err(error) => {
                    *last = error;
                    events.push_back(Event::Failed(*number));
                }
            }
        }
        attempts.retain(|number, _| !events.contains(&Event::Failed(*number)));
        Ok(events)
    }
}

fn no_address() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the name has no address")
}

/// One address that is tried, on a socket that waits for nothing.
struct Attempt {
    stream: TcpStream,
    connected: bool,
    session: Option<ClientConnection>,
}

/// How an attempt got on.
enum Step {
    /// The TCP connection is there, and the handshake goes on.
    Connected,
    /// It is at the end of the handshake.
    Done,
}

impl Attempt {
    fn start(address: SocketAddr) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket =
            socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        match connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Self { stream: socket.into(), connected: false, session: None })
    }

    fn awaits(&self) -> PollFlags {
        match &self.session {
            Some(session) if !session.wants_write() => PollFlags::IN,
            _ => PollFlags::OUT,
        }
    }

    /// Goes on as far as it can without waiting.
    fn advance(&mut self, tls: Option<&TlsClient>) -> io::Result<Option<Step>> {
        if !self.connected {
            if let Some(error) = self.stream.take_error()? {
                return Err(error);
            }
            self.connected = true;
            self.stream.set_nodelay(true)?;
            sockopt::set_socket_keepalive(&self.stream, true)?;
            sockopt::set_tcp_keepidle(&self.stream, KEEPALIVE_INTERVAL)?;
            sockopt::set_tcp_user_timeout(&self.stream, UNACKNOWLEDGED_TIMEOUT_MS)?;
            let Some((config, name)) = tls else { return Ok(Some(Step::Done)) };
            let session =
                ClientConnection::new(Arc::clone(config), name.clone()).map_err(io::Error::other)?;
            self.session = Some(session);
            return Ok(Some(Step::Connected));
        }
        let Some(session) = &mut self.session else { return Ok(Some(Step::Done)) };
        match shake_hands(session, &mut self.stream) {
            Ok(()) => Ok(Some(Step::Done)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The connection, whose socket waits from here on.
    fn into_way(self) -> io::Result<Way> {
        self.stream.set_nonblocking(false)?;
        Ok(match self.session {
            None => Way::Tcp(self.stream),
            Some(session) => Way::Tls(Box::new(Tls { stream: self.stream, session })),
        })
    }
}

fn shake_hands(session: &mut ClientConnection, stream: &mut TcpStream) -> io::Result<()> {
    loop {
        while session.wants_write() {
            session.write_tls(stream)?;
        }
        if !session.is_handshaking() {
            return Ok(());
        }
        if session.read_tls(stream)? == 0 {
            return Err(ended());
        }
        if let Err(error) = session.process_new_packets() {
            // The alert tells the server's admin why.
            let _ = session.write_tls(stream);
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
    }
}

/// Trusts what the file names and nothing else.
fn client(ca: &Path) -> Result<Arc<ClientConfig>, SyslogError> {
    let wrong = |why: String| SyslogError::Authority { path: ca.to_owned(), why };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(ca)
        .and_then(Iterator::collect)
        .map_err(|error| wrong(format!("can't be read: {error}")))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("holds no certificate".to_owned()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
