//! The stream of presence events: a snapshot of the list, then every change, until the reader leaves.

use tokio::io::AsyncReadExt;
use tokio::sync::broadcast::error::RecvError;
use zone_protocol::head::write_response;

use crate::admission::AdmittedConnection;
use crate::connection::{close, write_in_time};
use crate::context::Context;

use crate::presence;
use crate::refusal::RequestError;

/// Streams until the connection is done, or answers with the head alone.
pub(crate) async fn stream_events(
    context: &Context,
    admitted: &mut AdmittedConnection,
    head_only: bool,
) -> Result<(), RequestError> {
    let head = write_response(
        200,
        "OK",
        &[("Content-Type", "text/event-stream"), ("Cache-Control", "no-store"), ("Connection", "close")],
    );
    if head_only {
        send(context, admitted, &head).await?;
        close(&mut admitted.stream).await;
        return Ok(());
    }
    let (list, mut events) = context.switchboard.watch();
    send(context, admitted, &(head + &presence::snapshot(&list))).await?;
    let boot = context.switchboard.boot();
    let pause = context.rules().timeouts.ping_after;
    loop {
        let mut space = [0; 64];
        let text = tokio::select! {
            event = events.recv() => match event {
                Ok(event) => presence::change(boot, &event),
                Err(RecvError::Lagged(_)) => {
                    let list;
                    (list, events) = context.switchboard.watch();
                    presence::resync(boot, list.sequence) + &presence::snapshot(&list)
                }
                Err(RecvError::Closed) => return Ok(()),
            },
            () = tokio::time::sleep(pause) => presence::KEEP_ALIVE.to_owned(),
            // A reader of events has nothing to say; what it sends is its end.
            _ = admitted.stream.read(&mut space) => return Ok(()),
            _ = admitted.registered.termination.terminated() => return Ok(()),
            () = context.drained() => {
                close(&mut admitted.stream).await;
                return Ok(());
            }
        };
        send(context, admitted, &text).await?;
    }
}

/// A reader that does not take it in time has left.
async fn send(context: &Context, admitted: &mut AdmittedConnection, text: &str) -> Result<(), RequestError> {
    let deadline = context.rules().timeouts.head;
    write_in_time(&mut admitted.stream, text, deadline).await.map_err(|_| RequestError::ConnectionEnded)
}
