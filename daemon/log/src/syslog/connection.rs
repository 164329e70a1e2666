//! A server at the other end: written to within a deadline, and watched for its end.

use std::io::{self, Read, Write as _};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};
use rustls::ClientConnection;

/// What a server says is read and forgotten; after so many reads at a time it is left for later.
const MAX_READS_AT_ONCE: usize = 16;

/// A way to a server.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) way: Way,
    /// How long one message may take to be handed to the kernel, before the connection counts as broken.
    pub(super) write: Duration,
}

#[derive(Debug)]
pub(super) enum Way {
    /// Connected, so that the kernel tells where nobody takes the datagrams.
    Udp(UdpSocket),
    Tcp(TcpStream),
    Tls(Box<Tls>),
}

/// A session whose handshake is done.
#[derive(Debug)]
pub(super) struct Tls {
    pub(super) stream: TcpStream,
    pub(super) session: ClientConnection,
}

impl Connection {
    /// Hands one message to the kernel. Afterwards nobody knows what becomes of it: syslog has no acknowledgement.
    pub(super) fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let deadline = Instant::now() + self.write;
        match &mut self.way {
            Way::Udp(socket) => socket.send(message).map(drop),
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
            Way::Udp(_) => {}
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

pub(super) fn too_late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the server took too long")
}

pub(super) fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the server ended the connection")
}
