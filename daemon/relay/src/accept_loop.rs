//! The accept loops. They never wait for a peer, and survive running out of descriptors.

use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpListener;
use zone_accept::{AcceptError, EXHAUSTED_DELAY};

use crate::admission::{Context, serve};
use crate::rules::Port;
use crate::watchdog::Heartbeat;

/// Accepts on one listening socket until the relay drains.
pub async fn accept_loop(context: Arc<Context>, port: Port, listener: TcpListener, mut heartbeat: Heartbeat) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = heartbeat.answer() => continue,
            () = context.drained() => return,
        };
        match accepted {
            Ok((stream, peer)) => match context.place() {
                Some(place) => drop(tokio::spawn(serve(Arc::clone(&context), port, stream, peer, place))),
                None => context.refuse(port, peer, "limit", &"the limit for all connections is reached"),
            },
            Err(error) => match AcceptError::of(&error) {
                AcceptError::Exhausted => {
                    context.metrics.refused(port, "descriptors");
                    if let Some(swallowed) = context.log.allows("descriptors", Instant::now()) {
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
