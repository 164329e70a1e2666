//! Port 17488: an accept loop that waits for nobody, and one task for each connection.

mod authentication;
mod connection;
pub mod face;
pub mod gate;
pub mod problems;
mod routes;
mod seldom;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::sleep;
use zone_protocol::ports;

use crate::daemon::{Daemon, StartError};
use crate::metrics::Reason;
use seldom::Seldom;

const BACKLOG: i32 = 256;
/// After the process or the system ran out of descriptors or memory.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Listens on port 17488 of each address.
pub fn listen(addresses: &[IpAddr]) -> Result<Vec<TcpListener>, StartError> {
    let listen = |address: SocketAddr| -> io::Result<TcpListener> {
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    let at = |ip: &IpAddr| {
        let address = SocketAddr::new(*ip, ports::CONTROL);
        listen(address).map_err(|source| StartError::Listen { address, source })
    };
    addresses.iter().map(at).collect()
}

/// Accepts for as long as the daemon lives.
pub async fn accept(daemon: Rc<Daemon>, listener: TcpListener) {
    let (exhausted, refused) = (Seldom::default(), Seldom::default());
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => admit(&daemon, stream, peer, &refused),
            Err(error) if is_exhaustion(&error) => {
                if let Some(times) = exhausted.now() {
                    tracing::error!(%error, times, "17488 can't accept for a moment");
                }
                sleep(EXHAUSTED).await;
            }
            // The one connection that was next is gone; the others are not.
            Err(error) => tracing::debug!(%error, "a connection was gone before it was accepted"),
        }
    }
}

fn admit(daemon: &Rc<Daemon>, stream: TcpStream, peer: SocketAddr, refused: &Seldom) {
    let config = daemon.config();
    match daemon.gate.admit(peer.ip(), &config.control.allowed_networks, &config.limits) {
        Ok(place) => {
            daemon.metrics.connections.inc();
            spawn_local(connection::serve(Rc::clone(daemon), stream, peer, place));
        }
        Err(closed) => {
            daemon.metrics.refused.get_or_create(&Reason { reason: closed.label() }).inc();
            if let Some(times) = refused.now() {
                tracing::warn!(%peer, error = closed.reason(), times, "a connection to 17488 was refused");
            }
            // A reset costs this side nothing afterwards.
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
