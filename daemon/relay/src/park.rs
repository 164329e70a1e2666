//! A connection on 17486: it parks, answers pings, and at most once accepts a CONNECT.
//!
//! After the 101 the roles are reversed: the proxy is the client on the connection that the endpoint opened.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use zone_pairing::{CloseReason, Event, ParkId};
use zone_protocol::features::{Features, PARK_END};
use zone_protocol::head::{
    HeadLimits, RequestHead, ResponseHead, parse_response, write_request, write_response,
};
use zone_protocol::instance::Instance;
use zone_protocol::park_end::ParkEnd;
use zone_protocol::{PARK_UPGRADE, fields};

use crate::admission::AdmittedConnection;
use crate::connection::{close, write, write_in_time};
use crate::connections::TerminationReason;
use crate::context::Context;
use crate::head_io::{ReadError, read_request, receive};
use crate::leg::EndpointLeg;
use crate::mailbox::{Command, Mailbox};
use crate::refusal::{Refusal, RequestError};
use crate::rules::Port;
use crate::switchboard::{Request, Switchboard};

/// The first and only request of an endpoint's connection, then its life as a park.
pub(crate) async fn serve(context: Arc<Context>, mut admitted: AdmittedConnection) {
    match answer_request(&context, &mut admitted).await {
        // A task of its own again: a park needs none of what its request needed.
        Ok(asked) => drop(tokio::spawn(wait(context, Box::new(admitted), asked))),
        Err(RequestError::ConnectionEnded) => {}
        Err(RequestError::ConnectionFailed(details)) => {
            context.log_refusal(Port::Endpoint, admitted.peer, "head", &details);
        }
        Err(RequestError::Refused(refusal)) => {
            let rules = context.rules();
            // The peer may be gone; it is being refused either way.
            let _ = refusal.answer(&mut admitted.stream, &rules.name, rules.timeouts.head).await;
            context.log_refusal(Port::Endpoint, admitted.peer, refusal.label, &refusal.details);
        }
    }
}

/// What an endpoint said when it asked for a park.
#[derive(Debug, Clone, Copy)]
struct Asked {
    instance: u128,
    /// Whether it understands a last request that says why the park ends.
    reads_end: bool,
}

/// Reads the request for a park and confirms it.
async fn answer_request(context: &Context, admitted: &mut AdmittedConnection) -> Result<Asked, RequestError> {
    let rules = context.rules();
    let deadline = rules.timeouts.head;
    let mut bytes = Vec::new();
    let head = tokio::select! {
        head = read_request(&mut admitted.stream, &mut bytes, rules.head, deadline, deadline) => head,
        _ = admitted.registered.termination.terminated() => return Err(RequestError::ConnectionEnded),
    };
    let asked = match head {
        Ok(head) if bytes.is_empty() => check(&head).map_err(|refusal| refusal.of_method(&head.method))?,
        Ok(_) => return Err(bad_request(400, "bytes came behind the request for a park").into()),
        Err(ReadError::Closed) => return Err(RequestError::ConnectionEnded),
        Err(ReadError::Head(error)) => return Err(Refusal::bad_head(BAD_REQUEST, &error).into()),
        Err(error) => return Err(RequestError::ConnectionFailed(error.to_string())),
    };
    let parks = rules.limits.parks_per_endpoint.to_string();
    let fields = [("Connection", "Upgrade"), ("Upgrade", PARK_UPGRADE), (fields::PARKS, parks.as_str())];
    let switch = write_response(101, "Switching Protocols", &fields);
    match timeout(deadline, write(&mut admitted.stream, &switch)).await {
        Ok(Ok(())) => Ok(asked),
        Ok(Err(error)) => {
            Err(RequestError::ConnectionFailed(format!("while the park was confirmed: {error}")))
        }
        Err(_) => Err(RequestError::ConnectionFailed("it does not read".to_owned())),
    }
}

/// For an endpoint to take the word about the end of its park.
const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(5);

/// The label of every refused request for a park.
const BAD_REQUEST: &str = "request";

fn bad_request(status: u16, details: &str) -> Refusal {
    Refusal::bad_request(status, BAD_REQUEST, details)
}

fn check(head: &RequestHead) -> Result<Asked, Refusal> {
    if head.target != "/v1/park" {
        return Err(bad_request(404, "this port serves GET /v1/park and nothing else"));
    }
    if !matches!(head.method.as_str(), "GET" | "HEAD") {
        return Err(bad_request(405, "a park is asked for with GET"));
    }
    if let Err(error) = head.host().and_then(|_| head.without_body()) {
        return Err(bad_request(400, &error.to_string()));
    }
    if !head.fields.lists("Upgrade", PARK_UPGRADE) || !head.fields.lists("Connection", "upgrade") {
        let details = "a park needs 'Connection: Upgrade' and 'Upgrade: ptth/1', the version spoken here";
        return Err(bad_request(426, details));
    }
    if head.method != "GET" {
        return Err(bad_request(405, "a park is asked for with GET"));
    }
    let mut instances = head.fields.all(fields::INSTANCE);
    let (Some(instance), None) = (instances.next(), instances.next()) else {
        return Err(bad_request(400, "a park is asked for with one Zone-Instance field"));
    };
    let instance: Result<Instance, _> = instance.parse();
    let Instance(instance) = instance.map_err(|error| bad_request(400, &error.to_string()))?;
    let features = Features::from_field(head.fields.get(fields::FEATURES).unwrap_or_default());
    Ok(Asked { instance, reads_end: features.has(PARK_END) })
}

/// Whether a 2xx is an answer to a CONNECT: the connection is the session from the next byte on (RFC 9110, section 9.3.6), and
/// says once, if at all, whether it is protected end to end.
fn check_accepted(answer: &ResponseHead) -> Result<(), &'static str> {
    if ["Content-Length", "Transfer-Encoding"].into_iter().any(|name| answer.fields.get(name).is_some()) {
        return Err("a 2xx to a CONNECT with Content-Length or Transfer-Encoding");
    }
    let mut protection = answer.fields.all(fields::END_TO_END);
    match (protection.next(), protection.next()) {
        (None | Some("required" | "off"), None) => Ok(()),
        _ => Err("a 2xx to a CONNECT whose Zone-End-To-End is neither required nor off"),
    }
}

/// How a park ends.
enum End {
    /// The switchboard closed it.
    Closed(CloseReason),
    /// It was terminated.
    Terminated(TerminationReason),
    /// The endpoint closed it cleanly.
    Left,
    /// It was cut.
    Cut(io::Error),
}

async fn wait(context: Arc<Context>, admitted: Box<AdmittedConnection>, asked: Asked) {
    let name = admitted.registered.leaf.identity.name.clone();
    let (park, mailbox) = context.switchboard.park(&name, asked.instance, admitted.peer);
    tracing::debug!(endpoint = %name, peer = %admitted.peer, park = park.0, "parked");
    let peer = admitted.peer;
    let mut gone = ParkGone { switchboard: Arc::clone(&context.switchboard), park: Some(park), clean: false };
    let mut parked = Parked { context, admitted, park, mailbox };
    let connected = match parked.idle().await {
        Ok(request) => parked.connect(&request).await,
        Err(end) => Err(end),
    };
    let end = match connected {
        Ok((answer, early)) => {
            gone.park = None;
            return parked.join(&answer, early);
        }
        Err(end) => end,
    };
    gone.clean = matches!(end, End::Left);
    // Before the peer is waited for: the park is of no more use from here on.
    drop(gone);
    let mut stream = parked.admitted.stream;
    match end {
        End::Closed(reason) => {
            tracing::debug!(endpoint = %name, %peer, park = park.0, reason = reason.label(), "the relay closed a park");
            // A clean close tells the endpoint to come back now, which is wrong for one that misbehaves, and for one that
            // has too many parks already unless it understands a word about that.
            match park_end(reason) {
                _ if matches!(reason, CloseReason::Draining | CloseReason::CallerGone) => {
                    close(&mut stream).await;
                }
                Some(end) if asked.reads_end => {
                    // It may be gone; the connection is closed either way.
                    let _ =
                        write_in_time(&mut stream, &last_word(name.as_str(), end), LAST_WORD_TIMEOUT).await;
                    close(&mut stream).await;
                }
                _ => {}
            }
        }
        End::Terminated(reason) => {
            match reason {
                TerminationReason::NotAdmitted => {
                    tracing::info!(endpoint = %name, %peer, park = park.0, "a park was ended: its certificate is not admitted any more");
                }
                // A clean close brings the endpoint back at once, with the certificate that it has by now.
                // So it does where the relay stops, as soon as there is another one.
                TerminationReason::Retired | TerminationReason::Stopping => close(&mut stream).await,
                TerminationReason::Expired => {}
            }
        }
        End::Left => close(&mut stream).await,
        End::Cut(error) => {
            tracing::debug!(endpoint = %name, %peer, park = park.0, "a park was lost: {error}");
        }
    }
}

/// Tells the switchboard, when it is dropped, that a park is gone: also where its task panics. One that the switchboard
/// has closed itself is gone already, which changes nothing.
struct ParkGone {
    switchboard: Arc<Switchboard<EndpointLeg>>,
    /// `None` once the park is a session's leg.
    park: Option<ParkId>,
    /// Whether the endpoint closed it in an orderly way.
    clean: bool,
}

impl Drop for ParkGone {
    fn drop(&mut self) {
        if let Some(park) = self.park {
            self.switchboard.report(Event::ParkGone { park, clean: self.clean });
        }
    }
}

struct Parked {
    context: Arc<Context>,
    admitted: Box<AdmittedConnection>,
    park: ParkId,
    mailbox: Arc<Mailbox>,
}

impl Parked {
    /// Answers pings until there is a call to serve.
    async fn idle(&mut self) -> Result<Arc<Request>, End> {
        let mut ping_outstanding = false;
        let mut received = Vec::new();
        loop {
            let read = tokio::select! {
                biased;
                reason = self.admitted.registered.termination.terminated() => return Err(End::Terminated(reason)),
                command = self.mailbox.next() => {
                    match command {
                        Command::Close(reason) => return Err(End::Closed(reason)),
                        Command::Ping => {
                            ping_outstanding = true;
                            self.send(&ping(self.admitted.registered.leaf.identity.name.as_str())).await?;
                        }
                        Command::Assign => {
                            if let Some(request) = self.context.switchboard.take_up(self.park) {
                                // The call has begun: it does not end with the certificate any more.
                                if !self.admitted.registered.begin_session() {
                                    continue;
                                }
                                return Ok(request);
                            }
                        }
                    }
                    continue;
                }
                read = receive(&mut self.admitted.stream, &mut received) => read.map_err(End::Cut)?,
            };
            if read == 0 {
                return Err(End::Left);
            }
            if !ping_outstanding {
                return Err(self.unexpected("bytes that nobody asked for").await);
            }
            match is_pong(&received, self.context.rules().head) {
                Ok(false) => {}
                Ok(true) => {
                    (ping_outstanding, received) = (false, Vec::new());
                    self.context.switchboard.report(Event::Pong { park: self.park });
                }
                Err(why) => return Err(self.unexpected(&why).await),
            }
        }
    }

    /// Sends CONNECT and reads the endpoint's answer, with what came behind it.
    async fn connect(&mut self, request: &Request) -> Result<(ResponseHead, Vec<u8>), End> {
        self.send(&connect(request)).await?;
        let limits = self.context.rules().head;
        let mut bytes = Vec::new();
        loop {
            let first = bytes.is_empty();
            let read = tokio::select! {
                biased;
                reason = self.admitted.registered.termination.terminated() => return Err(End::Terminated(reason)),
                reason = self.mailbox.closed() => return Err(End::Closed(reason)),
                read = receive(&mut self.admitted.stream, &mut bytes) => read.map_err(End::Cut)?,
            };
            if read == 0 {
                return Err(End::Left);
            }
            if first {
                self.context.switchboard.report(Event::FirstByte { park: self.park });
            }
            match parse_response(&bytes, limits) {
                Ok(None) => {}
                Ok(Some((answer, length))) if (200..300).contains(&answer.status) => {
                    if let Err(why) = check_accepted(&answer) {
                        return Err(self.unexpected(why).await);
                    }
                    bytes.drain(..length);
                    return Ok((answer, bytes));
                }
                Ok(Some((answer, _))) if answer.status < 200 => {
                    return Err(self.unexpected("a second 1xx answer").await);
                }
                Ok(Some((answer, _))) => {
                    self.context.switchboard.refused(self.park, answer.status, &answer.reason);
                    return Err(End::Closed(self.mailbox.closed().await));
                }
                Err(error) => return Err(self.unexpected(&error.to_string()).await),
            }
        }
    }

    fn join(self, answer: &ResponseHead, early: Vec<u8>) {
        let AdmittedConnection { stream, peer, registered, permits } = *self.admitted;
        let leg = EndpointLeg {
            park: self.park,
            stream,
            early,
            end_to_end: answer.fields.get(fields::END_TO_END).map(str::to_owned),
            address: peer,
            registered,
            mailbox: self.mailbox,
            permits,
        };
        self.context.switchboard.accepted(leg.park, Box::new(leg));
    }

    /// Writes, unless the park is closed first: the switchboard's deadlines bound how long that can take.
    async fn send(&mut self, text: &str) -> Result<(), End> {
        tokio::select! {
            biased;
            reason = self.admitted.registered.termination.terminated() => Err(End::Terminated(reason)),
            written = write(&mut self.admitted.stream, text) => written.map_err(End::Cut),
            reason = self.mailbox.closed() => Err(End::Closed(reason)),
        }
    }

    async fn unexpected(&self, details: &str) -> End {
        self.context.log_refusal(Port::Endpoint, self.admitted.peer, "park_protocol", &details);
        self.context.switchboard.report(Event::Unexpected { park: self.park });
        End::Closed(self.mailbox.closed().await)
    }
}

fn ping(endpoint: &str) -> String {
    write_request("OPTIONS", "*", &[("Host", endpoint)])
}

/// The last request on a park, which nobody answers.
fn last_word(endpoint: &str, end: ParkEnd) -> String {
    let fields = [("Host", endpoint), ("Connection", "close"), (fields::PARK_END, end.as_str())];
    write_request("OPTIONS", "*", &fields)
}

/// What is said about the end of a park to an endpoint that should not come back at once.
fn park_end(reason: CloseReason) -> Option<ParkEnd> {
    match reason {
        CloseReason::Evicted => Some(ParkEnd::Evicted),
        CloseReason::TooManyEndpoints => Some(ParkEnd::TooManyEndpoints),
        _ => None,
    }
}

fn connect(request: &Request) -> String {
    let (target, session) = (request.target.to_string(), request.session.to_string());
    // RFC 7239 section 6.3: an obfuscated identifier; inside addresses are nobody's business outside.
    let forwarded = format!("for=_{}", request.caller);
    write_request(
        "CONNECT",
        &target,
        &[("Host", &target), (fields::SESSION, &session), ("Forwarded", &forwarded)],
    )
}

/// Whether the bytes so far are the whole answer to a ping; anything but a bodiless 2xx is a protocol error.
fn is_pong(bytes: &[u8], limits: HeadLimits) -> Result<bool, String> {
    match parse_response(bytes, limits).map_err(|error| error.to_string())? {
        None => Ok(false),
        Some((_, length)) if length < bytes.len() => Err("bytes behind the answer to a ping".into()),
        Some((head, _)) if !(200..300).contains(&head.status) => {
            Err(format!("a ping was answered with {}", head.status))
        }
        Some((head, _)) if head.fields.get("Transfer-Encoding").is_some() => {
            Err("the answer to a ping has a body".into())
        }
        Some((head, _)) if head.fields.all("Content-Length").any(|length| length != "0") => {
            Err("the answer to a ping has a body".into())
        }
        Some(_) => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of the future that a function gives, without calling it.
    fn future_size<F>(_: impl FnOnce(Arc<Context>, Box<AdmittedConnection>, Asked) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_park_waits_in_a_small_task() {
        assert!(future_size(wait) <= 1_024, "{}", future_size(wait));
    }

    #[test]
    fn a_ping_is_answered_by_a_bodiless_200_and_nothing_behind_it() {
        let pong = |text: &str| is_pong(text.as_bytes(), HeadLimits::default());
        assert_eq!(pong("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), Ok(true));
        assert_eq!(pong("HTTP/1.1 204 No Content\r\n\r\n"), Ok(true));
        assert_eq!(pong("HTTP/1.1 200 OK\r\nContent-Le"), Ok(false));
        for bad in [
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nx",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n",
            "HTTP/1.1 500 No\r\n\r\n",
            "hello\r\n\r\n",
        ] {
            assert!(pong(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_connect_is_accepted_by_a_2xx_without_a_body_that_says_its_protection_once() {
        let accepted = |fields: &str| {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            let answer = parse_response(text.as_bytes(), HeadLimits::default()).unwrap().unwrap();
            check_accepted(&answer.0).is_ok()
        };
        for good in ["", "Zone-End-To-End: off\r\n", "Zone-End-To-End: required\r\nX: y\r\n"] {
            assert!(accepted(good), "{good}");
        }
        for bad in [
            "Content-Length: 0\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Zone-End-To-End: Off\r\n",
            "Zone-End-To-End: \r\n",
            "Zone-End-To-End: off\r\nZone-End-To-End: required\r\n",
        ] {
            assert!(!accepted(bad), "{bad}");
        }
    }

    #[test]
    fn no_inside_address_goes_out_with_a_connect() {
        let request = Request {
            target: "host-7:ssh".parse().unwrap(),
            session: uuid::Uuid::nil(),
            caller: "inside".parse().unwrap(),
        };
        let head = connect(&request);
        assert!(head.contains("Forwarded: for=_inside\r\n"), "{head}");
        assert!(head.starts_with("CONNECT host-7:ssh HTTP/1.1\r\nHost: host-7:ssh\r\n"), "{head}");
    }
}
