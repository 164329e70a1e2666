//! The accept loops. They never wait for a peer, and survive running out of descriptors.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tokio::net::TcpListener;

use crate::pulse::Beat;
use crate::rules::Port;
use crate::serve::{Shared, serve};

/// How long accepting pauses when the process or the system has no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts on one listening socket until the relay drains.
pub async fn accept_loop(shared: Arc<Shared>, port: Port, listener: TcpListener, mut beat: Beat) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = beat.asked() => continue,
            () = shared.drained() => return,
        };
        match accepted {
            Ok((stream, peer)) => match shared.place() {
                Some(place) => drop(tokio::spawn(serve(Arc::clone(&shared), port, stream, peer, place))),
                None => shared.refuse(port, peer, "limit", &"the limit for all connections is reached"),
            },
            Err(error) if starved(&error) => {
                shared.metrics.refused(port, "descriptors");
                if let Some(swallowed) = shared.log.allows("descriptors", Instant::now()) {
                    tracing::error!(
                        port = port.label(),
                        swallowed,
                        "no descriptor left to accept with ({error}): raise LimitNOFILE, or lower limits.connections"
                    );
                }
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) if is(&error, Errno::EINVAL) => {
                tracing::warn!(port = port.label(), "this port was closed by control");
                return;
            }
            // The peer was gone before it was accepted; accept(2) says to go on.
            Err(error) => tracing::debug!(port = port.label(), "accept: {error}"),
        }
    }
}

fn starved(error: &io::Error) -> bool {
    [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM].into_iter().any(|errno| is(error, errno))
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}
