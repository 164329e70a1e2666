//! The accept loops. They never wait for a peer, and survive running out of descriptors.

use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpListener;
use zone_accept::{AcceptError, EXHAUSTED_DELAY};

use crate::pulse::Beat;
use crate::rules::Port;
use crate::serve::{Shared, serve};

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
            Err(error) => match AcceptError::of(&error) {
                AcceptError::Exhausted => {
                    shared.metrics.refused(port, "descriptors");
                    if let Some(swallowed) = shared.log.allows("descriptors", Instant::now()) {
                        tracing::error!(
                            port = port.label(),
                            swallowed,
                            "no descriptor left to accept with ({error}): raise LimitNOFILE, or lower limits.connections"
                        );
                    }
                    tokio::time::sleep(EXHAUSTED_DELAY).await;
                }
                AcceptError::Closed => {
                    tracing::warn!(port = port.label(), "this port was closed by control");
                    return;
                }
                AcceptError::Gone => tracing::debug!(port = port.label(), "accept: {error}"),
            },
        }
    }
}
