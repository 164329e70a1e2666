//! A session: it begins when both sides are told that they are connected, its bytes are copied, and it ends once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use zone_channel::OpenSession;
use zone_pairing::{Event, ParkId};
use zone_protocol::fields;
use zone_protocol::head::write_response;

use crate::admission::AdmittedConnection;
use crate::connect::{Connected, log_of_session};
use crate::connection::{Connection, write_in_time};
use crate::connections::TerminationReason;
use crate::context::Context;
use crate::copy::{BidirectionalCopy, Outcome};
use crate::leg::EndpointLeg;
use crate::open_sessions::Entry;
use crate::switchboard::Request;

/// The reason of an end that nobody gave one for: the task was dropped, or panicked.
const ABORTED: &str = "aborted";

/// Carries a session to its end, in a task of its own.
pub(crate) fn spawn(context: Arc<Context>, caller: AdmittedConnection, connected: Connected) {
    drop(tokio::spawn(run(context, caller, connected)));
}

/// Tells the caller that it is connected, and carries the session to its end.
async fn run(context: Arc<Context>, mut caller: AdmittedConnection, connected: Connected) {
    let _end = SessionEnd { context: &context, park: connected.leg.park };
    // The permit lives to the end.
    let Connected { request, leg, early, permit: _permit, .. } = connected;
    if tell_caller(&context, &mut caller.stream, &request, &leg).await.is_err() {
        return;
    }
    let entry = context.sessions.enter(OpenSession {
        id: request.session.to_string(),
        target: request.target.to_string(),
        caller: request.caller.to_string(),
    });
    log_of_session(&request, || {
        tracing::info!(
            target: "audit",
            caller_address = %caller.peer,
            endpoint_address = %leg.address,
            end_to_end = leg.end_to_end.as_deref().unwrap_or("unsaid"),
            "session begins"
        );
    });
    // Whoever waits until nobody is connected finds all ends logged: the entries among the connections, and the
    // permits, outlive the session.
    let EndpointLeg { stream, early: answered, registered, mailbox, permits: _permits, .. } = *leg;
    let idle = context.rules().timeouts.session_idle;
    let copy = BidirectionalCopy::new(caller.stream, early, stream, answered, idle, &context.metrics);
    let entry = Some(entry);
    let began = Instant::now();
    let mut session = Session { context: &context, request, began, copy, reason: ABORTED, entry };
    zone_watchdog::fault::reached("session");
    let ended = tokio::select! {
        biased;
        reason = caller.registered.termination.terminated() => Err(terminated(reason, "caller_not_admitted")),
        reason = registered.termination.terminated() => Err(terminated(reason, "endpoint_not_admitted")),
        reason = mailbox.closed() => Err(reason.label()),
        outcome = session.copy.run() => Ok(outcome),
    };
    session.reason = ended.map_or_else(|reason| reason, Outcome::label);
    match ended {
        Ok(Outcome::Finished) => {}
        Ok(outcome @ (Outcome::CallerCut | Outcome::EndpointCut)) => {
            session.copy.abort_delivered(outcome).await;
        }
        Ok(Outcome::Idle) | Err(_) => session.copy.abort(),
    }
}

async fn tell_caller(
    context: &Context,
    stream: &mut Connection,
    request: &Request,
    leg: &EndpointLeg,
) -> std::io::Result<()> {
    let session = request.session.to_string();
    let mut heads = vec![(fields::SESSION, session.as_str())];
    if let Some(end_to_end) = &leg.end_to_end {
        heads.push((fields::END_TO_END, end_to_end));
    }
    let established = write_response(200, "Connection Established", &heads);
    let deadline: Duration = context.rules().timeouts.head;
    write_in_time(stream, &established, deadline).await
}

/// Tells the switchboard, when it is dropped, that a leg is a session's no more: also where the task panics, or the
/// caller could not be told that it is connected.
struct SessionEnd<'a> {
    context: &'a Context,
    park: ParkId,
}

impl Drop for SessionEnd<'_> {
    fn drop(&mut self) {
        self.context.switchboard.report(Event::SessionEnded { park: self.park });
    }
}

/// A session that has begun. Dropped, it has ended, and says so exactly once, in the metrics and in the log.
struct Session<'a> {
    context: &'a Context,
    request: Arc<Request>,
    began: Instant,
    copy: BidirectionalCopy<'a>,
    /// Why it has ended; to be set before.
    reason: &'static str,
    /// Among the open ones.
    entry: Option<Entry>,
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // Before the line: a control that asks meanwhile is told of no session whose end it will not see.
        self.entry = None;
        let (moved, cause) = (self.copy.moved(), self.copy.cause());
        self.context.metrics.session_ended(self.reason, moved.from_caller, moved.from_endpoint);
        log_of_session(&self.request, || {
            tracing::info!(
                target: "audit",
                reason = self.reason,
                cause,
                seconds = self.began.elapsed().as_secs_f64(),
                from_caller = moved.from_caller,
                from_endpoint = moved.from_endpoint,
                "session ended"
            );
        });
    }
}

fn terminated(reason: TerminationReason, not_admitted: &'static str) -> &'static str {
    match reason {
        // A session does not end with a certificate, nor with an authority that is retired.
        TerminationReason::NotAdmitted | TerminationReason::Expired | TerminationReason::Retired => {
            not_admitted
        }
        TerminationReason::Stopping => "stopping",
    }
}
