//! One park and its successors: dial, hold, hand over to a session, dial the next.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::ready;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWriteExt as _, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info};
use zone_protocol::head::write_response;
use zone_protocol::park_end;

use crate::back_off::BackOff;
use crate::dial::Connection;
use crate::events::Event;
use crate::handshake::alert;
use crate::life::{Life, Phase};
use crate::requests::{Request, RequestDecoder, SessionRequest};
use crate::session;
use crate::shared::Shared;
use crate::stream::{ProxyTls, drain};

/// The proxy calls a park dead when a ping's answer takes longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// An orderly close may take this long.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A park that lived this long was a success, even if it is cut then.
const MIN_STABLE_TIME: Duration = Duration::from_secs(5);

/// The first wait after a park was pushed out by somebody else's is drawn from the upper half of this.
const FIRST_EVICTION_WINDOW: Duration = Duration::from_secs(60);

/// The longest such wait.
const LONGEST_EVICTION_WINDOW: Duration = Duration::from_secs(600);

/// Pings and a CONNECT are read in pieces of this size, from the stack: an idle park owns no buffer.
const MAX_READ_BYTES: usize = 1024;

/// Which of the endpoint's parks this is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept {
    /// Its place among them, from 0. Where fewer are wanted, those of the highest places go.
    pub(crate) place: u32,
    /// The number of the certificates that it is made with.
    pub(crate) number: u64,
}

/// Maintains one park until the endpoint drains, or until parks that are made with newer certificates take its place. While
/// fewer parks are wanted, it waits.
pub(crate) async fn maintain(shared: Arc<Shared>, mut life: watch::Receiver<Life>, kept: Kept) {
    let mut back_off = BackOff::new(shared.timing.back_off_first, shared.timing.back_off_longest);
    let mut evictions = BackOff::new(FIRST_EVICTION_WINDOW, LONGEST_EVICTION_WINDOW);
    while is_due(&mut life, kept).await {
        // The stages are boxed so that an idle park doesn't hold the room of a handshake.
        let dialed = tokio::select! {
            () = draining(&mut life) => return,
            dialed = Box::pin(dial(&shared, kept.number)) => dialed,
        };
        let pause = match dialed {
            None => back_off.after_failure(&mut rand::rng()),
            Some(connection) => match Box::pin(hold(connection, &shared, &mut life, kept)).await {
                ParkEnd::LetGo => continue,
                ParkEnd::Taken(connection, request) => {
                    back_off.reset();
                    evictions.reset();
                    Box::pin(session::take(connection, request, &shared, &life)).await;
                    continue;
                }
                ParkEnd::Lost(Loss::Evicted) => evictions.after_eviction(&mut rand::rng()),
                ParkEnd::Lost(Loss::Clean { proved }) => {
                    if proved {
                        back_off.reset();
                    }
                    back_off.after_clean_close(&mut rand::rng())
                }
                ParkEnd::Lost(Loss::Broken { proved }) => {
                    if proved {
                        back_off.reset();
                    }
                    back_off.after_failure(&mut rand::rng())
                }
            },
        };
        debug!(?pause, "the endpoint waits before it dials again");
        shared.emit(&Event::Waiting { pause });
        tokio::select! {
            () = superseded(&mut life, kept) => return,
            () = sleep(pause) => {}
        }
    }
}

/// Waits until this park is wanted; not, where it never will be any more.
async fn is_due(life: &mut watch::Receiver<Life>, kept: Kept) -> bool {
    let is_over = |life: &Life| life.phase != Phase::Serving || life.renewed > kept.number;
    // An error means that the endpoint is gone altogether.
    life.wait_for(|life| is_over(life) || life.parks > kept.place).await.is_ok_and(|life| !is_over(&life))
}

/// Completes when the endpoint no longer wants parks.
async fn draining(life: &mut watch::Receiver<Life>) {
    // An error means that the endpoint is gone altogether.
    let _ = life.wait_for(|life| life.phase != Phase::Serving).await;
}

/// Completes when no park is to be dialed with these certificates any more.
async fn superseded(life: &mut watch::Receiver<Life>, kept: Kept) {
    let _ = life.wait_for(|life| life.phase != Phase::Serving || life.renewed > kept.number).await;
}

/// Completes when this park is to go.
async fn let_go(life: &mut watch::Receiver<Life>, kept: Kept) {
    let goes = |life: &Life| life.accepted > kept.number || life.parks <= kept.place;
    let _ = life.wait_for(|life| life.phase != Phase::Serving || goes(life)).await;
}

/// Tries each proxy once, from the one that was good last; none where there are newer certificates.
async fn dial(shared: &Shared, number: u64) -> Option<Connection> {
    let _dialing = shared.allowance.dialing();
    for proxy in shared.proxies.in_order() {
        let tls = shared.tls();
        if tls.number != number {
            return None;
        }
        match shared.dialer.park(&proxy.address, tls.client).await {
            Ok(connection) => {
                shared.accepted(number);
                shared.proxies.mark_good(proxy);
                info!(proxy = %connection.proxy, "the endpoint is parked");
                shared.emit(&Event::Parked { proxy: Arc::clone(&connection.proxy), local: connection.local });
                return Some(connection);
            }
            Err(error) => {
                let reason = error.to_string();
                proxy.log_failure(&reason);
                shared.emit(&Event::DialFailed { proxy: error.proxy, reason });
            }
        }
    }
    None
}

/// How a park ended.
enum ParkEnd {
    /// A session takes it.
    Taken(Connection, SessionRequest),
    /// The connection is gone.
    Lost(Loss),
    /// The endpoint wants it no longer.
    LetGo,
}

/// How a connection was lost, which tells when to dial again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// The proxy closed it in an orderly way and wants the endpoint back at once; `proved` is one that worked for a while.
    Clean { proved: bool },
    /// A newer park of the same id took its place, which is none of ours.
    Evicted,
    /// It broke, or is to be taken for it.
    Broken { proved: bool },
}

/// One park among those that are counted, until it is dropped.
struct Counted<'a> {
    shared: &'a Shared,
    was_cut: bool,
}

impl<'a> Counted<'a> {
    fn begin(shared: &'a Shared, keeps: Option<u32>) -> Self {
        shared.want(shared.allowance.parked(keeps));
        Self { shared, was_cut: false }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if self.was_cut {
            self.shared.want(self.shared.allowance.cut());
        } else {
            self.shared.allowance.gone();
        }
    }
}

/// Answers pings until a CONNECT comes or the connection ends.
async fn hold(
    mut connection: Connection,
    shared: &Shared,
    life: &mut watch::Receiver<Life>,
    kept: Kept,
) -> ParkEnd {
    let since = Instant::now();
    let mut counted = Counted::begin(shared, connection.keeps);
    let received = std::mem::take(&mut connection.received);
    let mut decoder = RequestDecoder::new(shared.id.clone(), Arc::clone(&connection.proxy), received);
    let mut answered = false;
    let is_proved = |answered| answered || since.elapsed() >= MIN_STABLE_TIME;
    let broken = |answered| Loss::Broken { proved: is_proved(answered) };
    let (loss, reason) = loop {
        match decoder.next_request() {
            Ok(Some(Request::Session(request))) => return ParkEnd::Taken(connection, request),
            Ok(Some(Request::Ping)) => {
                if let Err(reason) = answer_ping(&mut connection).await {
                    break (broken(answered), reason);
                }
                answered = true;
                continue;
            }
            Ok(Some(Request::End(end))) => {
                close(&mut connection.tls).await;
                break let_go_by_proxy(end, shared);
            }
            Ok(None) => {}
            Err(violation) => break (broken(answered), format!("protocol error: {violation}")),
        }
        let silence = shared.timing.silence;
        let read = tokio::select! {
            () = let_go(life, kept) => {
                close(&mut connection.tls).await;
                return ParkEnd::LetGo;
            }
            read = timeout(silence, receive(&mut connection.tls, &mut decoder)) => read,
        };
        match read {
            Ok(Ok(1..)) => {}
            Ok(Ok(0)) => {
                close(&mut connection.tls).await;
                break (Loss::Clean { proved: is_proved(answered) }, "closed by the proxy".to_owned());
            }
            Ok(Err(error)) => {
                counted.was_cut = true;
                break (broken(answered), lost(&error));
            }
            Err(_) => break (broken(answered), format!("not a byte for {} s", silence.as_secs_f32())),
        }
    };
    let clean = matches!(loss, Loss::Clean { .. });
    info!(proxy = %connection.proxy, clean, "park lost: {reason}");
    shared.emit(&Event::ParkLost { proxy: connection.proxy, clean, reason });
    ParkEnd::Lost(loss)
}

/// What the word of the proxy about the end of a park comes to.
fn let_go_by_proxy(end: park_end::ParkEnd, shared: &Shared) -> (Loss, String) {
    match end {
        park_end::ParkEnd::Evicted if shared.allowance.is_own_surplus() => (
            Loss::Clean { proved: false },
            "the proxy let it go: this endpoint holds more parks than it keeps".to_owned(),
        ),
        park_end::ParkEnd::Evicted => {
            (Loss::Evicted, "the proxy let it go: a newer park of this endpoint id took its place".to_owned())
        }
        park_end::ParkEnd::TooManyEndpoints => {
            let words =
                "the proxy let it go: as many endpoints as it allows are connected (limits.endpoints there)";
            (Loss::Broken { proved: false }, words.to_owned())
        }
        park_end::ParkEnd::Other => (Loss::Broken { proved: false }, "the proxy let it go".to_owned()),
    }
}

async fn answer_ping(connection: &mut Connection) -> Result<(), String> {
    let answer = write_response(200, "OK", &[("Content-Length", "0")]);
    let write = async {
        connection.tls.write_all(answer.as_bytes()).await?;
        connection.tls.flush().await
    };
    match timeout(ANSWER_TIMEOUT, write).await {
        Ok(written) => written.map_err(|error| lost(&error)),
        Err(_) => Err(format!("a ping could not be answered within {} s", ANSWER_TIMEOUT.as_secs())),
    }
}

/// Reads what is there into `decoder`; 0 is an orderly end.
async fn receive(stream: &mut (impl AsyncRead + Unpin), decoder: &mut RequestDecoder) -> io::Result<usize> {
    poll_fn(|cx| {
        let mut buffer = [0; MAX_READ_BYTES];
        let mut buffer = ReadBuf::new(&mut buffer);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer))?;
        decoder.feed(buffer.filled());
        Ok(buffer.filled().len()).into()
    })
    .await
}

/// Ends a park in an orderly way, as far as the proxy lets it.
async fn close(tls: &mut ProxyTls) {
    let close = async {
        if tls.shutdown().await.is_ok() {
            drain(tls).await;
        }
    };
    let _ = timeout(CLOSE_TIMEOUT, close).await;
}

fn lost(error: &io::Error) -> String {
    match alert(error) {
        Some(words) => words.to_owned(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the connection broke: it ended without close_notify".to_owned()
        }
        None => format!("the connection broke: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use rustls::{ClientConfig, RootCertStore};
    use zone_protocol::tls::policy::Versions;

    use super::*;
    use crate::renewal::CurrentTls;

    /// The size of the future that a function gives, without calling it.
    fn future_size<A, F>(_: &impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_park_needs_little_room_beside_its_connection() {
        let tls = ClientConfig::builder_with_provider(Versions::Tls12.provider())
            .with_protocol_versions(Versions::Tls12.protocol_versions())
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let tls = CurrentTls::fixed(Arc::new(tls));
        let shared = Arc::new(Shared::new("host-7".parse().unwrap(), &[], tls));
        let mut watched = shared.life.subscribe();
        let kept = Kept { place: 0, number: 0 };
        let keeping = size_of_val(&maintain(Arc::clone(&shared), watched.clone(), kept));
        let holding = future_size(&|connection| hold(connection, &shared, &mut watched, kept));
        assert!(keeping <= 800, "keeping takes {keeping} bytes");
        assert!(holding <= 896, "holding takes {holding} bytes");
    }
}
