//! Sessions and CONNECTs go on through everything that an admin does to a proxy, and nobody notices.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use zone_module::proxies;
use zone_module::session::{EndToEnd, Session};
use zone_tests::host::Host;
use zone_tests::process::succeed;
use zone_tests::zone::Zone;
use zone_tests::{TEST_TIMEOUT, folder, program, until};

use super::peers::{Inside, echo, round_trip, run, serving};

/// Sessions that are open all the time, unless `ZONE_SESSIONS` says another number.
const SESSIONS: usize = 200;
/// Endpoints that carry them.
const CARRIERS: usize = 10;
/// Endpoints that are called all the time.
const CALLED: usize = 3;
/// From one CONNECT to an endpoint to the next one, whatever has become of those before.
const CALL_INTERVAL: Duration = Duration::from_millis(50);
/// From one message of a session that moves data to its next one.
const MESSAGE_INTERVAL: Duration = Duration::from_millis(200);
/// What each of these messages has, bytes.
const MESSAGE_BYTES: usize = 4_096;
/// What is done is given so much time to show, beyond which nothing that it brings about is left to do.
const AFTERWARDS: Duration = Duration::from_secs(4);
/// No CONNECT may take longer.
const MAX_CONNECT: Duration = Duration::from_secs(1);

/// Sessions (half of them moving data with a checksum that runs) through reload, kill -9 and restart of control, rotation,
/// the revocation of another endpoint, re-provisioning, new binaries and bad ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_and_connects_go_on_through_all_that_an_admin_does() {
    let sessions = std::env::var("ZONE_SESSIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(SESSIONS);
    allow_descriptors();
    let mut scene = Scene::play(sessions).await;

    scene.through("nothing", |_| {}).await;
    scene.through("reload", |scene| drop(succeed(&mut scene.host.cli(&["reload"]), b""))).await;
    scene.through("kill -9 and restart of control", |scene| scene.host.restart()).await;
    scene.through("rotation", |scene| scene.zone(&["rotate", "p1"])).await;
    scene.through("revocation of another", |scene| scene.zone(&["revoke", "endpoint", "another"])).await;
    scene.through("re-provisioning", Scene::provision_again).await;
    scene.through("re-provisioning once more", Scene::provision_again).await;
    scene.through("new binaries", Scene::install_new).await;
    let (served, _) = scene.serving();
    scene.through("binaries that end at once", |scene| scene.install_bad("/bin/false")).await;
    // It reads what control tells it, and says nothing.
    scene.through("binaries that say nothing", |scene| scene.install_bad("/bin/cat")).await;
    assert_eq!(scene.serving().0, served, "the one before goes on");
    scene.through("new binaries after bad ones", Scene::install_new).await;

    scene.ends(sessions).await;
}

struct Scene {
    host: Host,
    zone: Zone,
    programs: TempDir,
    relay: PathBuf,
    calls: Arc<Calls>,
    carried: Arc<Carried>,
    /// Set when the sessions are to end.
    over: watch::Sender<bool>,
    sessions: JoinSet<()>,
    callers: JoinSet<()>,
    table: Vec<String>,
}

impl Scene {
    async fn play(sessions: usize) -> Self {
        let programs = folder();
        let relay = programs.path().join("zone-relay");
        std::fs::copy(program("zone-relay"), &relay).expect("a copy of zone-relay");
        let each = sessions.div_ceil(CARRIERS) + 8;
        let config = format!(
            "[relay]\nprogram = \"{}\"\n[limits]\nsessions_per_endpoint = {each}\nconnections_per_endpoint = {}\n",
            relay.display(),
            2 * each + 16
        );
        let host = Host::start(&config);
        let zone = Zone::with(&host);
        let inside = Inside::of(&zone);
        for number in 0..CARRIERS {
            let endpoint = inside.endpoint(&host, &format!("carrier-{number}"));
            let most = u32::try_from(each).expect("a small number");
            drop(run(serving(endpoint.with_max_sessions(most), "echo", echo())));
        }
        for number in 0..CALLED {
            let endpoint = inside.endpoint(&host, &format!("called-{number}")).with_parks(4);
            drop(run(serving(endpoint, "echo", echo())));
        }
        let mut scene = Self {
            host,
            zone,
            programs,
            relay,
            calls: Arc::default(),
            carried: Arc::default(),
            over: watch::Sender::new(false),
            sessions: JoinSet::new(),
            callers: JoinSet::new(),
            table: Vec::new(),
        };
        for number in 0..sessions {
            let session = inside.session(&format!("carrier-{}:echo", number % CARRIERS)).await;
            let (carried, over) = (Arc::clone(&scene.carried), scene.over.subscribe());
            let seed = u32::try_from(number).expect("a small number");
            scene.sessions.spawn(carry(session, seed, number % 2 == 0, carried, over));
        }
        for number in 0..CALLED {
            let target = format!("called-{number}:echo");
            scene.callers.spawn(call_all_the_time(Inside::of(&scene.zone), target, Arc::clone(&scene.calls)));
        }
        scene
    }

    /// Does something, lets it take its effect, and notes what callers saw of it.
    async fn through(&mut self, what: &str, act: impl FnOnce(&mut Self)) {
        self.calls.begin(what);
        let began = Instant::now();
        tokio::task::block_in_place(|| act(self));
        let took = began.elapsed();
        tokio::time::sleep(AFTERWARDS).await;
        let seen = self.calls.seen();
        self.table.push(format!(
            "{what:<32} {:>6.1} s {:>8} {:>8} {:>10.3} s",
            took.as_secs_f64(),
            seen.connected,
            seen.failed.len(),
            seen.slowest.as_secs_f64()
        ));
        println!("{}", self.table.last().expect("a row"));
    }

    async fn ends(mut self, sessions: usize) {
        self.callers.shutdown().await;
        self.over.send_replace(true);
        let ended = async { while self.sessions.join_next().await.is_some() {} };
        timeout(TEST_TIMEOUT, ended).await.expect("every session ends");
        let phases = self.calls.all();
        let connected: usize = phases.values().map(|seen| seen.connected).sum();
        let slowest = phases.values().map(|seen| seen.slowest).max().expect("a phase");
        let failed: Vec<_> = phases.values().flat_map(|seen| &seen.failed).collect();
        let carried = &self.carried;
        let (broken, wrong) = (locked(&carried.broken).clone(), carried.wrong.load(Ordering::SeqCst));
        println!("what was done                      took   CONNECTs  refused     slowest");
        self.table.iter().for_each(|row| println!("{row}"));
        println!(
            "{sessions} sessions: {} broken, {wrong} wrong, {} MiB each way; {connected} CONNECTs: {} refused, the slowest {:.3} s",
            broken.len(),
            carried.bytes.load(Ordering::SeqCst) >> 20,
            failed.len(),
            slowest.as_secs_f64()
        );
        assert!(broken.is_empty(), "sessions broke: {broken:?}");
        assert_eq!(wrong, 0, "sessions with other bytes than were sent");
        assert!(failed.is_empty(), "CONNECTs were refused: {failed:#?}");
        assert_eq!(carried.whole.load(Ordering::SeqCst), sessions, "sessions that went on to their end");
        assert!(slowest < MAX_CONNECT, "a CONNECT took {slowest:?}: {phases:#?}");
    }

    fn zone(&mut self, words: &[&str]) {
        succeed(&mut self.zone.cli(words), b"");
    }

    /// On the same ports; a new relay takes the old one's place.
    fn provision_again(&mut self) {
        let (_, generation) = self.serving();
        succeed(&mut self.zone.cli(&["provision", "--name", "p1", "--again"]), b"");
        assert!(self.serving().1 > generation, "the same relay serves");
    }

    fn install_new(&mut self) {
        let (_, generation) = self.serving();
        self.install(&std::fs::read(program("zone-relay")).expect("zone-relay"));
        self.host.restart();
        until("a relay of the new build serves", || self.serving().1 > generation);
    }

    /// Another program in place of the relay's; waits until control has given it up.
    fn install_bad(&mut self, other: &str) {
        self.install(&std::fs::read(other).expect("a program of the system"));
        self.host.restart();
        self.host.control.says("can't be replaced, and the earlier build goes on");
    }

    /// As package managers do: a new file beside the old one, and a rename.
    fn install(&self, program: &[u8]) {
        let next = self.programs.path().join("zone-relay.new");
        std::fs::write(&next, program).expect("a program");
        std::fs::set_permissions(&next, std::fs::Permissions::from_mode(0o755)).expect("our file");
        std::fs::rename(&next, &self.relay as &Path).expect("renamed");
    }

    /// Process and generation of the relay that serves.
    fn serving(&self) -> (u64, u64) {
        let status = self.host.status();
        let relays = status["relays"].as_array().expect("a list");
        let relay = relays.iter().find(|relay| relay["state"] == "serving").expect("one that serves");
        (relay["pid"].as_u64().expect("a process id"), relay["generation"].as_u64().expect("a generation"))
    }
}

/// What callers saw while one thing was done.
#[derive(Debug, Default, Clone)]
struct Seen {
    connected: usize,
    failed: Vec<String>,
    slowest: Duration,
}

/// How many CONNECTs were made in each phase, how many of them were refused, and how long the slowest took.
#[derive(Default)]
struct Calls {
    phase: Mutex<String>,
    seen: Mutex<BTreeMap<String, Seen>>,
}

impl Calls {
    fn begin(&self, what: &str) {
        what.clone_into(&mut locked(&self.phase));
        locked(&self.seen).entry(what.to_owned()).or_default();
    }

    /// In the present phase.
    fn seen(&self) -> Seen {
        locked(&self.seen)[&*locked(&self.phase)].clone()
    }

    fn all(&self) -> BTreeMap<String, Seen> {
        locked(&self.seen).clone()
    }

    fn note(&self, phase: String, result: Result<Duration, String>) {
        let mut seen = locked(&self.seen);
        let seen = seen.entry(phase).or_default();
        match result {
            Ok(took) => {
                seen.connected += 1;
                seen.slowest = seen.slowest.max(took);
            }
            Err(why) => seen.failed.push(why),
        }
    }
}

/// Calls an endpoint at each interval, without waiting for what came of the call before.
async fn call_all_the_time(inside: Inside, target: String, calls: Arc<Calls>) {
    let inside = Arc::new(inside);
    let mut pace = interval(CALL_INTERVAL);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut under_way = JoinSet::new();
    loop {
        pace.tick().await;
        while under_way.try_join_next().is_some() {}
        let (inside, calls, target) = (Arc::clone(&inside), Arc::clone(&calls), target.clone());
        under_way.spawn(async move {
            let phase = locked(&calls.phase).clone();
            let result = inside.call(&target).await;
            calls.note(phase, result);
        });
    }
}

impl Inside {
    /// Opens a session, sees that it works, and ends it; how long it took to open.
    async fn call(&self, target: &str) -> Result<Duration, String> {
        let began = Instant::now();
        let target = target.parse().expect("a target");
        let session = proxies::connect(self.clients(), &target, EndToEnd::Off).await;
        let took = began.elapsed();
        let mut session = session.map_err(|error| format!("after {took:?}: {error}"))?;
        round_trip(&mut session, 7).await.map_err(|error| format!("no answer: {error}"))?;
        // It has carried what it was to carry.
        let _ = session.shutdown().await;
        Ok(took)
    }
}

/// What became of the sessions.
#[derive(Default)]
struct Carried {
    bytes: AtomicU64,
    wrong: AtomicUsize,
    whole: AtomicUsize,
    broken: Mutex<Vec<String>>,
}

/// A session that is open until all is over; one that moves data compares the checksum of all that it has sent with that of all
/// that has come back, message by message.
async fn carry(
    mut session: Session,
    seed: u32,
    moves: bool,
    carried: Arc<Carried>,
    mut over: watch::Receiver<bool>,
) {
    let mut stream = Stream::new(seed);
    let mut pace = interval(MESSAGE_INTERVAL);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let last = tokio::select! {
            _ = over.wait_for(|over| *over) => true,
            _ = pace.tick(), if moves => false,
        };
        if let Err(error) = stream.exchange(&mut session).await {
            locked(&carried.broken).push(format!("{seed}: {error}"));
            return;
        }
        carried.bytes.fetch_add(MESSAGE_BYTES as u64, Ordering::SeqCst);
        if stream.sent != stream.received {
            carried.wrong.fetch_add(1, Ordering::SeqCst);
            return;
        }
        if last {
            carried.whole.fetch_add(1, Ordering::SeqCst);
            return;
        }
    }
}

/// Bytes that a seed makes, and the checksums (FNV-1a) of what was sent and of what came back so far.
struct Stream {
    state: u32,
    sent: u64,
    received: u64,
}

impl Stream {
    fn new(seed: u32) -> Self {
        let basis = 0xcbf2_9ce4_8422_2325;
        Self { state: seed.wrapping_mul(2_654_435_761) | 1, sent: basis, received: basis }
    }

    async fn exchange(&mut self, session: &mut Session) -> std::io::Result<()> {
        let message: Vec<u8> = (0..MESSAGE_BYTES).map(|_| self.next_byte()).collect();
        session.write_all(&message).await?;
        session.flush().await?;
        let mut answer = vec![0; MESSAGE_BYTES];
        session.read_exact(&mut answer).await?;
        self.sent = checksum(self.sent, &message);
        self.received = checksum(self.received, &answer);
        Ok(())
    }

    /// The next one of a sequence that never comes to zero (xorshift).
    fn next_byte(&mut self) -> u8 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 17;
        self.state ^= self.state << 5;
        self.state.to_le_bytes()[0]
    }
}

fn checksum(so_far: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(so_far, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// Many sessions have both of their ends in this process.
fn allow_descriptors() {
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(65_536);
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: Some(most) })
        .expect("the hard limit can be asked for");
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics here")
}
