//! Revoking one endpoint while others work.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use zone_endpoint::{Event, Observer};
use zone_module::session::Session;
use zone_tests::TEST_TIMEOUT;
use zone_tests::host::Host;
use zone_tests::process::succeed;
use zone_tests::zone::Zone;

use super::peers::{Inside, echo, round_trip, run, serving};

/// What a revocation may take, from typing it to the end of everything that the endpoint has.
const REVOCATION_TIMEOUT: Duration = Duration::from_secs(1);

/// Round trips that the other endpoint makes at least while the first one is revoked.
const ROUND_TRIPS: usize = 200;

/// Acceptance 7: `zone-module revoke endpoint` ends parks and sessions of that endpoint in under a second; the
/// sessions and parks of another one go on without an error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoking_an_endpoint_ends_what_it_has_at_once_and_nothing_of_others() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let inside = Inside::of(&zone);
    let (lost, mut lost_happens) = watched();
    let (kept, mut kept_happens) = watched();
    for (id, observer) in [("lost", lost), ("kept", kept)] {
        drop(run(serving(inside.endpoint(&host, id).with_observer(observer), "echo", echo())));
    }
    host.counts("both endpoints have parked", |counts| counts["endpoints"] == 2 && counts["parks"] == 4);
    let mut theirs = inside.session("lost:echo").await;
    let mut other = inside.session("kept:echo").await;
    round_trip(&mut theirs, 1).await.expect("a session");
    host.counts("all are parked again", |counts| counts["sessions"] == 2 && counts["parks"] == 4);
    while lost_happens.try_recv().is_ok() || kept_happens.try_recv().is_ok() {}

    let (over, trips) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let working = {
        let (over, trips) = (Arc::clone(&over), Arc::clone(&trips));
        tokio::spawn(async move {
            let mut slowest = Duration::ZERO;
            while !over.load(Ordering::SeqCst) {
                let began = Instant::now();
                round_trip(&mut other, 2).await?;
                slowest = slowest.max(began.elapsed());
                trips.fetch_add(1, Ordering::SeqCst);
            }
            Ok::<_, io::Error>((other, slowest))
        })
    };
    passed(&trips, ROUND_TRIPS).await;

    let began = Instant::now();
    let mut command = zone.cli(&["revoke", "endpoint", "lost"]);
    let revoked = spawn_blocking(move || {
        succeed(&mut command, b"");
        began.elapsed()
    });
    let caller = ended(&mut theirs, began);
    let endpoint = everything_ended(&mut lost_happens, began);
    let (caller, (session, parks), command) = tokio::join!(caller, endpoint, revoked);
    let command = command.expect("no panic");
    passed(&trips, trips.load(Ordering::SeqCst) + ROUND_TRIPS).await;
    over.store(true, Ordering::SeqCst);
    let (other, slowest) = working.await.expect("no panic").expect("the other session goes on");
    drop(other);

    println!("from the start of 'zone-module revoke endpoint'   ms");
    for (what, after) in [
        ("the caller's session ended", caller),
        ("the endpoint's session ended", session),
        ("the endpoint's last park ended", parks),
        ("the command ended", command),
    ] {
        println!("{what:<45} {:>6.1}", millis(after));
    }
    let trips = trips.load(Ordering::SeqCst);
    println!("another endpoint meanwhile: {trips} round trips, the slowest {:.1} ms", millis(slowest));
    for (what, after) in [("caller", caller), ("session", session), ("parks", parks)] {
        assert!(after < REVOCATION_TIMEOUT, "{what}: {after:?}");
    }
    let mut events = std::iter::from_fn(|| kept_happens.try_recv().ok());
    assert!(events.all(|(_, event)| matches!(event, Event::SessionEnded { .. })), "the other lost a park");
    host.counts("only the other is left", |counts| counts["endpoints"] == 1 && counts["parks"] == 2);
}

type Happened = (Instant, Event);

/// Collects events of one endpoint; only a handful happen here.
fn watched() -> (Observer, UnboundedReceiver<Happened>) {
    let (sender, events) = unbounded_channel();
    (Arc::new(move |event| drop(sender.send((Instant::now(), event.clone())))), events)
}

/// When a session breaks off for the caller.
async fn ended(session: &mut Session, since: Instant) -> Duration {
    let end = timeout(TEST_TIMEOUT, session.read_u8()).await.expect("the session goes on");
    let after = since.elapsed();
    assert!(end.is_err(), "more payload");
    after
}

/// When the session and the last of two parks of an endpoint are gone.
async fn everything_ended(events: &mut UnboundedReceiver<Happened>, since: Instant) -> (Duration, Duration) {
    let (mut session, mut parks) = (None, Vec::new());
    while session.is_none() || parks.len() < 2 {
        let happened =
            timeout(TEST_TIMEOUT, events.recv()).await.expect("something is left").expect("it runs");
        match happened {
            (at, Event::SessionEnded { broken, .. }) => {
                assert!(broken.is_some(), "it looks like a proper end");
                session = Some(at - since);
            }
            (at, Event::ParkLost { .. }) => parks.push(at - since),
            (_, Event::Parked { .. }) => panic!("it parked again"),
            _ => {}
        }
    }
    (session.unwrap_or_default(), parks[1])
}

async fn passed(trips: &AtomicUsize, wanted: usize) {
    let deadline = Instant::now() + TEST_TIMEOUT;
    while trips.load(Ordering::SeqCst) < wanted {
        assert!(Instant::now() < deadline, "the other session stands still");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
