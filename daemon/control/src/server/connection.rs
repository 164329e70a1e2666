//! One connection to 17488: handshake, requests, and its end when the state changes.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::server::TlsStream;
use zone_accept::{HandshakeError, Unauthenticated};
use zone_log_budget::within_budget;
use zone_protocol::head::HeadLimits;
use zone_protocol::tls::refusal::Refusal;
use zone_settings::seconds;

use super::answer::Answer;
use super::peer::Peer;
use super::request::{ReadError, Requests};
use super::routes;
use crate::daemon::Daemon;
use crate::metrics::Reason;
use crate::tls::TlsContext;

/// For the other side to close, once it has its last answer.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of it that are thrown away meanwhile.
const LINGER_BYTES: u64 = 4 * 1_024 * 1_024;

/// Serves a connection to its end.
pub(super) async fn serve(
    daemon: Rc<Daemon>,
    stream: TcpStream,
    address: SocketAddr,
    unauthenticated: Unauthenticated,
) {
    let _open = Open::new(&daemon);
    let evicted = unauthenticated.evicted();
    tokio::select! {
        biased;
        () = evicted => within_budget!(daemon.log_budget, "evicted", warn!(
            peer = %address,
            error = "it had not authenticated when another one came (limits.control_unauthenticated_connections)",
            "a connection to 17488 made room for another one"
        )),
        () = handshake(&daemon, stream, address, unauthenticated) => {}
    }
}

/// A connection that is open, among those that are counted.
struct Open<'a>(&'a Daemon);

impl<'a> Open<'a> {
    fn new(daemon: &'a Daemon) -> Self {
        daemon.metrics.open.inc();
        Self(daemon)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.metrics.open.dec();
    }
}

async fn handshake(
    daemon: &Rc<Daemon>,
    stream: TcpStream,
    address: SocketAddr,
    unauthenticated: Unauthenticated,
) {
    let tls = daemon.tls();
    let deadline = Instant::now() + seconds(daemon.config().timeouts.handshake);
    // The first byte, or the end: the handshake finds out which.
    let _ = timeout_at(deadline, stream.peek(&mut [0; 1])).await;
    unauthenticated.spoke(std::time::Instant::now());
    let (config, turns) = (Arc::clone(&tls.config), &daemon.handshake_turns);
    match zone_accept::handshake(stream, config, deadline, None, turns, &unauthenticated).await {
        Ok(stream) => requests(daemon, stream, address, &tls, unauthenticated).await,
        Err(failed) => report(daemon, address, &failed),
    }
}

fn report(daemon: &Daemon, peer: SocketAddr, failed: &HandshakeError) {
    let (reason, error) = match failed {
        HandshakeError::Refused(refusal) => (refusal.label(), refusal.to_string()),
        HandshakeError::TooSlow => {
            ("timeout", format!("not done in {} s", daemon.config().timeouts.handshake))
        }
        HandshakeError::Closed => ("left", "the peer closed the connection".to_owned()),
        HandshakeError::Tls(error) => ("tls", error.to_string()),
        HandshakeError::Io(error) => ("tls", error.to_string()),
    };
    daemon.metrics.handshakes.get_or_create(&Reason { reason }).inc();
    if reason == "left" {
        // Whoever checks whether the port is open does this all day.
        tracing::debug!(%peer, step = "handshake", error, "a connection to 17488 failed");
    } else {
        within_budget!(
            daemon.log_budget,
            reason,
            warn!(%peer, step = "handshake", error, "a connection to 17488 failed")
        );
    }
}

async fn requests(
    daemon: &Rc<Daemon>,
    stream: TlsStream<TcpStream>,
    address: SocketAddr,
    tls: &TlsContext,
    unauthenticated: Unauthenticated,
) {
    let peer = Peer::new(&stream, address, tls.epoch, unauthenticated);
    // Registered first and authorised then, so that no change of the state slips between.
    let changes = daemon.tls.subscribe();
    match admitted(daemon, &peer).map(|member| member.then(|| peer.has_authenticated(daemon))) {
        Ok(None | Some(Ok(()))) => {}
        Ok(Some(Err(refused))) => return daemon.log_refused(address, refused),
        Err(refusal) => return report(daemon, address, &refusal.into()),
    }
    let mut requests = Requests::new(stream);
    let ended = tokio::select! {
        ended = answer_all(daemon, &peer, &mut requests) => ended,
        refusal = shut_out(daemon, &peer, changes) => {
            within_budget!(
                daemon.log_budget,
                "cut",
                warn!(peer = %address, error = %refusal, "a connection to 17488 was cut")
            );
            return;
        }
    };
    match ended {
        Ok(()) => close(requests.into_stream()).await,
        Err(error) => tracing::debug!(peer = %address, %error, "a connection to 17488 ended early"),
    }
}

/// Answers one request after the other, up to the last one. After a change of the state that is the next one, whenever it
/// comes: none that is on its way goes without an answer.
async fn answer_all(
    daemon: &Rc<Daemon>,
    peer: &Peer,
    requests: &mut Requests<TlsStream<TcpStream>>,
) -> Result<(), ReadError> {
    loop {
        let config = daemon.config();
        let deadline = seconds(config.timeouts.head);
        let limits = HeadLimits { bytes: config.limits.head_bytes, fields: config.limits.head_fields };
        let head = match timeout(deadline, requests.next_head(limits)).await {
            Ok(Ok(head)) => head,
            Ok(Err(ReadError::Head(error))) => {
                let answer = routes::refuse_head(daemon, peer, &error);
                return send(daemon, requests, &answer, "", deadline).await;
            }
            Ok(Err(ReadError::Closed)) | Err(_) => return Ok(()),
            Ok(Err(error)) => return Err(error),
        };
        let mut answer = routes::answer(daemon, peer, &head, requests).await;
        let is_outdated = daemon.tls().epoch != peer.epoch;
        answer.closes |= requests.has_unread_body() || is_outdated || head.wants_close();
        let sent = send(daemon, requests, &answer, &head.method, deadline).await;
        peer.answering.set(false);
        if answer.closes || sent.is_err() {
            return sent;
        }
    }
}

async fn send(
    daemon: &Daemon,
    requests: &mut Requests<TlsStream<TcpStream>>,
    answer: &Answer,
    method: &str,
    deadline: Duration,
) -> Result<(), ReadError> {
    let bytes = answer.to_bytes(method, daemon.time.wall());
    let sent = timeout(deadline, requests.send(&bytes)).await;
    Ok(sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?)
}

/// Waits until the state lets this client in no more. One whose request is being carried out gets its answer.
async fn shut_out(daemon: &Daemon, peer: &Peer, mut changes: watch::Receiver<Rc<TlsContext>>) -> Refusal {
    while changes.changed().await.is_ok() {
        if let Err(refusal) = admitted(daemon, peer)
            && !peer.answering.get()
        {
            return refusal;
        }
    }
    // The daemon is gone, and this task with it.
    pending().await
}

/// Ends a connection so that its last answer arrives: whoever closes while bytes wait unread resets it (RFC 9112, section
/// 9.6), so what still comes is thrown away, for a while.
async fn close(mut stream: TlsStream<TcpStream>) {
    let ending = async {
        stream.shutdown().await?;
        let (tcp, _) = stream.get_mut();
        tokio::io::copy(&mut tcp.take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    // However it ends, nobody is left to be told.
    let _ = timeout(LINGER_TIMEOUT, ending).await;
}

/// Looks at the certificate again, by the state that is in force now: a resumed handshake verified nothing. Whether it is a
/// member's.
fn admitted(daemon: &Daemon, peer: &Peer) -> Result<bool, Refusal> {
    let tls = daemon.tls();
    match &tls.admission {
        Some(admission) if !peer.chain.is_empty() => {
            admission.authorise(&peer.chain, daemon.time.wall()).map(|_| true)
        }
        _ => Ok(false),
    }
}
