//! Thousands of parked endpoints: what one costs, and how all of them come back.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinSet;
use zone_endpoint::{Event, Observer};
use zone_tests::host::Host;
use zone_tests::process::succeed;
use zone_tests::zone::Zone;
use zone_tests::{TEST_TIMEOUT, address, as_daemon, skip};

use super::memory::settled;
use super::peers::Inside;

const FEW: usize = 500;
const MANY: usize = 5_000;

/// What an endpoint may cost the relay, in KiB: connection, identity, and its place in every table.
const MOST_PER_ENDPOINT: f64 = 12.0;

/// As many as are expected behind one NAT; each group has a source address of its own.
const PER_SOURCE: usize = 1_000;

/// How many endpoints start at the same time.
const AT_ONCE: usize = 50;

/// Shorter than usual, so that every park that is measured has answered pings: it is then as large as it gets.
const PING_AFTER: Duration = Duration::from_secs(4);

/// Acceptance 6: 5,000 endpoints park, each costs the relay at most 12 KiB, and when the relay is killed all of
/// them park at the next one.
///
/// The relay starts with a soft limit of 1,024 descriptors, as systemd and most shells set it.
#[test]
fn five_thousand_endpoints_cost_little_and_all_come_back_after_they_were_cut() {
    // No limit at all is told as none.
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    if most < 2 * MANY as u64 {
        return skip("five_thousand_endpoints", "fewer than 10,000 descriptors may be opened here");
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: Some(most) })
        .expect("the hard limit can be asked for");
    let host = Host::start(&format!("[timeouts]\nping_after = {}\n", PING_AFTER.as_secs()));
    lower_descriptor_limit(&host, most);
    let zone = Zone::with(&host);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(measure(&host, &zone));
    // Without their goodbyes, which nobody here waits for.
    runtime.shutdown_background();
}

async fn measure(host: &Host, zone: &Zone) {
    let inside = Inside::of(zone);
    let tally = Arc::new(Tally::default());
    let mut crowd = JoinSet::new();
    let relay = host.relay();
    let empty = settled(relay, Duration::from_secs(1)).await;

    let began = Instant::now();
    let mut source = address();
    let mut figures = Vec::new();
    for number in 1..=MANY {
        if number % PER_SOURCE == 1 {
            source = address();
        }
        join(&mut crowd, &inside, host, number, source, &tally);
        if number % AT_ONCE == 0 {
            tally.reaches(number).await;
        }
        if number == FEW || number == MANY {
            figures.push(settled(relay, 2 * PING_AFTER).await);
        }
    }
    let parking = began.elapsed();
    assert_eq!(tally.complaints(), [], "while the endpoints parked");
    all_are_listed(&inside).await;

    let (few, many) = (figures[0], figures[1]);
    let per_endpoint = kib(many - few) / kib((MANY - FEW) as u64);

    let cut = Instant::now();
    kill(relay, Signal::SIGKILL).expect("the relay is there");
    tally.all_are_lost().await;
    tally.reaches(MANY).await;
    let back = cut.elapsed();
    let complaints = tally.complaints();
    let next = host.relay();
    assert_ne!(next, relay);
    let after = settled(next, 2 * PING_AFTER).await;
    assert_eq!(tally.complaints(), [], "once all were back");
    assert_eq!(tally.parked(), MANY, "some were lost again");
    all_are_listed(&inside).await;

    let again = kib(after.saturating_sub(empty)) / kib(MANY as u64);
    println!("endpoints parked at the relay      RSS KiB");
    println!("{:<32} {empty:>9}", "none");
    println!("{FEW:<32} {few:>9}");
    println!("{MANY:<32} {many:>9}   {per_endpoint:.2} KiB for each of {} more", MANY - FEW);
    println!("{:<32} {after:>9}   {again:.2} KiB for each", format!("{MANY}, all back at the next relay"));
    println!("{MANY} parked, {AT_ONCE} at once, in {:.1} s, settling included", parking.as_secs_f64());
    println!("{MANY} parked again {:.2} s after the relay was killed", back.as_secs_f64());
    for (complaint, count) in complaints {
        println!("  meanwhile, {count} times: {complaint}");
    }
    assert!(per_endpoint <= MOST_PER_ENDPOINT, "an endpoint costs {per_endpoint:.2} KiB");
}

fn join(
    crowd: &mut JoinSet<()>,
    inside: &Inside,
    host: &Host,
    number: usize,
    source: Ipv4Addr,
    tally: &Arc<Tally>,
) {
    let endpoint = inside.endpoint(host, &id(number));
    let endpoint = endpoint.with_parks(1).with_source(source.into()).with_observer(Tally::observer(tally));
    crowd.spawn(endpoint.run(std::future::pending()));
}

/// Leaves control, and so every relay that it starts, the soft limit that a service usually gets.
fn lower_descriptor_limit(host: &Host, most: u64) {
    let (pid, limit) = (host.control.pid().to_string(), format!("--nofile=1024:{most}"));
    let mut prlimit = std::process::Command::new("prlimit");
    succeed(as_daemon(prlimit.args(["--pid", &pid, &limit])), b"");
}

/// Every endpoint is there once, with one park.
async fn all_are_listed(inside: &Inside) {
    let listed = inside.endpoints().await;
    assert_eq!(listed.len(), MANY);
    for (endpoint, number) in listed.into_iter().zip(1..) {
        assert_eq!(endpoint.id.as_str(), id(number));
        let held = (endpoint.idle + endpoint.busy, endpoint.sessions, endpoint.instances);
        assert_eq!(held, (1, 0, 1), "{endpoint:?}");
    }
}

fn id(number: usize) -> String {
    format!("host-{number:04}")
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn kib(n: u64) -> f64 {
    n as f64
}

/// What all endpoints together report.
#[derive(Default)]
struct Tally {
    parked: AtomicUsize,
    lost: AtomicUsize,
    complaints: Mutex<BTreeMap<String, usize>>,
}

impl Tally {
    fn observer(this: &Arc<Self>) -> Observer {
        let tally = Arc::clone(this);
        Arc::new(move |event| match event {
            Event::Parked { .. } => {
                tally.parked.fetch_add(1, Ordering::SeqCst);
            }
            Event::ParkLost { reason, .. } => {
                tally.parked.fetch_sub(1, Ordering::SeqCst);
                tally.lost.fetch_add(1, Ordering::SeqCst);
                tally.note(format!("park lost: {reason}"));
            }
            Event::DialFailed { reason, .. } => tally.note(reason.clone()),
            _ => {}
        })
    }

    fn note(&self, complaint: String) {
        *self.complaints.lock().expect("nobody panics here").entry(complaint).or_default() += 1;
    }

    /// All complaints since the last call.
    fn complaints(&self) -> Vec<(String, usize)> {
        std::mem::take(&mut *self.complaints.lock().expect("nobody panics here")).into_iter().collect()
    }

    fn parked(&self) -> usize {
        self.parked.load(Ordering::SeqCst)
    }

    async fn reaches(&self, wanted: usize) {
        self.until(wanted, |parked| parked == wanted).await;
    }

    async fn all_are_lost(&self) {
        self.until(0, |_| self.lost.load(Ordering::SeqCst) >= MANY).await;
    }

    async fn until(&self, wanted: usize, done: impl Fn(usize) -> bool) {
        let deadline = Instant::now() + TEST_TIMEOUT;
        while !done(self.parked()) {
            let parked = self.parked();
            assert!(Instant::now() < deadline, "{parked} parked, not {wanted}: {:?}", self.complaints());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
