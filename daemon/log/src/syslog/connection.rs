//! A server at the other end: reached within a deadline, written to within a deadline, watched for its end.

use std::io::{self, Read, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv, sockopt};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::server::{Server, SyslogError, Transport};

/// For the kernel to have a message acknowledged before it gives a connection up (tcp(7)), in milliseconds.
const UNACKNOWLEDGED_TIMEOUT_MS: u32 = 30_000;
/// Silence after which the kernel asks whether the server is still there; firewalls forget idle connections.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);
/// What a server says is read and forgotten; after so many reads at a time it is left for later.
const MAX_READS_AT_ONCE: usize = 16;

/// Reaches a server.
#[derive(Debug)]
pub(super) struct Dialer {
    server: Server,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// A way to a server.
#[derive(Debug)]
pub(super) struct Connection {
    way: Way,
    write: Duration,
}

#[derive(Debug)]
enum Way {
    Udp { socket: UdpSocket, to: SocketAddr },
    Tcp(TcpStream),
    Tls(Box<Tls>),
}

#[derive(Debug)]
struct Tls {
    stream: TcpStream,
    session: ClientConnection,
}

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
        Ok(Self { server, tls })
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// Tries the server's addresses one after the other.
    pub(super) fn dial(&self) -> io::Result<Connection> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let addresses = (self.server.host.as_str(), self.server.port).to_socket_addrs()?;
        let deadline = Instant::now() + self.server.pace.connect;
        for address in addresses {
            match self.reach(address, deadline) {
                Ok(way) => return Ok(Connection { way, write: self.server.pace.write }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn reach(&self, address: SocketAddr, deadline: Instant) -> io::Result<Way> {
        if self.server.transport == Transport::Udp {
            let any: IpAddr =
                if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let socket = UdpSocket::bind((any, 0))?;
            socket.set_write_timeout(Some(self.server.pace.write))?;
            return Ok(Way::Udp { socket, to: address });
        }
        let stream = TcpStream::connect_timeout(&address, left(deadline)?)?;
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, KEEPALIVE_INTERVAL)?;
        sockopt::set_tcp_user_timeout(&stream, UNACKNOWLEDGED_TIMEOUT_MS)?;
        match &self.tls {
            None => Ok(Way::Tcp(stream)),
            Some((config, name)) => {
                let session =
                    ClientConnection::new(Arc::clone(config), name.clone()).map_err(io::Error::other)?;
                let mut tls = Tls { stream, session };
                tls.shake_hands(deadline)?;
                Ok(Way::Tls(Box::new(tls)))
            }
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

impl Connection {
    /// Hands one message to the kernel. Afterwards nobody knows what becomes of it: syslog has no acknowledgement.
    pub(super) fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let deadline = Instant::now() + self.write;
        match &mut self.way {
            Way::Udp { socket, to } => socket.send_to(message, *to).map(drop),
            Way::Tcp(stream) => {
                listen(stream)?;
                write_by(stream, &framed(message), deadline)
            }
            Way::Tls(tls) => {
                tls.listen()?;
                tls.write_by(&framed(message), deadline)
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        match &mut self.way {
            Way::Udp { .. } => {}
            // Half a close: what was sent arrives before the end, and the rest is the kernel's.
            Way::Tcp(stream) => drop(stream.shutdown(Shutdown::Write)),
            Way::Tls(tls) => {
                tls.session.send_close_notify();
                // A server that does not take it gets an end of file.
                let _ = tls.stream.set_write_timeout(Some(Duration::from_millis(100)));
                let _ = tls.session.write_tls(&mut tls.stream);
                let _ = tls.stream.shutdown(Shutdown::Write);
            }
        }
    }
}

impl Tls {
    fn shake_hands(&mut self, deadline: Instant) -> io::Result<()> {
        while self.session.is_handshaking() {
            self.write_out(deadline)?;
            if self.session.is_handshaking() && self.session.wants_read() {
                self.stream.set_read_timeout(Some(left(deadline)?))?;
                if self.session.read_tls(&mut self.stream).map_err(late)? == 0 {
                    return Err(ended());
                }
                self.take_in(deadline)?;
            }
        }
        self.write_out(deadline)
    }

    /// Tickets and alerts are taken in; what a server says beside them is forgotten.
    fn listen(&mut self) -> io::Result<()> {
        for _ in 0..MAX_READS_AT_ONCE {
            match self.session.read_tls(&mut WithoutWaiting(&self.stream)) {
                Ok(0) => return Err(ended()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            let state = self.session.process_new_packets().map_err(io::Error::other)?;
            let mut said = vec![0; state.plaintext_bytes_to_read()];
            self.session.reader().read_exact(&mut said)?;
            if state.peer_has_closed() {
                return Err(ended());
            }
        }
        Ok(())
    }

    fn take_in(&mut self, deadline: Instant) -> io::Result<()> {
        if let Err(error) = self.session.process_new_packets() {
            // The alert tells the server's admin why.
            let _ = self.write_out(deadline);
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(())
    }

    fn write_by(&mut self, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            let taken = self.session.writer().write(bytes)?;
            bytes = &bytes[taken..];
            self.write_out(deadline)?;
        }
        Ok(())
    }

    fn write_out(&mut self, deadline: Instant) -> io::Result<()> {
        while self.session.wants_write() {
            self.stream.set_write_timeout(Some(left(deadline)?))?;
            self.session.write_tls(&mut self.stream).map_err(late)?;
        }
        Ok(())
    }
}

/// Reads what is there, and does not wait for more.
struct WithoutWaiting<'a>(&'a TcpStream);

impl Read for WithoutWaiting<'_> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        Ok(recv(self.0, space, RecvFlags::DONTWAIT)?.0)
    }
}

/// Fails if the server has ended the connection; the next write would vanish.
fn listen(stream: &TcpStream) -> io::Result<()> {
    let mut said = [0; 512];
    for _ in 0..MAX_READS_AT_ONCE {
        match WithoutWaiting(stream).read(&mut said) {
            Ok(0) => return Err(ended()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn write_by(mut stream: &TcpStream, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(deadline)?))?;
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(late(error)),
        }
    }
    Ok(())
}

/// A frame: the number of octets, a space, and the message (RFC 6587 section 3.4.1, RFC 5425 section 4.3).
fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = format!("{} ", message.len()).into_bytes();
    frame.extend_from_slice(message);
    frame
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(too_late()) } else { Ok(left) }
}

/// A timeout of a socket reads as "would block".
fn late(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { too_late() } else { error }
}

fn too_late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the server took too long")
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the server ended the connection")
}
