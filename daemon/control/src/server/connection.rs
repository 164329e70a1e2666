//! One connection to 17488: handshake, requests, and its end when the state changes.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
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
use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use zone_protocol::proof::{EXPORTER_LABEL, EXPORTER_LENGTH, Exported};
use zone_protocol::tls::refusal::{Refusal, capture};
use zone_settings::seconds;

use super::face::Face;
use super::gate::Place;
use super::routes;
use crate::daemon::Daemon;
use crate::metrics::Reason;

/// The smallest buffer that hyper can work with.
const SMALLEST_BUFFER: usize = 8_192;

/// What a handler knows of the other side.
pub(super) struct Peer {
    /// Where it is.
    pub(super) address: SocketAddr,
    /// Its certificates, leaf first; none where it showed none.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// What binds a proof to this connection; absent where TLS can't give it.
    pub(super) exported: Option<Exported>,
    /// Whether a request is past its authorisation, so that it gets its answer whatever it changes.
    pub(super) answering: Cell<bool>,
    /// Of the state that it was accepted under.
    epoch: u64,
    active: Cell<Instant>,
}

/// Serves a connection to its end.
pub(super) async fn serve(daemon: Rc<Daemon>, stream: TcpStream, address: SocketAddr, place: Place) {
    daemon.metrics.open.inc();
    match handshake(&daemon, stream).await {
        Ok((stream, face)) => requests(&daemon, stream, address, &face).await,
        Err(failed) => report(&daemon, address, &failed),
    }
    daemon.metrics.open.dec();
    drop(place);
}

/// Why a handshake came to nothing.
enum Failed {
    Refused(Refusal),
    Tls(io::Error),
    TooSlow(f64),
}

async fn handshake(
    daemon: &Rc<Daemon>,
    stream: TcpStream,
) -> Result<(TlsStream<TcpStream>, Rc<Face>), Failed> {
    let face = Rc::clone(&daemon.face.borrow());
    let deadline = daemon.config().timeouts.handshake;
    let mut accepting = pin!(TlsAcceptor::from(Arc::clone(&face.config)).accept(stream));
    let accepted = poll_fn(|context| {
        let (poll, refusal) = capture(|| accepting.as_mut().poll(context));
        poll.map_err(|error| refusal.map_or(Failed::Tls(error), Failed::Refused))
    });
    match timeout(seconds(deadline), accepted).await {
        Ok(result) => result.map(|stream| (stream, face)),
        Err(_) => Err(Failed::TooSlow(deadline)),
    }
}

fn report(daemon: &Daemon, peer: SocketAddr, failed: &Failed) {
    let (reason, error) = match failed {
        Failed::Refused(refusal) => (refusal.label(), refusal.to_string()),
        Failed::TooSlow(deadline) => ("timeout", format!("not done in {deadline} s")),
        Failed::Tls(error) if left(error) => ("left", "the peer closed the connection".to_owned()),
        Failed::Tls(error) => ("tls", error.to_string()),
    };
    daemon.metrics.handshakes.get_or_create(&Reason { reason }).inc();
    if reason == "left" {
        // Whoever checks whether the port is open does this all day.
        tracing::debug!(%peer, step = "handshake", error, "a connection to 17488 failed");
    } else {
        tracing::warn!(%peer, step = "handshake", error, "a connection to 17488 failed");
    }
}

fn left(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}

async fn requests(daemon: &Rc<Daemon>, stream: TlsStream<TcpStream>, address: SocketAddr, face: &Face) {
    let peer = Rc::new(peer(&stream, address, face.epoch));
    // Registered first and authorised then, so that no change of the state slips between.
    let mut faces = daemon.face.subscribe();
    if let Err(refusal) = admitted(daemon, &peer) {
        report(daemon, address, &Failed::Refused(refusal));
        return;
    }
    let config = daemon.config();
    let (limits, timeouts) = (&config.limits, &config.timeouts);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(seconds(timeouts.head))
        .max_headers(limits.head_fields)
        .max_buf_size(limits.head_bytes.max(SMALLEST_BUFFER));
    let service = service_fn(|request| answer(Rc::clone(daemon), Rc::clone(&peer), request));
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let stalled_after = seconds(timeouts.control_request) + seconds(timeouts.head);
    let mut closing = false;
    loop {
        if !closing && faces.borrow_and_update().epoch != face.epoch {
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
            changed = faces.changed(), if !closing => {
                if changed.is_err() {
                    return;
                }
                if let Err(refusal) = admitted(daemon, &peer) && !peer.answering.get() {
                    tracing::warn!(peer = %address, error = %refusal, "a connection to 17488 was cut");
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

fn peer(stream: &TlsStream<TcpStream>, address: SocketAddr, epoch: u64) -> Peer {
    let tls = stream.get_ref().1;
    let exported = tls.export_keying_material([0; EXPORTER_LENGTH], EXPORTER_LABEL, None).ok();
    let chain = tls.peer_certificates().unwrap_or_default();
    Peer {
        address,
        chain: chain.iter().map(|certificate| certificate.clone().into_owned()).collect(),
        exported,
        answering: Cell::new(false),
        epoch,
        active: Cell::new(Instant::now()),
    }
}

/// Looks at the certificate again, by the state that is in force now: a resumed handshake verified nothing.
fn admitted(daemon: &Daemon, peer: &Peer) -> Result<(), Refusal> {
    let face = Rc::clone(&daemon.face.borrow());
    match (&face.admission, peer.chain.first()) {
        (Some(admission), Some(leaf)) => admission.authorise(leaf, daemon.time.wall()).map(drop),
        _ => Ok(()),
    }
}

async fn answer(
    daemon: Rc<Daemon>,
    peer: Rc<Peer>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    peer.active.set(Instant::now());
    let mut response = routes::answer(&daemon, &peer, request).await;
    if daemon.face.borrow().epoch != peer.epoch {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    peer.active.set(Instant::now());
    peer.answering.set(false);
    Ok(response)
}
