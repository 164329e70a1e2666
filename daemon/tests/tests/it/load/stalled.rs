//! Readers that stall: what they cost, and that nobody else feels them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use zone_endpoint::{Service, SessionStream, service_fn};
use zone_module::session::Session;
use zone_tests::TEST_TIMEOUT;
use zone_tests::host::Host;
use zone_tests::zone::Zone;

use super::hostile::processor_time;
use super::memory::settled;
use super::peers::{Inside, echo, round_trip, run, serving};

/// Half of them don't read what comes from the caller, half of them what comes from the endpoint.
const STALLED: usize = 16;

/// Sessions that go on meanwhile, a quarter of them at each endpoint.
const TALKING: usize = 32;
const ENDPOINTS: usize = 4;
const ROUND_TRIPS: usize = 400;

const ROUNDS: usize = 5;

/// How much more processor time the relay may take for the same round trips when readers stall beside them. It would be
/// far more if it came back to a stalled direction again and again.
const MOST_RATIO: f64 = 1.5;

/// Memory counts as settled when it has not moved for this long.
const QUIET: Duration = Duration::from_millis(500);

/// What `status` counts of a stalled direction at most, in KiB of payload: one read, and the record that the read before it
/// left incomplete.
const COUNTED: usize = 32 + 16;
/// Ciphertext that waits for the socket of the stalled reader, in KiB: `zone_relay::connection::MAX_TLS_BUFFER_BYTES`, and
/// header, nonce and tag of its records.
const TO_SEND: usize = 33;
/// One record, in parts: what did not find room there, and what came of a record that is not complete yet, at most 2^14 +
/// 2,048 + 5 bytes together (RFC 5246, 6.2.3); and the 4 KiB by which rustls makes room behind it.
const RECEIVED: usize = 22;
const PER_SESSION: usize = TO_SEND + RECEIVED;
/// What malloc leaves free at the end of each thread's heap before it gives memory back (`M_TRIM_THRESHOLD` in
/// mallopt(3)).
const ARENA: usize = 128;

/// Acceptance 5: what 16 stalled readers hold stays within the buffers that are documented, no other
/// session waits for one of them, and round trips of others cost the relay no more than they do without. Their times
/// are printed and not judged: they are the machine's as much as the relay's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_stalled_readers_hold_no_more_than_their_buffers_and_delay_nobody() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let inside = Inside::of(&zone);
    let stalling = Stalling::default();
    let endpoint = inside.endpoint(&host, "stalled").with_parks(4);
    let endpoint = serving(serving(endpoint, "deaf", stalling.deaf()), "pusher", stalling.pusher());
    drop(run(endpoint));
    let mut talkers = Vec::new();
    for number in 0..ENDPOINTS {
        let id = format!("talker-{number}");
        drop(run(serving(inside.endpoint(&host, &id).with_parks(4), "echo", echo())));
    }
    for number in 0..TALKING {
        talkers.push(inside.session(&format!("talker-{}:echo", number % ENDPOINTS)).await);
    }
    let relay = host.relay();
    let mut rounds: Vec<Round> = Vec::new();
    let mut before;
    (talkers, before) = time_round_trips(talkers, relay).await;
    for _ in 0..ROUNDS {
        let crowd = stalling.open(&inside).await;
        host.counts("all are idle", |counts| counts["sessions"] == TALKING + STALLED);
        let idle = settled(relay, QUIET).await;
        let ((spoken, _), pushed) = tokio::join!(time_round_trips(talkers, relay), stalling.fill());
        let full = settled(relay, QUIET).await;
        let buffered = buffered_bytes(&host);
        let with;
        (talkers, with) = time_round_trips(spoken, relay).await;
        // One that comes now does not wait either.
        let mut late = inside.session("talker-0:echo").await;
        round_trip(&mut late, 7).await.expect("a session");
        drop(late);

        stalling.end(crowd).await;
        host.counts("the stalled ones are gone", |counts| {
            counts["sessions"] == TALKING && counts["buffered_bytes"] == 0
        });
        let after;
        (talkers, after) = time_round_trips(talkers, relay).await;
        rounds.push(Round { before, with, after, pushed, buffered, idle, full });
        before = after;
    }
    report(&rounds);
}

fn buffered_bytes(host: &Host) -> u64 {
    host.status()["relays"][0]["counts"]["buffered_bytes"].as_u64().expect("a number")
}

/// Round trips with stalled readers beside them, and those before and after without.
struct Round {
    before: Times,
    with: Times,
    after: Times,
    pushed: u64,
    buffered: u64,
    idle: u64,
    full: u64,
}

impl Round {
    fn ratio(&self) -> f64 {
        2.0 * self.with.relay.as_secs_f64() / (self.before.relay + self.after.relay).as_secs_f64()
    }

    fn grown(&self) -> u64 {
        self.full.saturating_sub(self.idle)
    }
}

fn report(rounds: &[Round]) {
    let us = |time: Duration| time.as_micros();
    println!(
        "{TALKING} sessions, {ROUND_TRIPS} round trips of 64 bytes each; {STALLED} stalled readers or none"
    );
    println!("     p50 in us       p99 in us     relay CPU in ms         MiB       KiB   relay RSS in KiB");
    println!(
        "   none      {STALLED}    none      {STALLED}    none      {STALLED}  ratio  pushed  buffered     idle    full  each"
    );
    for round in rounds {
        println!(
            "{:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>6.2} {:>7} {:>9} {:>8} {:>7} {:>5}",
            us(round.before.p50),
            us(round.with.p50),
            us(round.before.p99),
            us(round.with.p99),
            round.before.relay.as_millis(),
            round.with.relay.as_millis(),
            round.ratio(),
            round.pushed >> 20,
            round.buffered >> 10,
            round.idle,
            round.full,
            round.grown() / STALLED as u64,
        );
    }
    let mut ratios: Vec<_> = rounds.iter().map(Round::ratio).collect();
    ratios.sort_by(f64::total_cmp);
    let ratio = ratios[ratios.len() / 2];
    println!("median ratio of the relay's processor time: {ratio:.2}, at most {MOST_RATIO}");
    // The relay's workers and its main thread.
    let threads = std::thread::available_parallelism().map_or(1, usize::from) + 1;
    let most_growth = STALLED * PER_SESSION + threads * ARENA;
    println!(
        "most for each in KiB: {TO_SEND} to send + {RECEIVED} received = {PER_SESSION}; \
         for all: {STALLED} x {PER_SESSION} + {threads} threads x {ARENA} = {most_growth}"
    );
    for round in rounds {
        let counted = (STALLED * COUNTED * 1024) as u64;
        assert!(round.buffered > 0 && round.buffered <= counted, "{} of {counted} bytes", round.buffered);
        assert!(round.grown() <= most_growth as u64, "{} KiB for {STALLED} sessions", round.grown());
    }
    assert!(ratio <= MOST_RATIO, "round trips of others cost {ratio:.2} times what they do without");
}

/// How long round trips took, and the processor time that the relay spent meanwhile.
#[derive(Debug, Clone, Copy)]
struct Times {
    p50: Duration,
    p99: Duration,
    relay: Duration,
}

/// All sessions talk at once; each round trip must end well.
async fn time_round_trips(sessions: Vec<Session>, relay: Pid) -> (Vec<Session>, Times) {
    let spent = processor_time(relay);
    let mut tasks = JoinSet::new();
    for (mut session, seed) in sessions.into_iter().zip(0..) {
        tasks.spawn(async move {
            let mut times = Vec::with_capacity(ROUND_TRIPS);
            for _ in 0..ROUND_TRIPS {
                let began = Instant::now();
                round_trip(&mut session, seed).await.expect("a session goes on");
                times.push(began.elapsed());
            }
            (session, times)
        });
    }
    let (sessions, times): (Vec<_>, Vec<_>) = timeout(TEST_TIMEOUT, tasks.join_all())
        .await
        .expect("a session waits for a stalled one")
        .into_iter()
        .unzip();
    let relay = processor_time(relay).saturating_sub(spent);
    let mut times = times.concat();
    times.sort();
    let at = |percent: usize| times[times.len() * percent / 100];
    (sessions, Times { p50: at(50), p99: at(99), relay })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Idle,
    Pushing,
    Over,
}

/// Sessions of which one side pushes and the other does not read.
pub(super) struct Stalling {
    stage: watch::Sender<Stage>,
    pushed: Arc<AtomicU64>,
}

impl Default for Stalling {
    fn default() -> Self {
        Self { stage: watch::Sender::new(Stage::Idle), pushed: Arc::default() }
    }
}

impl Stalling {
    /// A service that does not read.
    fn deaf(&self) -> Arc<dyn Service> {
        let stage = self.stage.subscribe();
        service_fn(move |stream: SessionStream| {
            let stage = stage.clone();
            async move {
                be_deaf(stream, stage).await;
                Ok(())
            }
        })
    }

    /// A service that writes as much as it can.
    pub(super) fn pusher(&self) -> Arc<dyn Service> {
        let (stage, pushed) = (self.stage.subscribe(), Arc::clone(&self.pushed));
        service_fn(move |stream: SessionStream| {
            let (stage, pushed) = (stage.clone(), Arc::clone(&pushed));
            async move {
                push(stream, stage, pushed).await;
                Ok(())
            }
        })
    }

    /// What somebody goes by who pushes.
    pub(super) fn subscribe(&self) -> (watch::Receiver<Stage>, Arc<AtomicU64>) {
        (self.stage.subscribe(), Arc::clone(&self.pushed))
    }

    /// Opens the sessions; nobody writes yet.
    async fn open(&self, inside: &Inside) -> JoinSet<()> {
        self.stage.send_replace(Stage::Idle);
        self.pushed.store(0, Ordering::SeqCst);
        let mut crowd = JoinSet::new();
        for _ in 0..STALLED / 2 {
            let (stage, pushed) = (self.stage.subscribe(), Arc::clone(&self.pushed));
            crowd.spawn(push(inside.session("stalled:deaf").await, stage, pushed));
            crowd.spawn(be_deaf(inside.session("stalled:pusher").await, self.stage.subscribe()));
        }
        crowd
    }

    /// Pushes until nothing moves any more; how many bytes that took.
    pub(super) async fn fill(&self) -> u64 {
        const STILL: Duration = Duration::from_secs(1);
        self.stage.send_replace(Stage::Pushing);
        let deadline = Instant::now() + TEST_TIMEOUT;
        let (mut pushed, mut since) = (0, Instant::now());
        while pushed == 0 || since.elapsed() < STILL {
            assert!(Instant::now() < deadline, "it never fills up: {pushed} bytes");
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = self.pushed.load(Ordering::SeqCst);
            if now != pushed {
                (pushed, since) = (now, Instant::now());
            }
        }
        pushed
    }

    pub(super) async fn end(&self, mut crowd: JoinSet<()>) {
        self.stage.send_replace(Stage::Over);
        while crowd.join_next().await.is_some() {}
    }
}

/// Writes as much as is taken from the stage on, and reads nothing.
pub(super) async fn push(
    mut stream: impl AsyncWrite + Unpin,
    mut stage: watch::Receiver<Stage>,
    pushed: Arc<AtomicU64>,
) {
    // The stages outlive every session.
    let _ = stage.wait_for(|stage| *stage != Stage::Idle).await;
    let block = vec![0x5a; 64 * 1024];
    let pushing = async {
        while let Ok(written) = stream.write(&block).await {
            pushed.fetch_add(written as u64, Ordering::SeqCst);
        }
    };
    tokio::select! {
        () = pushing => {}
        _ = stage.wait_for(|stage| *stage == Stage::Over) => {}
    }
}

async fn be_deaf(stream: impl Send, mut stage: watch::Receiver<Stage>) {
    let _ = stage.wait_for(|stage| *stage == Stage::Over).await;
    drop(stream);
}
