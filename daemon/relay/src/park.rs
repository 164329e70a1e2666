//! A connection on 17486: it parks, answers pings, and at most once accepts a CONNECT.
//!
//! After the 101 the roles are reversed: the proxy is the client on the connection that the endpoint opened.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use zone_pairing::{CloseReason, Event, ParkId};
use zone_protocol::head::{
    HeadError, HeadLimits, RequestHead, ResponseHead, parse_response, write_request, write_response,
};
use zone_protocol::proxy_status::Reason;
use zone_protocol::{PARK_UPGRADE, fields};

use crate::admission::{AdmittedConnection, Context};
use crate::connections::TerminationReason;
use crate::head_io::{ReadError, Refused, read_request, receive, refuse};
use crate::identity::Connection;
use crate::rules::Port;
use crate::switchboard::{Command, EndpointLeg, Mailbox, Request};

/// The first and only request of an endpoint's connection, then its life as a park.
pub async fn serve(context: Arc<Context>, mut admitted: AdmittedConnection) {
    match greet(&context, &mut admitted).await {
        // A task of its own again: a park needs none of what the greeting needed.
        Ok(instance) => drop(tokio::spawn(wait(context, Box::new(admitted), instance))),
        Err(None) => {}
        Err(Some((reason, why))) => context.refuse(Port::Endpoint, admitted.peer, reason, &why),
    }
}

type Refusal = Option<(&'static str, String)>;

async fn greet(context: &Context, admitted: &mut AdmittedConnection) -> Result<u128, Refusal> {
    let rules = context.rules();
    let within = rules.timeouts.head;
    let mut bytes = Vec::new();
    let head = tokio::select! {
        head = read_request(&mut admitted.stream, &mut bytes, rules.head, within, within) => head,
        _ = admitted.registered.termination.terminated() => return Err(None),
    };
    let answer = match head {
        Ok(head) if bytes.is_empty() => check(&head),
        Ok(_) => Err((400, Reason::BadRequest, "bytes came behind the request for a park".to_owned())),
        Err(ReadError::Closed) => return Err(None),
        Err(ReadError::Head(error)) => {
            let status =
                if matches!(error, HeadError::TooLong(_) | HeadError::TooManyFields(_)) { 431 } else { 400 };
            Err((status, Reason::BadRequest, error.to_string()))
        }
        Err(error) => return Err(Some(("head", error.to_string()))),
    };
    let answer = match answer {
        Ok(_) if context.is_draining() => {
            Err((503, Reason::Draining, "this proxy is being replaced: connect again".to_owned()))
        }
        other => other,
    };
    match answer {
        Ok(instance) => {
            let switch = write_response(
                101,
                "Switching Protocols",
                &[("Connection", "Upgrade"), ("Upgrade", PARK_UPGRADE)],
            );
            let write = async {
                admitted.stream.write_all(switch.as_bytes()).await?;
                admitted.stream.flush().await
            };
            match timeout(within, write).await {
                Ok(Ok(())) => Ok(instance),
                Ok(Err(error)) => Err(Some(("head", format!("while the park was confirmed: {error}")))),
                Err(_) => Err(Some(("head", "it does not read".to_owned()))),
            }
        }
        Err((status, reason, details)) => {
            let fields = if status == 426 { vec![("Upgrade", PARK_UPGRADE)] } else { Vec::new() };
            let why = details.clone();
            let refused =
                Refused { proxy: &rules.name, status, reason, received_status: None, fields, details };
            // The peer may be gone; it is being refused either way.
            let _ = refuse(&mut admitted.stream, &refused, within).await;
            Err(Some(("request", why)))
        }
    }
}

fn check(head: &RequestHead) -> Result<u128, (u16, Reason, String)> {
    let refuse = |status, details: &str| Err((status, Reason::BadRequest, details.to_owned()));
    if head.target != "/v1/park" {
        return refuse(404, "this port serves GET /v1/park and nothing else");
    }
    if head.method != "GET" {
        return refuse(405, "a park is asked for with GET");
    }
    if let Err(error) = head.without_body() {
        return refuse(400, &error.to_string());
    }
    if !head.fields.lists("Upgrade", PARK_UPGRADE) || !head.fields.lists("Connection", "upgrade") {
        return refuse(
            426,
            "a park needs 'Connection: Upgrade' and 'Upgrade: ptth/1', the version spoken here",
        );
    }
    let instance = head.fields.get(fields::INSTANCE).filter(|text| text.len() == 32);
    match instance.and_then(|text| u128::from_str_radix(text, 16).ok()) {
        Some(instance) => Ok(instance),
        None => refuse(400, "Zone-Instance must be 32 hex digits, drawn when the program starts"),
    }
}

/// How a park ends.
enum End {
    /// The switchboard said so.
    Told(CloseReason),
    /// It was ended from outside.
    Struck(TerminationReason),
    /// The endpoint closed it cleanly.
    Left,
    /// It was cut.
    Cut(io::Error),
}

async fn wait(context: Arc<Context>, admitted: Box<AdmittedConnection>, instance: u128) {
    let name = admitted.registered.leaf.identity.name.clone();
    let (park, mailbox) = context.switchboard.park(&name, instance, admitted.peer);
    tracing::debug!(endpoint = %name, peer = %admitted.peer, park = park.0, "parked");
    let peer = admitted.peer;
    let mut parked = Parked { context, admitted, park, mailbox };
    let connected = match parked.idle().await {
        Ok(request) => parked.connect(&request).await,
        Err(end) => Err(end),
    };
    let end = match connected {
        Ok((answer, early)) => return parked.join(&answer, early),
        Err(end) => end,
    };
    let (switchboard, mut stream) = (Arc::clone(&parked.context.switchboard), parked.admitted.stream);
    match end {
        End::Told(reason) => {
            tracing::debug!(endpoint = %name, %peer, park = park.0, reason = reason.label(), "park closed");
            // A clean close tells the endpoint to come back now, which is wrong for one that misbehaves or has
            // too many parks already.
            if matches!(reason, CloseReason::Draining | CloseReason::CallerGone) {
                let _ = timeout(Duration::from_secs(5), stream.shutdown()).await;
            }
        }
        End::Struck(why) => {
            switchboard.report(Event::ParkGone { park, clean: false });
            if why == TerminationReason::NotAdmitted {
                tracing::info!(endpoint = %name, %peer, park = park.0, "park ended: its certificate is not admitted any more");
            }
        }
        End::Left => {
            switchboard.report(Event::ParkGone { park, clean: true });
            let _ = timeout(Duration::from_secs(5), stream.shutdown()).await;
        }
        End::Cut(error) => {
            switchboard.report(Event::ParkGone { park, clean: false });
            tracing::debug!(endpoint = %name, %peer, park = park.0, "park lost: {error}");
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
        let mut asked = false;
        let mut received = Vec::new();
        loop {
            let read = tokio::select! {
                biased;
                why = self.admitted.registered.termination.terminated() => return Err(End::Struck(why)),
                command = self.mailbox.next() => {
                    match command {
                        Command::Close(reason) => return Err(End::Told(reason)),
                        Command::Ping => {
                            asked = true;
                            self.send(&ping(self.admitted.registered.leaf.identity.name.as_str())).await?;
                        }
                        Command::Assign => {
                            if let Some(request) = self.context.switchboard.take_up(self.park) {
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
            if !asked {
                return Err(self.unexpected("bytes that nobody asked for").await);
            }
            match is_pong(&received, self.context.rules().head) {
                Ok(false) => {}
                Ok(true) => {
                    (asked, received) = (false, Vec::new());
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
                why = self.admitted.registered.termination.terminated() => return Err(End::Struck(why)),
                reason = self.mailbox.closed() => return Err(End::Told(reason)),
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
                    bytes.drain(..length);
                    return Ok((answer, bytes));
                }
                Ok(Some((answer, _))) if answer.status < 200 => {
                    return Err(self.unexpected("a second 1xx answer").await);
                }
                Ok(Some((answer, _))) => {
                    self.context.switchboard.refused(self.park, answer.status, &answer.reason);
                    return Err(End::Told(self.mailbox.closed().await));
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
        self.context.switchboard.accepted(Box::new(leg));
    }

    /// Writes, unless the park is closed first: the switchboard's deadlines bound how long that can take.
    async fn send(&mut self, text: &str) -> Result<(), End> {
        tokio::select! {
            biased;
            why = self.admitted.registered.termination.terminated() => Err(End::Struck(why)),
            written = write(&mut self.admitted.stream, text) => written.map_err(End::Cut),
            reason = self.mailbox.closed() => Err(End::Told(reason)),
        }
    }

    async fn unexpected(&self, why: &str) -> End {
        self.context.refuse(Port::Endpoint, self.admitted.peer, "park_protocol", &why);
        self.context.switchboard.report(Event::Unexpected { park: self.park });
        End::Told(self.mailbox.closed().await)
    }
}

async fn write(stream: &mut Connection, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes()).await?;
    stream.flush().await
}

fn ping(endpoint: &str) -> String {
    write_request("OPTIONS", "*", &[("Host", endpoint)])
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
    fn future_size<F>(_: impl FnOnce(Arc<Context>, Box<AdmittedConnection>, u128) -> F) -> usize {
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
