//! One connection to 17488: handshake, requests, and its end when the state changes.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_rustls::server::TlsStream;
use zone_accept::{HandshakeError, Unauthenticated, within_budget};
use zone_protocol::tls::refusal::Refusal;
use zone_settings::seconds;

use super::peer::Peer;
use super::routes;
use crate::daemon::Daemon;
use crate::metrics::Reason;
use crate::tls::TlsContext;

/// The smallest buffer that hyper can work with.
const MIN_BUFFER_BYTES: usize = 8_192;

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
    let peer = Rc::new(Peer::new(&stream, address, tls.epoch, unauthenticated));
    // Registered first and authorised then, so that no change of the state slips between.
    let mut changes = daemon.tls.subscribe();
    match admitted(daemon, &peer).map(|member| member.then(|| peer.has_authenticated(daemon))) {
        Ok(None | Some(Ok(()))) => {}
        Ok(Some(Err(refused))) => return daemon.log_refused(address, refused),
        Err(refusal) => return report(daemon, address, &refusal.into()),
    }
    let config = daemon.config();
    let (limits, timeouts) = (&config.limits, &config.timeouts);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(seconds(timeouts.head))
        .max_headers(limits.head_fields)
        .max_buf_size(limits.head_bytes.max(MIN_BUFFER_BYTES));
    let service = service_fn(|request| answer(Rc::clone(daemon), Rc::clone(&peer), request));
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let stalled_after = seconds(timeouts.control_request) + seconds(timeouts.head);
    let mut closing = false;
    loop {
        if !closing && changes.borrow_and_update().epoch != tls.epoch {
            closing = true;
            connection.as_mut().graceful_shutdown();
        }
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(peer = %address, %error, "a connection to 17488 ended early");
                }
                return;
            }
            changed = changes.changed(), if !closing => {
                if changed.is_err() {
                    return;
                }
                if let Err(refusal) = admitted(daemon, &peer) && !peer.answering.get() {
                    within_budget!(
                        daemon.log_budget,
                        "cut",
                        warn!(peer = %address, error = %refusal, "a connection to 17488 was cut")
                    );
                    return;
                }
            }
            () = sleep_until(peer.active.get() + stalled_after) => {
                if peer.active.get().elapsed() >= stalled_after {
                    tracing::debug!(peer = %address, "a connection to 17488 stalled and was cut");
                    return;
                }
            }
        }
    }
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

async fn answer(
    daemon: Rc<Daemon>,
    peer: Rc<Peer>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    peer.active.set(Instant::now());
    let mut response = routes::answer(&daemon, &peer, request).await;
    if daemon.tls().epoch != peer.epoch {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    peer.active.set(Instant::now());
    peer.answering.set(false);
    Ok(response)
}
