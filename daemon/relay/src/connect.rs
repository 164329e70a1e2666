//! CONNECT: getting a park for a caller, who waits meanwhile and may send its first bytes.

use std::sync::Arc;

use tokio::io::AsyncReadExt;
use uuid::Uuid;
use zone_log_budget::within_budget;
use zone_pairing::CallError;
use zone_protocol::head::RequestHead;
use zone_protocol::proxy_status::Reason;

use crate::admission::AdmittedConnection;
use crate::context::Context;
use crate::leg::EndpointLeg;
use crate::limiters::{LimitReached, SharedPermit};
use crate::refusal::{Refusal, RequestError};
use crate::switchboard::Request;

/// Bytes of one read of what a caller sends early.
const MAX_EARLY_READ_BYTES: usize = 1_024;

/// A CONNECT whose endpoint has accepted.
#[derive(Debug)]
pub(crate) struct Connected {
    /// What was asked for.
    pub(crate) request: Arc<Request>,
    /// The endpoint's connection.
    pub(crate) leg: Box<EndpointLeg>,
    /// What the caller sent before it had an answer.
    pub(crate) early: Vec<u8>,
    /// To be one of all sessions.
    pub(crate) permit: SharedPermit,
}

/// Gets a park for a CONNECT. What the caller sends meanwhile is kept, up to a limit, and flows only after the
/// endpoint has accepted. `early` is what came right behind the head.
pub(crate) async fn connect(
    context: &Arc<Context>,
    admitted: &mut AdmittedConnection,
    head: &RequestHead,
    mut early: Vec<u8>,
) -> Result<Connected, RequestError> {
    // From here on the call goes on beyond the end of the caller's certificate.
    if !admitted.registered.begin_session() {
        return Err(RequestError::ConnectionEnded);
    }
    let rules = context.rules();
    let target = head
        .connect_target()
        .map_err(|error| Refusal::new(Reason::BadRequest, "request", error.to_string()))?;
    let caller = admitted.registered.leaf.identity.name.clone();
    let permit =
        context.limiters.session(&caller, &rules.limits).map_err(|LimitReached { key, limit }| {
            Refusal::new(
                Reason::Limit,
                "sessions",
                format!("{limit} sessions are open already (limits.{key})"),
            )
        })?;
    let waiting =
        context.limiters.waiting(&caller, &rules.limits).map_err(|LimitReached { key, limit }| {
            Refusal::new(Reason::Limit, "waiting", format!("{limit} CONNECTs wait already (limits.{key})"))
        })?;
    let request = Arc::new(Request { target, session: Uuid::now_v7(), caller });
    let leg = wait(context, admitted, &request, &mut early).await?;
    drop(waiting);
    Ok(Connected { request, leg, early, permit })
}

/// Logs lines in which the facts of a session stand, audit lines too: so its span has their target, which the log takes in
/// at every level.
///
/// There is no span beyond the line. Of each that there is at a time, tracing keeps memory for good, in between that of all
/// else.
pub(crate) fn log_of_session(request: &Request, log: impl FnOnce()) {
    let span = tracing::info_span!(
        target: "audit",
        "session",
        session = %request.session,
        target = %request.target,
        caller = %request.caller
    );
    span.in_scope(log);
}

/// Waits for the endpoint's answer, or for the caller to leave.
async fn wait(
    context: &Arc<Context>,
    admitted: &mut AdmittedConnection,
    request: &Arc<Request>,
    early: &mut Vec<u8>,
) -> Result<Box<EndpointLeg>, RequestError> {
    let rules = context.rules();
    let mut call = context.switchboard.call(Arc::clone(request), rules.timeouts.connect);
    loop {
        let room = rules.limits.early_bytes.saturating_sub(early.len()).min(MAX_EARLY_READ_BYTES);
        let mut space = [0; MAX_EARLY_READ_BYTES];
        tokio::select! {
            biased;
            answer = call.answer() => {
                return answer.map_err(|(error, words)| unanswered(request, error, words.as_deref()).into());
            }
            _ = admitted.registered.termination.terminated() => return Err(RequestError::ConnectionEnded),
            read = admitted.stream.read(&mut space[..room]), if room > 0 => match read {
                Ok(0) | Err(_) => {
                    log_of_session(request, || within_budget!(
                        context.log_budget,
                        "caller_left",
                        info!("the caller left before the session began")
                    ));
                    return Err(RequestError::ConnectionEnded);
                }
                Ok(n) => early.extend_from_slice(&space[..n]),
            },
        }
    }
}

fn unanswered(request: &Request, error: CallError, words: Option<&str>) -> Refusal {
    let (reason, received_status) = match error {
        CallError::UnknownEndpoint => (Reason::UnknownEndpoint, None),
        CallError::NoParkInTime | CallError::EndpointAway => (Reason::NoPark, None),
        CallError::RefusedByEndpoint { status } => (Reason::Refused, Some(status)),
        CallError::EndpointSilent
        | CallError::ParksLost
        | CallError::AnswerTimeout
        | CallError::EndpointFailed => (Reason::NoAnswer, None),
        CallError::TooManyWaiting | CallError::TooManySessions => (Reason::Limit, None),
        CallError::Draining => (Reason::Draining, None),
    };
    let details = match (error, words) {
        (CallError::RefusedByEndpoint { status }, Some(words)) if !words.is_empty() => {
            let (cause, advice) = zone_pairing::refusal(status);
            format!("{}: {cause} ({words}): {advice}", request.target)
        }
        _ => format!("{}: {error}", request.target),
    };
    let session = Some(request.session);
    Refusal { received_status, session, ..Refusal::new(reason, error.label(), details) }
}
