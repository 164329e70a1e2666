//! One parked connection, again and again: dial, hold, hand over to a session, dial the next.

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

use crate::back_off::BackOff;
use crate::dial::Connection;
use crate::dialogue::{Asked, Dialogue, SessionRequest};
use crate::endpoint::{Phase, Shared};
use crate::events::Event;
use crate::handshake::alert;
use crate::session;
use crate::stream::{ProxyTls, drain};

/// The proxy calls a park dead when a ping's answer takes longer.
const ANSWER: Duration = Duration::from_secs(10);

/// Saying goodbye to the proxy may take this long.
const FAREWELL: Duration = Duration::from_secs(1);

/// A park that lived this long was a success, even if it is cut then.
const SETTLED: Duration = Duration::from_secs(5);

/// Pings and a CONNECT are read in pieces of this size, from the stack: an idle park owns no buffer.
const PIECE: usize = 1024;

/// Keeps one park until the endpoint closes.
pub(crate) async fn keep(shared: Arc<Shared>, mut phase: watch::Receiver<Phase>) {
    let mut back_off = BackOff::new(shared.timing.back_off_first, shared.timing.back_off_longest);
    loop {
        // The stages are boxed so that an idle park doesn't hold the room of a handshake.
        let dialed = tokio::select! {
            () = closing(&mut phase) => return,
            dialed = Box::pin(dial(&shared)) => dialed,
        };
        let pause = match dialed {
            None => back_off.after_failure(&mut rand::rng()),
            Some(connection) => match Box::pin(hold(connection, &shared, &mut phase)).await {
                Held::Closing => return,
                Held::Taken(connection, request) => {
                    back_off.reset();
                    Box::pin(session::take(connection, request, &shared, &phase)).await;
                    continue;
                }
                Held::Lost { clean: true, .. } => BackOff::after_clean_close(&mut rand::rng()),
                Held::Lost { proved, .. } => {
                    if proved {
                        back_off.reset();
                    }
                    back_off.after_failure(&mut rand::rng())
                }
            },
        };
        debug!(?pause, "waiting before the next dial");
        shared.emit(&Event::Waiting { pause });
        tokio::select! {
            () = closing(&mut phase) => return,
            () = sleep(pause) => {}
        }
    }
}

/// Completes when the endpoint no longer wants parks.
async fn closing(phase: &mut watch::Receiver<Phase>) {
    // An error means that the endpoint is gone altogether.
    let _ = phase.wait_for(|phase| *phase != Phase::Serving).await;
}

/// Tries each proxy once, from the one that was good last.
async fn dial(shared: &Shared) -> Option<Connection> {
    for proxy in shared.proxies.in_order() {
        match shared.dialer.park(&proxy.address).await {
            Ok(connection) => {
                shared.proxies.good(proxy);
                info!(proxy = %connection.proxy, "parked");
                shared.emit(&Event::Parked { proxy: Arc::clone(&connection.proxy), local: connection.local });
                return Some(connection);
            }
            Err(error) => {
                let reason = error.to_string();
                proxy.complain(&reason);
                shared.emit(&Event::DialFailed { proxy: error.proxy, reason });
            }
        }
    }
    None
}

/// How a park ended.
enum Held {
    Taken(Connection, SessionRequest),
    /// `proved` is a connection that worked for a while.
    Lost {
        clean: bool,
        proved: bool,
    },
    Closing,
}

/// Answers pings until a CONNECT comes or the connection ends.
async fn hold(mut connection: Connection, shared: &Shared, phase: &mut watch::Receiver<Phase>) -> Held {
    let since = Instant::now();
    let received = std::mem::take(&mut connection.received);
    let mut dialogue = Dialogue::new(shared.id.clone(), Arc::clone(&connection.proxy), received);
    let mut answered = false;
    let (clean, reason) = loop {
        match dialogue.asked() {
            Ok(Some(Asked::Session(request))) => return Held::Taken(connection, request),
            Ok(Some(Asked::Ping)) => {
                if let Err(reason) = answer_ping(&mut connection).await {
                    break (false, reason);
                }
                answered = true;
                continue;
            }
            Ok(None) => {}
            Err(violation) => break (false, format!("protocol error: {violation}")),
        }
        let silence = shared.timing.silence;
        let read = tokio::select! {
            () = closing(phase) => {
                farewell(&mut connection.tls).await;
                return Held::Closing;
            }
            read = timeout(silence, receive(&mut connection.tls, &mut dialogue)) => read,
        };
        match read {
            Ok(Ok(1..)) => {}
            Ok(Ok(0)) => {
                farewell(&mut connection.tls).await;
                break (true, "closed by the proxy".to_owned());
            }
            Ok(Err(error)) => break (false, lost(&error)),
            Err(_) => break (false, format!("not a byte for {} s", silence.as_secs_f32())),
        }
    };
    info!(proxy = %connection.proxy, clean, "park lost: {reason}");
    shared.emit(&Event::ParkLost { proxy: connection.proxy, clean, reason });
    Held::Lost { clean, proved: answered || since.elapsed() >= SETTLED }
}

async fn answer_ping(connection: &mut Connection) -> Result<(), String> {
    let answer = write_response(200, "OK", &[("Content-Length", "0")]);
    let write = async {
        connection.tls.write_all(answer.as_bytes()).await?;
        connection.tls.flush().await
    };
    match timeout(ANSWER, write).await {
        Ok(written) => written.map_err(|error| lost(&error)),
        Err(_) => Err(format!("a ping could not be answered within {} s", ANSWER.as_secs())),
    }
}

/// Reads what is there into `dialogue`; 0 is an orderly end.
async fn receive(stream: &mut (impl AsyncRead + Unpin), dialogue: &mut Dialogue) -> io::Result<usize> {
    poll_fn(|cx| {
        let mut piece = [0; PIECE];
        let mut piece = ReadBuf::new(&mut piece);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut piece))?;
        dialogue.receive(piece.filled());
        Ok(piece.filled().len()).into()
    })
    .await
}

/// Ends a park in an orderly way, as far as the proxy lets it.
async fn farewell(tls: &mut ProxyTls) {
    let goodbye = async {
        if tls.shutdown().await.is_ok() {
            drain(tls).await;
        }
    };
    let _ = timeout(FAREWELL, goodbye).await;
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
    use crate::endpoint::Endpoint;

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
        let shared = Endpoint::new("host-7".parse().unwrap(), &[], Arc::new(tls)).into_shared();
        let (_phase, mut watched) = watch::channel(Phase::Serving);
        let keeping = size_of_val(&keep(Arc::clone(&shared), watched.clone()));
        let holding = future_size(&|connection| hold(connection, &shared, &mut watched));
        assert!(keeping <= 704, "keeping takes {keeping} bytes");
        assert!(holding <= 768, "holding takes {holding} bytes");
    }
}
