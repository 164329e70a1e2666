//! The accept loops: each accepted connection is admitted and handed on, in a task of its own. The loops never wait
//! for a peer, and survive running out of descriptors.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use zone_accept::{AcceptError, EXHAUSTED_DELAY};
use zone_log_budget::within_budget;

use crate::admission::{AdmissionRefusal, Newcomer, NotAdmitted, admit};
use crate::callers::UnderWay;
use crate::context::Context;
use crate::rules::Port;
use crate::{park, routes};
use zone_watchdog::Heartbeat;

/// Accepts on one listening socket: callers until the relay turns them away, endpoints until it drains.
pub(crate) async fn accept_loop(
    context: Arc<Context>,
    port: Port,
    listener: TcpListener,
    mut heartbeat: Heartbeat,
) {
    let accepting = begin(&context, port, &mut heartbeat).await;
    loop {
        let accepted = tokio::select! {
            biased;
            () = context.lets_in_no_more(port) => return,
            () = heartbeat.answer() => continue,
            accepted = accept(&context, &listener, accepting.as_ref()) => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match heartbeat.during(Newcomer::new(&context, port, stream, peer)).await {
                Ok(newcomer) => {
                    let caller = accepting.as_ref().map(UnderWay::another);
                    drop(tokio::spawn(serve(Arc::clone(&context), port, newcomer, caller)));
                }
                Err(refusal) => log_refusal(&context, port, peer, &refusal),
            },
            Err(error) => match AcceptError::of(&error) {
                AcceptError::Exhausted => {
                    context.metrics.refused(port, "descriptors");
                    within_budget!(
                        context.descriptors.log_budget,
                        port.label(),
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

/// Waits until a port's peers are let in; the loop counts as a caller where it accepts callers.
async fn begin(context: &Arc<Context>, port: Port, heartbeat: &mut Heartbeat) -> Option<UnderWay> {
    match port {
        Port::ModuleServer => Some(context.callers.begin()),
        Port::Endpoint => {
            heartbeat.during(context.lets_endpoints_in()).await;
            None
        }
    }
}

/// Accepts the next connection; a caller only when those that are under way leave descriptors to endpoints.
async fn accept(
    context: &Context,
    listener: &TcpListener,
    callers: Option<&UnderWay>,
) -> io::Result<(TcpStream, SocketAddr)> {
    if let Some(callers) = callers {
        callers.fewer_than(context.descriptors.callers()).await;
    }
    listener.accept().await
}

/// Admits a connection, then hands it on to a task that is no larger than it needs to be: handshakes are large and
/// short, parks small and long.
async fn serve(context: Arc<Context>, port: Port, newcomer: Newcomer, caller: Option<UnderWay>) {
    match admit(&context, port, newcomer).await {
        Ok(admitted) => match port {
            Port::Endpoint => drop(tokio::spawn(park::serve(context, admitted))),
            Port::ModuleServer => drop(tokio::spawn(routes::serve(context, admitted, caller))),
        },
        Err(NotAdmitted::Probe) => context.metrics.probed(),
        Err(NotAdmitted::Refused { peer, refusal }) => log_refusal(&context, port, peer, &refusal),
    }
}

fn log_refusal(context: &Context, port: Port, peer: SocketAddr, refusal: &AdmissionRefusal) {
    context.log_refusal(port, peer, refusal.label(), refusal);
}
