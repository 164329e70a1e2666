//! Listening sockets of the relay ports.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::sockopt::socket_acceptconn;
use socket2::{Domain, Protocol, Socket, Type};
use zone_channel::ListenerInfo;

/// Connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 1_024;
/// What the kernel takes of a connection's bytes beyond those that are on their way (`TCP_NOTSENT_LOWAT`, tcp(7)): a reader that
/// stalls holds no more, and what a long line needs in flight is not limited by it.
const MAX_UNSENT_BYTES: u32 = 64 * 1024;

/// A port can't be had.
#[derive(Debug, thiserror::Error)]
#[error("{address}: {source}")]
pub(crate) struct BindError {
    /// The address that was tried.
    pub(crate) address: SocketAddr,
    /// The kernel's answer.
    pub(crate) source: io::Error,
}

/// A bound socket that control and a relay share.
#[derive(Debug)]
pub(crate) struct Listener {
    info: ListenerInfo,
    socket: Socket,
}

impl Listener {
    /// Binds, and does not listen yet: connections are refused until [`Listener::listen`].
    pub(crate) fn bind(info: ListenerInfo) -> Result<Self, BindError> {
        let bind = || {
            let socket = Socket::new(
                Domain::for_address(info.address),
                Type::STREAM.nonblocking(),
                Some(Protocol::TCP),
            )?;
            socket.set_reuse_address(true)?;
            if info.address.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            // What is accepted has it too.
            socket.set_tcp_notsent_lowat(MAX_UNSENT_BYTES)?;
            socket.bind(&info.address.into())?;
            Ok(Self { info, socket })
        };
        bind().map_err(|source| BindError { address: info.address, source })
    }

    /// Takes back a socket that a relay held. `None` where it is not bound to what the relay says.
    pub(super) fn received(info: ListenerInfo, descriptor: OwnedFd) -> Option<Self> {
        let socket = Socket::from(descriptor);
        let bound = socket.local_addr().ok()?.as_socket()?;
        // An earlier version did not set it.
        socket.set_tcp_notsent_lowat(MAX_UNSENT_BYTES).ok()?;
        (bound == info.address).then_some(Self { info, socket })
    }

    /// The same socket for another purpose.
    pub(crate) fn share(&self, info: ListenerInfo) -> Result<Self, BindError> {
        let socket = self.socket.try_clone().map_err(|source| BindError { address: info.address, source })?;
        Ok(Self { info, socket })
    }

    /// Whom it is for, and where.
    pub(crate) fn info(&self) -> ListenerInfo {
        self.info
    }

    /// The kernel completes handshakes from now on.
    pub(crate) fn listen(&self) -> Result<(), BindError> {
        self.socket.listen(BACKLOG).map_err(|source| BindError { address: self.info.address, source })
    }

    /// Whether the kernel completes handshakes.
    pub(crate) fn is_listening(&self) -> bool {
        socket_acceptconn(&self.socket).unwrap_or(false)
    }

    /// Ends the listening for every process that holds the socket, however many those are.
    pub(crate) fn close(&self) {
        if self.is_listening()
            && let Err(error) = self.socket.shutdown(Shutdown::Both)
        {
            tracing::warn!(address = %self.info.address, %error, "a port can't be closed");
        }
    }

    /// A descriptor to send to a relay.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        Ok(self.socket.try_clone()?.into())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use zone_protocol::identity::Role;

    use super::*;

    fn bound() -> Listener {
        let info = ListenerInfo { role: Role::Endpoint, address: "127.0.0.1:0".parse().unwrap() };
        Listener::bind(info).unwrap()
    }

    #[test]
    fn a_bound_port_refuses_until_it_listens_and_again_after_its_close() {
        let listener = bound();
        let address = listener.socket.local_addr().unwrap().as_socket().unwrap();
        assert!(TcpStream::connect(address).is_err());
        listener.listen().unwrap();
        assert!(listener.is_listening());
        assert!(TcpStream::connect(address).is_ok());
        let shared = listener.share(listener.info()).unwrap();
        listener.close();
        assert!(!shared.is_listening());
        assert!(TcpStream::connect(address).is_err());
    }

    #[test]
    fn a_port_that_somebody_else_holds_is_named() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap();
        let error = Listener::bind(ListenerInfo { role: Role::Endpoint, address }).unwrap_err();
        assert!(error.to_string().starts_with(&address.to_string()), "{error}");
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
    }
}
