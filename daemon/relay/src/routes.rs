//! A connection on 17487: a Module Server that lists endpoints, watches them, or asks for a session.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;
use uuid::Uuid;
use zone_accept::Permit;
use zone_pairing::{CallError, Event};
use zone_protocol::fields;
use zone_protocol::head::{HeadError, RequestHead, write_response};
use zone_protocol::proxy_status::Reason;

use crate::admission::{AdmittedConnection, Context};
use crate::connections::TerminationReason;
use crate::copy::{BidirectionalCopy, Outcome};
use crate::head_io::{ReadError, Refused, read_request, refuse};
use crate::presence;
use crate::rules::Port;
use crate::switchboard::{EndpointLeg, Request};

/// Serves requests until the connection closes or becomes a session.
pub async fn serve(context: Arc<Context>, mut admitted: AdmittedConnection) {
    let mut bytes = Vec::new();
    loop {
        match next_request(&context, &mut admitted, &mut bytes).await {
            Err(Stop::Quietly) => return,
            Err(Stop::Refused(refusal)) => return decline(&context, &mut admitted, refusal).await,
            Ok(head) if head.method == "CONNECT" => {
                return match connect(&context, &mut admitted, &head, bytes).await {
                    Ok((request, leg, early, place)) => {
                        // A task of its own, because a session needs none of what came before it.
                        drop(tokio::spawn(join(context, admitted, request, leg, early, place)));
                    }
                    Err(Stop::Quietly) => {}
                    Err(Stop::Refused(refusal)) => decline(&context, &mut admitted, refusal).await,
                };
            }
            Ok(head) => match answer(&context, &mut admitted, &head).await {
                Ok(true) => {}
                Ok(false) | Err(Stop::Quietly) => return,
                Err(Stop::Refused(refusal)) => return decline(&context, &mut admitted, refusal).await,
            },
        }
    }
}

/// TerminationReason a connection is done.
enum Stop {
    /// It is gone, or to go without a word.
    Quietly,
    /// It is told why.
    Refused(Box<Refusal>),
}

struct Refusal {
    status: u16,
    reason: Reason,
    received_status: Option<u16>,
    session: Option<Uuid>,
    label: &'static str,
    details: String,
}

impl Refusal {
    fn stop(reason: Reason, label: &'static str, details: impl Into<String>) -> Stop {
        Stop::Refused(Box::new(Self {
            status: reason.status(),
            reason,
            received_status: None,
            session: None,
            label,
            details: details.into(),
        }))
    }
}

async fn next_request(
    context: &Context,
    admitted: &mut AdmittedConnection,
    bytes: &mut Vec<u8>,
) -> Result<RequestHead, Stop> {
    let rules = context.rules();
    let (idle, head) = (rules.timeouts.idle_connection, rules.timeouts.head);
    let termination = Arc::clone(&admitted.registered.termination);
    let read = tokio::select! {
        biased;
        _ = termination.terminated() => return Err(Stop::Quietly),
        read = read_request(&mut admitted.stream, bytes, rules.head, idle, head) => read,
        () = context.drained() => {
            let _ = timeout(Duration::from_secs(5), admitted.stream.shutdown()).await;
            return Err(Stop::Quietly);
        }
    };
    match read {
        Ok(head) => Ok(head),
        Err(ReadError::Closed | ReadError::Idle) => {
            let _ = timeout(Duration::from_secs(5), admitted.stream.shutdown()).await;
            Err(Stop::Quietly)
        }
        Err(ReadError::Head(error)) => {
            let mut stop = Refusal::stop(Reason::BadRequest, "head", error.to_string());
            if let (Stop::Refused(refusal), HeadError::TooLong(_) | HeadError::TooManyFields(_)) =
                (&mut stop, &error)
            {
                refusal.status = 431;
            }
            Err(stop)
        }
        Err(error @ (ReadError::Cut(_) | ReadError::TooSlow)) => {
            context.refuse(Port::ModuleServer, admitted.peer, "head", &error);
            Err(Stop::Quietly)
        }
    }
}

async fn decline(context: &Context, admitted: &mut AdmittedConnection, refusal: Box<Refusal>) {
    let caller = &admitted.registered.leaf.identity.name;
    let session = refusal.session.map(|id| id.to_string()).unwrap_or_default();
    context.metrics.refused(Port::ModuleServer, refusal.label);
    if let Some(swallowed) = context.log.allows(refusal.label, Instant::now()) {
        tracing::warn!(
            port = Port::ModuleServer.label(),
            peer = %admitted.peer,
            %caller,
            session,
            reason = refusal.label,
            swallowed,
            "refused: {}",
            refusal.details
        );
    }
    let rules = context.rules();
    let fields = if session.is_empty() { Vec::new() } else { vec![(fields::SESSION, session.as_str())] };
    let refused = Refused {
        proxy: &rules.name,
        status: refusal.status,
        reason: refusal.reason,
        received_status: refusal.received_status,
        fields,
        details: refusal.details,
    };
    // The caller may be gone; it is being refused either way.
    let _ = refuse(&mut admitted.stream, &refused, rules.timeouts.head).await;
}

/// Answers a request for the list or the stream; whether the connection can take another request.
async fn answer(
    context: &Context,
    admitted: &mut AdmittedConnection,
    head: &RequestHead,
) -> Result<bool, Stop> {
    if let Err(error) = head.without_body() {
        return Err(Refusal::stop(Reason::BadRequest, "request", error.to_string()));
    }
    let wrong = |status, details: &str| {
        let mut stop = Refusal::stop(Reason::BadRequest, "request", details);
        if let Stop::Refused(refusal) = &mut stop {
            refusal.status = status;
        }
        Err(stop)
    };
    match (head.method.as_str(), head.target.as_str()) {
        ("GET", "/v1/endpoints") => {
            let body = serde_json::to_string(&context.switchboard.endpoints()).unwrap_or_default();
            let length = body.len().to_string();
            let close = head.wants_close() || context.is_draining();
            let connection = if close { "close" } else { "keep-alive" };
            let mut answer = write_response(
                200,
                "OK",
                &[
                    ("Content-Type", "application/json"),
                    ("Content-Length", &length),
                    ("Connection", connection),
                ],
            );
            answer.push_str(&body);
            send(context, admitted, &answer).await?;
            if close {
                let _ = timeout(Duration::from_secs(5), admitted.stream.shutdown()).await;
            }
            Ok(!close)
        }
        ("GET", "/v1/endpoints/events") => {
            let most = context.rules().limits.event_streams;
            let Some(_place) = context.streams.acquire((), most) else {
                let details = format!("{most} event streams are open already (limits.event_streams)");
                return Err(Refusal::stop(Reason::Limit, "event_streams", details));
            };
            stream_events(context, admitted).await?;
            Ok(false)
        }
        (_, "/v1/endpoints" | "/v1/endpoints/events") => wrong(405, "only GET is served here"),
        _ => wrong(404, "this port serves CONNECT, GET /v1/endpoints and GET /v1/endpoints/events"),
    }
}

async fn stream_events(context: &Context, admitted: &mut AdmittedConnection) -> Result<(), Stop> {
    let head = write_response(
        200,
        "OK",
        &[("Content-Type", "text/event-stream"), ("Cache-Control", "no-store"), ("Connection", "close")],
    );
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
                let _ = timeout(Duration::from_secs(5), admitted.stream.shutdown()).await;
                return Ok(());
            }
        };
        send(context, admitted, &text).await?;
    }
}

async fn send(context: &Context, admitted: &mut AdmittedConnection, text: &str) -> Result<(), Stop> {
    let within = context.rules().timeouts.head;
    let write = async {
        admitted.stream.write_all(text.as_bytes()).await?;
        admitted.stream.flush().await
    };
    match timeout(within, write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Stop::Quietly),
    }
}

type Connected = (Arc<Request>, Box<EndpointLeg>, Vec<u8>, Permit<()>);

/// Gets a park for a CONNECT. What the caller sends meanwhile is kept, up to a limit, and flows only after the
/// endpoint has accepted.
async fn connect(
    context: &Arc<Context>,
    admitted: &mut AdmittedConnection,
    head: &RequestHead,
    mut early: Vec<u8>,
) -> Result<Connected, Stop> {
    let rules = context.rules();
    let target = head
        .connect_target()
        .map_err(|error| Refusal::stop(Reason::BadRequest, "request", error.to_string()))?;
    let most = rules.limits.sessions;
    let place = context.sessions.acquire((), most).ok_or_else(|| {
        Refusal::stop(
            Reason::Limit,
            "sessions",
            format!("{most} sessions are open already (limits.sessions)"),
        )
    })?;
    let caller = admitted.registered.leaf.identity.name.clone();
    let request = Arc::new(Request { target, session: Uuid::now_v7(), caller });
    let mut call = context.switchboard.call(Arc::clone(&request), rules.timeouts.connect);
    let answer = loop {
        let room = rules.limits.early_bytes.saturating_sub(early.len()).min(1_024);
        let mut space = [0; 1_024];
        tokio::select! {
            biased;
            answer = call.answer() => break answer,
            _ = admitted.registered.termination.terminated() => return Err(Stop::Quietly),
            read = admitted.stream.read(&mut space[..room]), if room > 0 => match read {
                Ok(0) | Err(_) => {
                    tracing::info!(session = %request.session, target = %request.target, caller = %request.caller, "the caller left before the session began");
                    return Err(Stop::Quietly);
                }
                Ok(n) => early.extend_from_slice(&space[..n]),
            },
        }
    };
    match answer {
        Ok(leg) => Ok((request, leg, early, place)),
        Err((error, words)) => Err(unanswered(&request, error, words.as_deref())),
    }
}

fn unanswered(request: &Request, error: CallError, words: Option<&str>) -> Stop {
    let (reason, received_status) = match error {
        CallError::UnknownEndpoint => (Reason::UnknownEndpoint, None),
        CallError::NoParkInTime => (Reason::NoPark, None),
        CallError::RefusedByEndpoint { status } => (Reason::Refused, Some(status)),
        CallError::ParksLost | CallError::AnswerTimeout | CallError::EndpointFailed => {
            (Reason::NoAnswer, None)
        }
        CallError::TooManyWaiting | CallError::TooManySessions => (Reason::Limit, None),
        CallError::Draining => (Reason::Draining, None),
    };
    let details = match words {
        Some(words) if !words.is_empty() => format!("{}: {error}: {words}", request.target),
        _ => format!("{}: {error}", request.target),
    };
    let mut stop = Refusal::stop(reason, error.label(), details);
    if let Stop::Refused(refusal) = &mut stop {
        refusal.session = Some(request.session);
        refusal.received_status = received_status;
    }
    stop
}

/// Tells the caller that it is connected, and carries the session to its end.
async fn join(
    context: Arc<Context>,
    mut admitted: AdmittedConnection,
    request: Arc<Request>,
    leg: Box<EndpointLeg>,
    early: Vec<u8>,
    place: Permit<()>,
) {
    let session = request.session.to_string();
    let mut heads = vec![(fields::SESSION, session.as_str())];
    if let Some(end_to_end) = &leg.end_to_end {
        heads.push((fields::END_TO_END, end_to_end));
    }
    let established = write_response(200, "Connection Established", &heads);
    if send(&context, &mut admitted, &established).await.is_err() {
        context.switchboard.report(Event::SessionEnded { park: leg.park });
        return;
    }
    tracing::info!(
        target: "audit",
        %session,
        target = %request.target,
        caller = %request.caller,
        caller_address = %admitted.peer,
        endpoint_address = %leg.address,
        end_to_end = leg.end_to_end.as_deref().unwrap_or("unsaid"),
        "session begins"
    );
    carry(&context, admitted, &request, *leg, early).await;
    drop(place);
}

async fn carry(
    context: &Context,
    admitted: AdmittedConnection,
    request: &Request,
    leg: EndpointLeg,
    early: Vec<u8>,
) {
    let EndpointLeg { park, stream: endpoint, early: answered, registered, mailbox, permits, .. } = leg;
    let idle = context.rules().timeouts.session_idle;
    let began = Instant::now();
    let mut session =
        BidirectionalCopy::new(admitted.stream, early, endpoint, answered, idle, &context.metrics);
    let ended = tokio::select! {
        biased;
        why = admitted.registered.termination.terminated() => Err(struck(why, "caller_not_admitted")),
        why = registered.termination.terminated() => Err(struck(why, "endpoint_not_admitted")),
        reason = mailbox.closed() => Err(reason.label()),
        outcome = session.run() => Ok(outcome),
    };
    let (moved, cause) = (session.moved(), session.cause());
    match ended {
        Ok(Outcome::Finished) => drop(session),
        Ok(outcome @ (Outcome::CallerCut | Outcome::EndpointCut)) => session.abort_delivered(outcome).await,
        Ok(Outcome::Idle) | Err(_) => session.abort(),
    }
    context.switchboard.report(Event::SessionEnded { park });
    let reason = ended.map_or_else(|reason| reason, Outcome::label);
    context.metrics.session_ended(reason, moved.from_caller, moved.from_endpoint);
    tracing::info!(
        target: "audit",
        session = %request.session,
        target = %request.target,
        caller = %request.caller,
        reason,
        cause,
        seconds = began.elapsed().as_secs_f64(),
        from_caller = moved.from_caller,
        from_endpoint = moved.from_endpoint,
        "session ended"
    );
    drop((registered, permits));
}

fn struck(why: TerminationReason, not_admitted: &'static str) -> &'static str {
    match why {
        TerminationReason::NotAdmitted => not_admitted,
        TerminationReason::Stopping => "stopping",
    }
}
