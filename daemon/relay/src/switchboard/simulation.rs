//! Seeded interleavings: parks and callers that behave at random, each a task of its own, drive a switchboard, and a
//! simple model says what must hold after every step. The clock is tokio's paused one, so a seed gives the same run
//! every time. A run that fails is cut down to the shortest script that still does.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;
use crate::lock::lock;
use zone_watchdog::Watchdog;

const SEEDS: u64 = 400;
const ENDPOINTS: usize = 3;
/// What tokio's clock may round up to.
const CLOCK: Duration = Duration::from_millis(1);
/// What an endpoint says that refuses.
const WORDS: &str = "no thanks";

/// Whatever can become of a call, so that nothing is kept for want of a chance to break it.
const EVERYTHING: [&str; 14] = [
    "answer_timeout",
    "draining",
    "endpoint_away",
    "endpoint_failed",
    "endpoint_silent",
    "joined",
    "left unanswered",
    "left with its answer unseen",
    "no_park_in_time",
    "parks_lost",
    "refused_by_endpoint",
    "too_many_sessions",
    "too_many_waiting",
    "unknown_endpoint",
];

#[test]
fn every_call_gets_one_answer_and_every_leg_ends_whatever_the_order_of_events() {
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        let script = script(seed);
        match run(&script) {
            Ok(outcomes) => seen.extend(outcomes),
            Err(failure) => {
                let shortest = shrink(script);
                panic!("seed {seed}: {failure}\nthe shortest script that fails: {shortest:#?}");
            }
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), EVERYTHING, "the scripts are too tame");
}

#[derive(Debug, Clone)]
enum Step {
    Park {
        endpoint: usize,
        instance: u128,
        /// Of what this park does.
        seed: u64,
    },
    Call {
        endpoint: usize,
        deadline: Duration,
        /// After which the caller leaves.
        stays: Duration,
        /// Whether it looks for its answer before.
        looks: bool,
        /// How long it keeps a session.
        session: Duration,
    },
    Wait(Duration),
    Watch,
    Revoke {
        endpoint: usize,
    },
    RevokeInstance {
        endpoint: usize,
        instance: u128,
    },
    Limit {
        parks: usize,
        sessions: usize,
    },
    Drain(Duration),
    /// A call waits elsewhere.
    Release {
        endpoint: usize,
    },
    /// It was known elsewhere.
    Expect {
        endpoint: usize,
        within: Duration,
    },
}

fn script(seed: u64) -> Vec<Step> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let steps = rng.random_range(10..80);
    let drains_at = rng.random_range(0..2 * steps);
    (0..steps)
        .map(|number| {
            let endpoint = rng.random_range(0..ENDPOINTS);
            let instance = rng.random_range(0..2);
            if number == drains_at {
                return Step::Drain(milliseconds(&mut rng, 400));
            }
            match rng.random_range(0..100) {
                0..30 => Step::Park { endpoint, instance, seed: rng.random_range(0..u64::MAX) },
                30..60 => Step::Call {
                    endpoint,
                    deadline: milliseconds(&mut rng, 600),
                    stays: milliseconds(&mut rng, 900),
                    looks: rng.random_bool(0.8),
                    session: milliseconds(&mut rng, 400),
                },
                60..90 => Step::Wait(milliseconds(&mut rng, 120)),
                90..93 => Step::Watch,
                93..95 => Step::Revoke { endpoint },
                95..97 => Step::RevokeInstance { endpoint, instance },
                97 => Step::Release { endpoint },
                98 => Step::Expect { endpoint, within: milliseconds(&mut rng, 400) },
                _ => Step::Limit { parks: rng.random_range(1..4), sessions: rng.random_range(0..3) },
            }
        })
        .collect()
}

/// From none to this many; none more often than by chance.
fn milliseconds(rng: &mut ChaCha8Rng, most: u64) -> Duration {
    let none = rng.random_bool(0.2);
    Duration::from_millis(if none { 0 } else { rng.random_range(0..=most) })
}

/// The shortest beginning that fails, without the steps that it fails without.
fn shrink(mut script: Vec<Step>) -> Vec<Step> {
    if let Some(length) = (0..script.len()).find(|length| run(&script[..*length]).is_err()) {
        script.truncate(length);
    }
    let mut at = 0;
    while at < script.len() {
        let mut shorter = script.clone();
        shorter.remove(at);
        if run(&shorter).is_err() {
            script = shorter;
        } else {
            at += 1;
        }
    }
    script
}

/// What became of the calls, or what went wrong.
fn run(script: &[Step]) -> Result<BTreeSet<&'static str>, String> {
    let live = || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(World::live(script))
    };
    catch_unwind(AssertUnwindSafe(live)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

/// A leg, and the session that its endpoint was asked for.
struct Leg {
    park: ParkId,
    session: Uuid,
    mailbox: Arc<Mailbox>,
    ledger: Arc<Mutex<Ledger>>,
}

impl Drop for Leg {
    fn drop(&mut self) {
        lock(&self.ledger).dropped.push(self.park);
    }
}

/// What the tasks have seen.
#[derive(Default)]
struct Ledger {
    /// Legs that a caller got.
    delivered: HashSet<ParkId>,
    /// Legs that are no more.
    dropped: Vec<ParkId>,
    outcomes: BTreeSet<&'static str>,
}

/// A watcher's picture of who is there.
struct Watcher {
    events: broadcast::Receiver<PresenceEvent>,
    sequence: u64,
    present: BTreeMap<String, (u32, u32)>,
}

struct World {
    switchboard: Arc<Switchboard<Leg>>,
    ledger: Arc<Mutex<Ledger>>,
    watchers: Vec<Watcher>,
    tasks: Vec<JoinHandle<()>>,
    draining: bool,
}

fn limits(parks: usize, sessions: usize) -> zone_pairing::Limits {
    zone_pairing::Limits {
        parks_per_endpoint: parks,
        per_endpoint_sessions: sessions,
        waiting_per_endpoint: 3,
        waiting_total: 5,
        endpoints: ENDPOINTS,
        ping_after: Duration::from_millis(300),
        pong_within: Duration::from_millis(100),
        first_byte_within: Duration::from_millis(80),
        answer_within: Duration::from_millis(120),
        attempts: 2,
        remember_endpoint: Duration::from_millis(200),
        settle: Duration::from_millis(50),
    }
}

impl World {
    async fn live(script: &[Step]) -> BTreeSet<&'static str> {
        let switchboard = Switchboard::new(limits(3, 0), 10_000, Arc::new(Metrics::new()));
        let clock = Arc::clone(&switchboard);
        let heartbeat = Watchdog::new().register("switchboard");
        let clock = tokio::spawn(async move { clock.run(heartbeat).await });
        let (ledger, tasks) = (Arc::default(), Vec::new());
        let mut world = Self { switchboard, ledger, watchers: Vec::new(), tasks, draining: false };
        world.take(&Step::Watch).await;
        for step in script {
            world.take(step).await;
            world.check();
        }
        for task in std::mem::take(&mut world.tasks) {
            if let Err(error) = task.await {
                std::panic::resume_unwind(error.into_panic());
            }
            world.check();
        }
        world.check_nothing_is_left();
        clock.abort();
        std::mem::take(&mut lock(&world.ledger).outcomes)
    }

    async fn take(&mut self, step: &Step) {
        let label = |endpoint: &usize| -> Label { format!("host-{endpoint}").parse().unwrap() };
        match step {
            Step::Park { endpoint, instance, seed } => {
                let (switchboard, ledger) = (Arc::clone(&self.switchboard), Arc::clone(&self.ledger));
                let (endpoint, instance, seed) = (label(endpoint), *instance, *seed);
                self.tasks.push(tokio::spawn(async move {
                    Park::new(switchboard, ledger, &endpoint, instance, seed).live().await;
                }));
            }
            Step::Call { endpoint, deadline, stays, looks, session } => {
                let caller = Caller {
                    switchboard: Arc::clone(&self.switchboard),
                    ledger: Arc::clone(&self.ledger),
                    request: Arc::new(Request {
                        target: format!("{}:ssh", label(endpoint)).parse().unwrap(),
                        session: Uuid::new_v4(),
                        caller: "inside".parse().unwrap(),
                    }),
                    deadline: *deadline,
                    stays: *stays,
                    looks: *looks,
                    session: *session,
                    draining: self.draining,
                };
                self.tasks.push(tokio::spawn(caller.live()));
            }
            Step::Wait(time) => sleep(*time).await,
            Step::Watch => {
                let (list, events) = self.switchboard.watch();
                self.watchers.push(Watcher { events, sequence: list.sequence, present: picture(&list) });
            }
            Step::Revoke { endpoint } => {
                self.switchboard.report(Event::Revoke { endpoint: label(endpoint).shared() });
            }
            Step::RevokeInstance { endpoint, instance } => {
                let endpoint = label(endpoint).shared();
                self.switchboard.report(Event::RevokeInstance { endpoint, instance: *instance });
            }
            Step::Release { endpoint } => {
                self.switchboard.report(Event::Release { endpoint: label(endpoint).shared() });
            }
            Step::Expect { endpoint, within } => {
                self.switchboard
                    .report(Event::Expected { endpoint: label(endpoint).shared(), within: *within });
            }
            Step::Limit { parks, sessions } => self.switchboard.set_limits(limits(*parks, *sessions)),
            Step::Drain(over) => {
                // Callers that were spawned and have not run yet may come before it or after it.
                self.draining = true;
                self.switchboard.report(Event::Drain { over: *over });
            }
        }
    }

    /// What holds at every moment.
    fn check(&mut self) {
        let list = self.switchboard.endpoints();
        for watcher in &mut self.watchers {
            watcher.catch_up();
            assert_eq!(watcher.sequence, list.sequence, "sequence numbers of events and list differ");
            assert_eq!(watcher.present, picture(&list), "the list is not what the events tell");
        }
        assert!(list.endpoints.iter().all(|e| !e.address.is_empty()), "no address: {list:?}");
        let (ledger, state) = (lock(&self.ledger), lock(&self.switchboard.state));
        for park in ledger.dropped.iter().filter(|park| !ledger.delivered.contains(park)) {
            assert!(
                state.machine.park(*park).is_none(),
                "the leg of {park:?} is gone and its session is not"
            );
        }
        for park in state.machine.parks() {
            assert!(state.parks.contains_key(&park.park), "nobody can tell {:?} anything", park.park);
        }
        assert_eq!(state.calls.len(), state.machine.counts().calls, "calls that nobody answers");
    }

    fn check_nothing_is_left(&self) {
        let state = lock(&self.switchboard.state);
        let counts = state.machine.counts();
        assert_eq!((counts.parks.live(), counts.calls, counts.waiting), (0, 0, 0), "{counts:?}");
        assert_eq!((state.parks.len(), state.calls.len()), (0, 0));
        // A relay that drains ends soon, and may keep the address of an endpoint that it has turned away.
        assert!(self.draining || state.addresses.is_empty(), "{:?}", state.addresses);
    }
}

/// Parks and sessions of everybody who is there.
fn picture(list: &Endpoints) -> BTreeMap<String, (u32, u32)> {
    list.endpoints.iter().map(|e| (e.id.to_string(), (e.idle + e.busy, e.sessions))).collect()
}

impl Watcher {
    fn catch_up(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.sequence += 1;
            assert_eq!(event.sequence, self.sequence, "an event is missing");
            let status = &event.endpoint;
            let now = (status.idle + status.busy, status.sessions);
            let before = match event.change {
                Change::Left => self.present.remove(status.id.as_str()),
                Change::Joined | Change::Changed => self.present.insert(status.id.to_string(), now),
            };
            assert_eq!(before.is_none(), event.change == Change::Joined, "{:?} of {status:?}", event.change);
        }
    }
}

/// A park, as its connection behaves: see `park.rs`.
struct Park {
    switchboard: Arc<Switchboard<Leg>>,
    ledger: Arc<Mutex<Ledger>>,
    rng: ChaCha8Rng,
    park: ParkId,
    mailbox: Arc<Mailbox>,
}

impl Park {
    fn new(
        switchboard: Arc<Switchboard<Leg>>,
        ledger: Arc<Mutex<Ledger>>,
        endpoint: &Label,
        instance: u128,
        seed: u64,
    ) -> Self {
        let (park, mailbox) = switchboard.park(endpoint, instance, ([192, 0, 2, 1], 4242).into());
        Self { switchboard, ledger, rng: ChaCha8Rng::seed_from_u64(seed), park, mailbox }
    }

    async fn live(mut self) {
        let leaves = Instant::now() + milliseconds(&mut self.rng, 2_000);
        let mut pong_due = None;
        loop {
            let pong = async {
                match pong_due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                command = self.mailbox.next() => match command {
                    Command::Close(_) => return,
                    Command::Ping => pong_due = Some(Instant::now() + milliseconds(&mut self.rng, 120)),
                    Command::Assign => if let Some(request) = self.switchboard.take_up(self.park) {
                        return self.serve(&request).await;
                    },
                },
                () = pong => {
                    pong_due = None;
                    self.switchboard.report(Event::Pong { park: self.park });
                }
                () = sleep_until(leaves) => {
                    let clean = self.rng.random_bool(0.5);
                    return self.switchboard.report(Event::ParkGone { park: self.park, clean });
                }
            }
        }
    }

    async fn serve(mut self, request: &Request) {
        if self.closed_within(100).await {
            return;
        }
        if self.rng.random_bool(0.15) {
            return self.switchboard.report(Event::ParkGone { park: self.park, clean: false });
        }
        self.switchboard.report(Event::FirstByte { park: self.park });
        if self.closed_within(140).await {
            return;
        }
        match self.rng.random_range(0..100) {
            0..60 => {
                let (park, session) = (self.park, request.session);
                let leg = Leg { park, session, mailbox: self.mailbox, ledger: self.ledger };
                return self.switchboard.accepted(park, Box::new(leg));
            }
            60..75 => self.switchboard.refused(self.park, 404, WORDS),
            75..85 => self.switchboard.report(Event::Unexpected { park: self.park }),
            85..95 => return self.switchboard.report(Event::ParkGone { park: self.park, clean: true }),
            _ => {}
        }
        // Closed by what was reported, or by a deadline.
        self.mailbox.closed().await;
    }

    async fn closed_within(&mut self, most: u64) -> bool {
        let time = milliseconds(&mut self.rng, most);
        tokio::time::timeout(time, self.mailbox.closed()).await.is_ok()
    }
}

/// A caller: see `connect.rs`.
struct Caller {
    switchboard: Arc<Switchboard<Leg>>,
    ledger: Arc<Mutex<Ledger>>,
    request: Arc<Request>,
    deadline: Duration,
    stays: Duration,
    looks: bool,
    session: Duration,
    draining: bool,
}

impl Caller {
    async fn live(self) {
        let began = Instant::now();
        let mut call = self.switchboard.call(Arc::clone(&self.request), self.deadline);
        let answer = if self.looks {
            tokio::select! {
                biased;
                answer = call.answer() => Some(answer),
                () = sleep(self.stays) => None,
            }
        } else {
            sleep(self.stays).await;
            None
        };
        let in_time = began.elapsed() <= self.deadline + 2 * CLOCK;
        let Some(answer) = answer else {
            assert!(!self.looks || in_time, "it waits beyond its deadline");
            return self.leave(call);
        };
        assert!(in_time, "answered after {:?}, beyond {:?}", began.elapsed(), self.deadline);
        drop(call);
        assert!(
            !self.draining || matches!(answer, Err((CallError::Draining, None))),
            "let in while draining"
        );
        match answer {
            Ok(leg) => self.carry(&leg).await,
            Err((error, words)) => {
                match error {
                    CallError::RefusedByEndpoint { .. } => assert_eq!(words.as_deref(), Some(WORDS)),
                    // The endpoint's refusal may come just then.
                    CallError::AnswerTimeout => {}
                    _ => assert_eq!(words, None, "{error:?}"),
                }
                lock(&self.ledger).outcomes.insert(error.label());
            }
        }
    }

    fn leave(&self, call: Call<Leg>) {
        let id = call.id;
        let unanswered = lock(&self.switchboard.state).calls.contains_key(&id);
        drop(call);
        assert!(!lock(&self.switchboard.state).calls.contains_key(&id), "a call outlives its caller");
        let outcome = if unanswered { "left unanswered" } else { "left with its answer unseen" };
        lock(&self.ledger).outcomes.insert(outcome);
    }

    async fn carry(&self, leg: &Leg) {
        assert_eq!(leg.session, self.request.session, "the leg of another call");
        assert!(lock(&self.ledger).delivered.insert(leg.park), "a leg for two callers");
        lock(&self.ledger).outcomes.insert("joined");
        let _ = tokio::time::timeout(self.session, leg.mailbox.closed()).await;
        self.switchboard.report(Event::SessionEnded { park: leg.park });
    }
}
