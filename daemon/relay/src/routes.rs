//! A connection on 17487: a Module Server that lists endpoints, watches them, or asks for a session.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use zone_log_budget::within_budget;
use zone_protocol::head::{RequestHead, write_response};
use zone_protocol::proxy_status::Reason;

use crate::admission::AdmittedConnection;
use crate::callers::UnderWay;
use crate::connect::connect;
use crate::connection::{close, write_in_time};
use crate::connections::TerminationReason;
use crate::context::Context;
use crate::event_stream::stream_events;
use crate::head_io::{ReadError, read_request};
use crate::limiters::LimitReached;
use crate::refusal::{Refusal, RequestError};
use crate::rules::Port;
use crate::session;

/// A connection that has asked for nothing for so long is not under way to anything.
const FRESH: Duration = Duration::from_secs(1);

/// Serves requests until the connection closes or becomes a session. `under_way` counts its caller among those that are
/// waited for until it has its answer; one that goes on after a first answer may be closed in between.
pub(crate) async fn serve(
    context: Arc<Context>,
    mut admitted: AdmittedConnection,
    mut under_way: Option<UnderWay>,
) {
    let mut bytes = Vec::new();
    let error = loop {
        let fresh = under_way.is_some();
        let request = {
            let mut request = pin!(next_request(&context, &mut admitted, &mut bytes));
            tokio::select! {
                request = &mut request => request,
                () = sleep(FRESH), if fresh => {
                    // It keeps a connection in store.
                    under_way = None;
                    request.await
                }
            }
        };
        match request {
            Ok(head) if head.method == "CONNECT" => {
                let _under_way = under_way.unwrap_or_else(|| context.callers.begin());
                match connect(&context, &mut admitted, &head, bytes).await {
                    // A task of its own, because a session needs none of what came before it.
                    Ok(connected) => return session::spawn(context, admitted, connected),
                    Err(error) => break error,
                }
            }
            Ok(head) => {
                under_way = None;
                match answer(&context, &mut admitted, &head).await.map_err(|e| e.of_method(&head.method)) {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(error) => break error,
                }
            }
            Err(error) => break error,
        }
    };
    match error {
        RequestError::ConnectionEnded => {}
        RequestError::ConnectionFailed(details) => {
            context.log_refusal(Port::ModuleServer, admitted.peer, "head", &details);
        }
        RequestError::Refused(refusal) => refuse(&context, &mut admitted, &refusal).await,
    }
}

async fn next_request(
    context: &Context,
    admitted: &mut AdmittedConnection,
    bytes: &mut Vec<u8>,
) -> Result<RequestHead, RequestError> {
    let rules = context.rules();
    let (idle, head) = (rules.timeouts.idle_connection, rules.timeouts.head);
    let termination = Arc::clone(&admitted.registered.termination);
    let read = tokio::select! {
        biased;
        reason = termination.terminated() => {
            if matches!(reason, TerminationReason::Retired | TerminationReason::Stopping) {
                close(&mut admitted.stream).await;
            }
            return Err(RequestError::ConnectionEnded);
        }
        read = read_request(&mut admitted.stream, bytes, rules.head, idle, head) => read,
        () = context.drained() => {
            close(&mut admitted.stream).await;
            return Err(RequestError::ConnectionEnded);
        }
    };
    match read {
        Ok(head) => Ok(head),
        Err(ReadError::Closed | ReadError::Idle) => {
            close(&mut admitted.stream).await;
            Err(RequestError::ConnectionEnded)
        }
        Err(ReadError::Head(error)) => Err(Refusal::bad_head("head", &error).into()),
        Err(error @ (ReadError::Cut(_) | ReadError::TooSlow)) => {
            Err(RequestError::ConnectionFailed(error.to_string()))
        }
    }
}

/// Answers a request for the list or the stream; whether the connection can take another request.
async fn answer(
    context: &Context,
    admitted: &mut AdmittedConnection,
    head: &RequestHead,
) -> Result<bool, RequestError> {
    if let Err(error) = head.host().and_then(|_| head.without_body()) {
        return Err(Refusal::new(Reason::BadRequest, "request", error.to_string()).into());
    }
    // HEAD is answered as GET is, without the body (RFC 9110, section 9.3.2).
    match (head.method.as_str(), head.target.as_str()) {
        ("GET" | "HEAD", "/v1/endpoints") => list(context, admitted, head).await,
        ("GET" | "HEAD", "/v1/endpoints/events") => {
            let caller = &admitted.registered.leaf.identity.name;
            let permit = context.limiters.event_stream(caller, &context.rules().limits);
            let _permit = permit.map_err(|LimitReached { key, limit }| {
                let details = format!("{limit} event streams are open already (limits.{key})");
                Refusal::new(Reason::Limit, "event_streams", details)
            })?;
            stream_events(context, admitted, head.method == "HEAD").await?;
            Ok(false)
        }
        (_, "/v1/endpoints" | "/v1/endpoints/events") => {
            Err(Refusal::bad_request(405, "request", "only GET and HEAD are served here").into())
        }
        _ => {
            let details = "this port serves CONNECT, GET /v1/endpoints and GET /v1/endpoints/events";
            Err(Refusal::bad_request(404, "request", details).into())
        }
    }
}

async fn list(
    context: &Context,
    admitted: &mut AdmittedConnection,
    head: &RequestHead,
) -> Result<bool, RequestError> {
    let body = serde_json::to_string(&context.switchboard.endpoints()).unwrap_or_default();
    let length = body.len().to_string();
    let last = head.wants_close() || context.is_draining();
    let connection = if last { "close" } else { "keep-alive" };
    let fields = [
        ("Content-Type", "application/json"),
        ("Content-Length", length.as_str()),
        ("Connection", connection),
    ];
    let mut answer = write_response(200, "OK", &fields);
    if head.method != "HEAD" {
        answer += &body;
    }
    let deadline = context.rules().timeouts.head;
    let sent = write_in_time(&mut admitted.stream, &answer, deadline).await;
    sent.map_err(|_| RequestError::ConnectionEnded)?;
    if last {
        close(&mut admitted.stream).await;
    }
    Ok(!last)
}

async fn refuse(context: &Context, admitted: &mut AdmittedConnection, refusal: &Refusal) {
    let caller = &admitted.registered.leaf.identity.name;
    context.metrics.refused(Port::ModuleServer, refusal.label);
    within_budget!(
        context.log_budget,
        refusal.label,
        warn!(
            port = Port::ModuleServer.label(),
            peer = %admitted.peer,
            %caller,
            session = refusal.session.map(|id| id.to_string()).unwrap_or_default(),
            reason = refusal.label,
            "refused: {}",
            refusal.details
        )
    );
    let rules = context.rules();
    // The caller may be gone; it is being refused either way.
    let _ = refusal.answer(&mut admitted.stream, &rules.name, rules.timeouts.head).await;
}
