//! The accept loops: each accepted connection is admitted and handed on, in a task of its own. The loops never wait
//! for a peer, and survive running out of descriptors.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use zone_accept::{AcceptError, EXHAUSTED_DELAY, within_budget};

use crate::admission::{AdmissionRefusal, Newcomer, NotAdmitted, admit};
use crate::context::Context;
use crate::rules::Port;
use crate::{park, routes};
use zone_watchdog::Heartbeat;

/// Accepts on one listening socket until the relay drains.
pub(crate) async fn accept_loop(
    context: Arc<Context>,
    port: Port,
    listener: TcpListener,
    mut heartbeat: Heartbeat,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = heartbeat.answer() => continue,
            () = context.drained() => return,
        };
        match accepted {
            Ok((stream, peer)) => match Newcomer::new(&context, port, stream, peer) {
                Ok(newcomer) => drop(tokio::spawn(serve(Arc::clone(&context), port, newcomer))),
                Err(refusal) => log_refusal(&context, port, peer, &refusal),
            },
            Err(error) => match AcceptError::of(&error) {
                AcceptError::Exhausted => {
                    context.metrics.refused(port, "descriptors");
                    within_budget!(
                        context.log_budget,
                        "descriptors",
                        error!(
                            port = port.label(),
                            "no descriptor left to accept with ({error}): raise LimitNOFILE, or lower limits.connections"
                        )
                    );
                    tokio::time::sleep(EXHAUSTED_DELAY).await;
                }
                AcceptError::Closed => {
                    tracing::warn!(port = port.label(), "this port was closed by control");
                    return;
                }
                AcceptError::Gone => {
                    tracing::debug!(
                        port = port.label(),
                        "a connection was gone before it was accepted: {error}"
                    );
                }
            },
        }
    }
}

/// Admits a connection, then hands it on to a task that is no larger than it needs to be: handshakes are large and
/// short, parks small and long.
async fn serve(context: Arc<Context>, port: Port, newcomer: Newcomer) {
    match admit(&context, port, newcomer).await {
        Ok(admitted) => match port {
            Port::Endpoint => drop(tokio::spawn(park::serve(context, admitted))),
            Port::ModuleServer => drop(tokio::spawn(routes::serve(context, admitted))),
        },
        Err(NotAdmitted::Probe) => context.metrics.probed(),
        Err(NotAdmitted::Refused { peer, refusal }) => log_refusal(&context, port, peer, &refusal),
    }
}

fn log_refusal(context: &Context, port: Port, peer: SocketAddr, refusal: &AdmissionRefusal) {
    context.log_refusal(port, peer, refusal.label(), refusal);
}
