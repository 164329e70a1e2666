//! Port 17488: an accept loop that waits for nobody, and one task for each connection.
#![allow(
    clippy::result_large_err,
    reason = "a problem document is the answer to a handful of requests, not a hot path"
)]

mod answer;
mod authentication;
mod connection;
mod peer;
mod problems;
mod request;
mod routes;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::sleep;
use zone_accept::{AcceptError, EXHAUSTED_DELAY};
use zone_log_budget::within_budget;
use zone_protocol::ports;
use zone_watchdog::Heartbeat;

use crate::connection_limit::Refused;
use crate::daemon::Daemon;
use crate::metrics::Reason;

/// Connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 256;

/// Port 17488 can't be had.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address}: {source}")]
pub struct ListenError {
    /// The address that was tried.
    pub address: SocketAddr,
    /// The kernel's answer.
    pub source: io::Error,
}

/// Listens on port 17488 of each address.
pub(crate) fn listen(addresses: &[IpAddr]) -> Result<Vec<TcpListener>, ListenError> {
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
        listen(address).map_err(|source| ListenError { address, source })
    };
    addresses.iter().map(at).collect()
}

/// Accepts for as long as the daemon lives.
pub(crate) async fn accept(daemon: Rc<Daemon>, listener: TcpListener, mut heartbeat: Heartbeat) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = heartbeat.answer() => continue,
        };
        match accepted {
            Ok((stream, peer)) => admit(&daemon, stream, peer),
            Err(error) if AcceptError::of(&error) == AcceptError::Exhausted => {
                within_budget!(
                    daemon.log_budget,
                    "descriptors",
                    error!(%error, "17488 can't accept for a moment")
                );
                sleep(EXHAUSTED_DELAY).await;
            }
            // The one connection that was next is gone; the others are not.
            Err(error) => tracing::debug!(%error, "a connection was gone before it was accepted"),
        }
    }
}

fn admit(daemon: &Rc<Daemon>, stream: TcpStream, peer: SocketAddr) {
    let config = daemon.config();
    match daemon.connection_limit.newcomer(peer.ip(), &config.control.allowed_networks, &config.limits) {
        Ok(unauthenticated) => {
            unauthenticated.look_for_first_byte(&stream, Instant::now());
            daemon.metrics.connections.inc();
            spawn_local(connection::serve(Rc::clone(daemon), stream, peer, unauthenticated));
        }
        Err(refused) => {
            daemon.log_refused(peer, refused);
            // A reset costs this side nothing afterwards.
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl Daemon {
    /// Counts and, within the budget, logs a connection that is refused.
    fn log_refused(&self, peer: SocketAddr, refused: Refused) {
        self.metrics.refused.get_or_create(&Reason { reason: refused.label() }).inc();
        within_budget!(
            self.log_budget,
            refused.label(),
            warn!(%peer, error = refused.reason(), "a connection to 17488 was refused")
        );
    }
}
