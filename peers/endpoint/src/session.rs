//! One session, from its CONNECT to its last byte.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};
use zone_protocol::fields;
use zone_protocol::head::write_response;
use zone_protocol::identity::{Identity, printable};
use zone_protocol::tls::certificate::Leaf;

use crate::dial::Connection;
use crate::events::Event;
use crate::handshake::shake_hands;
use crate::life::{Life, Phase};
use crate::requests::SessionRequest;
use crate::service::{Decline, Entry, Protection, Serve};
use crate::shared::Shared;
use crate::stream::{Meter, ProxyTls, SessionStream, drain};

/// An answer to a CONNECT must be taken by the network within this time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Starts the session that a CONNECT asks for on a task of its own, or refuses it. Refusing is done here, so
/// that there are never more refusals under way than parks.
pub(crate) async fn take(
    connection: Connection,
    request: SessionRequest,
    shared: &Arc<Shared>,
    life: &watch::Receiver<Life>,
) {
    let Some(entry) = shared.services.find(&request.service) else {
        return refuse(connection.tls, &request, shared, &Decline::NO_SUCH_SERVICE).await;
    };
    let Ok(permit) = Arc::clone(&shared.sessions).try_acquire_owned() else {
        return refuse(connection.tls, &request, shared, &Decline::TOO_MANY_SESSIONS).await;
    };
    tokio::spawn(carry(connection.tls, request, entry, Arc::clone(shared), permit, life.clone()));
}

/// Carries one session; `permit` counts it until it is over.
async fn carry(
    tls: Box<ProxyTls>,
    request: SessionRequest,
    entry: Arc<Entry>,
    shared: Arc<Shared>,
    permit: OwnedSemaphorePermit,
    mut life: watch::Receiver<Life>,
) {
    let aborted = async {
        // An error means that the endpoint is gone altogether.
        let _ = life.wait_for(|life| life.phase == Phase::Aborting).await;
    };
    let setup = Box::pin(set_up(tls, &request, &entry, &shared));
    tokio::pin!(aborted);
    let ready = tokio::select! {
        () = &mut aborted => None,
        ready = setup => ready,
    };
    let Some(Ready { stream, serve, meter, module_server }) = ready else { return };

    let id = request.id;
    info!(
        session = %id,
        service = %request.service,
        module_server = module_server.as_ref().map(tracing::field::display),
        forwarded_for = request.forwarded_for.as_ref().map(tracing::field::display),
        "the session started"
    );
    shared.emit(&Event::SessionStarted { id, service: request.service, module_server });
    let ended = tokio::select! {
        ended = serve(stream) => ended,
        () = aborted => Err(io::Error::other("the endpoint is stopping")),
    };
    let received = meter.received.load(Ordering::Relaxed);
    let sent = meter.sent.load(Ordering::Relaxed);
    let broken = ended.err().map(|error| error.to_string());
    info!(session = %id, received, sent, broken = broken.as_deref(), "the session ended");
    // The permit is free again before anybody hears that the session is over.
    drop(permit);
    shared.emit(&Event::SessionEnded { id, received, sent, broken });
}

/// A session that payload can flow through.
struct Ready {
    stream: SessionStream,
    serve: Serve,
    meter: Arc<Meter>,
    module_server: Option<Identity>,
}

/// Opens the service, answers the CONNECT and, where it is required, shakes hands end to end.
async fn set_up(
    mut tls: Box<ProxyTls>,
    request: &SessionRequest,
    entry: &Entry,
    shared: &Shared,
) -> Option<Ready> {
    let opened = timeout(shared.timing.target_connect, entry.service.open(request)).await;
    let serve = match opened.unwrap_or(Err(Decline::TARGET_TIMED_OUT)) {
        Ok(serve) => serve,
        Err(decline) => {
            refuse(tls, request, shared, &decline).await;
            return None;
        }
    };
    let head = write_response(200, "OK", &[(fields::END_TO_END, entry.protection.as_str())]);
    if let Err(error) = send(&mut tls, &head).await {
        refused(request, shared, format!("the CONNECT could not be answered: {error}"));
        return None;
    }
    let meter = Arc::new(Meter::default());
    let config = match &entry.protection {
        Protection::Off => None,
        Protection::EndToEnd(config) => Some(Arc::clone(config)),
        Protection::EndToEndByFiles => match shared.tls().end_to_end {
            None => {
                refused(request, shared, "end-to-end TLS: this endpoint has no files for it".to_owned());
                return None;
            }
            config => config,
        },
    };
    let (stream, module_server) = match config {
        None => (SessionStream::plain(tls, Arc::clone(&meter)), None),
        Some(config) => {
            let inner = shake_hands_end_to_end(tls, &config, shared.timing.end_to_end, &meter).await;
            match inner {
                Ok((stream, identity)) => (stream, Some(identity)),
                Err(reason) => {
                    refused(request, shared, format!("end-to-end TLS: {reason}"));
                    return None;
                }
            }
        }
    };
    Some(Ready { stream, serve, meter, module_server })
}

async fn shake_hands_end_to_end(
    tls: Box<ProxyTls>,
    config: &Arc<ServerConfig>,
    limit: Duration,
    meter: &Arc<Meter>,
) -> Result<(SessionStream, Identity), String> {
    let handshake = TlsAcceptor::from(Arc::clone(config)).accept(tls).into_fallible();
    let inner = match timeout(limit, shake_hands(handshake)).await {
        Ok(Ok(inner)) => inner,
        Ok(Err((error, mut outer))) => {
            // The alert tells the other side why; the session itself ends in order behind it.
            let _ = timeout(ANSWER_TIMEOUT, outer.shutdown()).await;
            drain(&mut *outer).await;
            return Err(error.to_string());
        }
        Err(_) => return Err(format!("the handshake took longer than {} s", limit.as_secs_f32())),
    };
    let certificate = inner.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let leaf = certificate.ok_or("the other side showed no certificate".to_owned())?;
    let identity = Leaf::read(leaf).map_err(|error| error.to_string())?.identity;
    Ok((SessionStream::end_to_end(inner, Arc::clone(meter)), identity))
}

/// Tells the proxy no and closes.
async fn refuse(mut tls: Box<ProxyTls>, request: &SessionRequest, shared: &Shared, decline: &Decline) {
    let reason = printable(&decline.reason);
    let head = write_response(decline.status, &reason, &[("Content-Length", "0"), ("Connection", "close")]);
    refused(request, shared, format!("{} {reason}", decline.status));
    if send(&mut tls, &head).await.is_ok()
        && matches!(timeout(ANSWER_TIMEOUT, tls.shutdown()).await, Ok(Ok(())))
    {
        drain(&mut *tls).await;
    }
}

async fn send(tls: &mut ProxyTls, head: &str) -> io::Result<()> {
    let write = async {
        tls.write_all(head.as_bytes()).await?;
        tls.flush().await
    };
    timeout(ANSWER_TIMEOUT, write).await.map_err(io::Error::from)?
}

fn refused(request: &SessionRequest, shared: &Shared, reason: String) {
    let SessionRequest { id, service, proxy, .. } = request;
    warn!(session = %id, %service, %proxy, "the session was refused: {reason}");
    shared.emit(&Event::SessionRefused { id: *id, service: service.clone(), reason });
}
