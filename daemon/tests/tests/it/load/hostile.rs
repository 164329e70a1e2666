//! Strangers pay, others do not notice: floods of hostile connections beside people at work.

mod kinds;
mod work;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use rustix::process::setpriority_process;
use tokio::task::{JoinSet, spawn_blocking};
use zone_tests::host::Host;
use zone_tests::process::{run, succeed};
use zone_tests::until;
use zone_tests::zone::Zone;

use self::kinds::{Attacker, KINDS, PORTS};
pub(super) use self::work::processor_time;
use self::work::{CallsBySecond, EchoSessions};
use super::peers::{self, Inside, echo, serving};

/// Hostile connections, of each kind as many.
const CONNECTIONS: usize = 10_000;
/// Of them at the same time.
const AT_A_TIME: usize = 600;
/// People at work meanwhile.
const SESSIONS: usize = 50;
/// Places for connections that have not authenticated, on each port, while all kinds come at once.
const PLACES_IN_A_FLOOD: usize = 128;
/// The same while silent ones do nothing but take them.
const PLACES: usize = 64;
/// How long a baseline is taken.
const QUIET: Duration = Duration::from_secs(3);
/// Connections by which the price of a kind is found, and how often: the least counts, which nothing else has disturbed.
const PRICED: u32 = 10;
const ROUNDS: usize = 16;
/// Lines of a kind at once, and in a second (docs/logging.md).
const LINES_AT_ONCE: usize = 20;
const LINES_PER_SECOND: usize = 1;

fn config(places: usize) -> String {
    // Settled at once, so that a CONNECT to nobody is refused and does not wait.
    format!(
        "[timeouts]\nsettle = 0.001\n[limits]\nsessions_per_endpoint = {SESSIONS}\nconnections_per_endpoint = 128\n\
         unauthenticated_connections = {places}\ncontrol_unauthenticated_connections = {places}\n"
    )
}

/// Issue: floods of eight kinds break no session, refuse no CONNECT, and make no more than their share of the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_hostile_connections_of_eight_kinds_break_no_session_and_refuse_no_connect() {
    let host = Host::start(&config(PLACES_IN_A_FLOOD));
    let zone = Zone::with(&host);
    let inside = Inside::of(&zone);
    drop(peers::run(serving(inside.endpoint(&host, "host-1").with_parks(4), "echo", echo())));
    drop(peers::run(serving(inside.endpoint(&host, "host-2").with_parks(4), "echo", echo())));
    host.counts("both endpoints have parked", |counts| counts["parks"].as_u64() >= Some(2));
    let sessions = EchoSessions::open(&inside, "host-1:echo", SESSIONS).await;
    let calls = CallsBySecond::start(&zone, "host-2:echo");
    tokio::time::sleep(QUIET).await;
    let before = (sessions.take(), calls.take());

    let attacker = Attacker::new(&host, &zone);
    let (began, relay) = (Instant::now(), host.relay());
    spawn_blocking(move || flood(&attacker)).await.expect("no panic");
    let took = began.elapsed();
    let during = (sessions.take(), calls.take());
    println!("{CONNECTIONS} hostile connections in {:.1} s", took.as_secs_f64());
    println!("                     p50 ms    p99 ms    before: p50, p99");
    for (what, now, then) in [("echo", &during.0, &before.0), ("CONNECT", &during.1, &before.1)] {
        println!("{what:<18} {now}    {then}    p99 x {:.1}", now.p99() / then.p99());
    }
    assert_eq!((sessions.errors(), calls.errors()), (vec![], vec![]));
    assert!(during.1.count() > 0, "no CONNECT was made");
    assert_eq!(host.relay(), relay, "nothing has ended it");
    lines_are_bounded(&host.control.said(), took);
    let status = run(&mut zone.cli(&["status"]), b"");
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
}

/// All kinds, one after the other and many at a time, on a thread of its own and behind everybody else on this machine: who is
/// hostile computes elsewhere.
fn flood(attacker: &Attacker) {
    setpriority_process(None, 19).expect("one may always be more patient");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut crowd = JoinSet::new();
        for number in 0..CONNECTIONS {
            if crowd.len() >= AT_A_TIME {
                crowd.join_next().await;
            }
            let attacker = attacker.clone();
            crowd.spawn(async move { attacker.attack(KINDS[number % KINDS.len()], number).await });
        }
        while crowd.join_next().await.is_some() {}
    });
}

/// Of each reason no more lines than its budget.
fn lines_are_bounded(log: &str, took: Duration) {
    let most =
        LINES_AT_ONCE + LINES_PER_SECOND * (usize::try_from(took.as_secs()).expect("a short time") + 2);
    let mut table = String::new();
    let mut reasons = std::collections::BTreeMap::<&str, usize>::new();
    for line in log.lines().filter(|line| line.contains("held_back=")) {
        let quoted = |key: &str| line.split(key).nth(1).and_then(|rest| rest.split('"').next());
        let words = || line.split('=').next().and_then(|words| words.split(": ").nth(1));
        let reason = quoted("reason=\"").or_else(|| quoted("error=\"")).or_else(words);
        *reasons.entry(reason.unwrap_or(line)).or_default() += 1;
    }
    for (reason, lines) in &reasons {
        let _ = writeln!(table, "{lines:>6} lines  {reason}");
    }
    println!("{table}at most {most} for each");
    assert!(!reasons.is_empty(), "nothing was logged");
    for (reason, lines) in reasons {
        assert!(lines <= most, "{lines} lines of {reason}");
    }
}

/// Issue: no hostile connection costs the proxy more than two plain handshakes, by the clocks of its threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_connection_of_any_kind_costs_at_most_two_plain_handshakes() {
    let host = Host::start(&config(PLACES_IN_A_FLOOD));
    let zone = Zone::with(&host);
    let attacker = Attacker::new(&host, &zone);
    let processes = [host.relay(), host.control.pid()];
    let open = processes.map(work::descriptors);
    let gone = || {
        until("the connections are gone", || {
            processes.iter().zip(open).all(|(process, open)| work::descriptors(*process) <= open)
        });
    };
    let mut prices = [Duration::MAX; KINDS.len() + 1];
    // The first round finds everything cold.
    for _ in 0..=ROUNDS {
        for (price, kind) in prices.iter_mut().zip([None].into_iter().chain(KINDS.map(Some))) {
            let before: Duration = processes.map(processor_time).iter().sum();
            for number in 0..PRICED as usize {
                match kind {
                    None => attacker.plain_handshake(number).await,
                    Some(kind) => attacker.attack_and_leave(kind, number).await,
                }
            }
            gone();
            let after: Duration = processes.map(processor_time).iter().sum();
            let used = after.saturating_sub(before);
            *price = (*price).min(used / PRICED);
        }
    }
    let [plain, prices @ ..] = prices;
    let prices: Vec<_> = KINDS.into_iter().zip(prices).collect();
    println!("{:<28} {:>8.2} ms CPU", "plain handshake", plain.as_secs_f64() * 1e3);
    for (kind, price) in &prices {
        let times = price.as_secs_f64() / plain.as_secs_f64();
        println!("{:<28} {:>8.2} ms CPU, {times:.2} of it", kind.name(), price.as_secs_f64() * 1e3);
    }
    for (kind, price) in prices {
        assert!(price <= plain * 2, "{}: {price:?}, a plain handshake {plain:?}", kind.name());
    }
}

/// Issue: silent connections take the places that are meant for them, to the last one and no further, and nobody who
/// belongs here is kept out by them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_take_exactly_their_places_and_keep_nobody_out() {
    let host = Host::start(&config(PLACES));
    let zone = Zone::with(&host);
    let attacker = Attacker::new(&host, &zone);
    let silent = attacker.silent(2 * PLACES).await;
    let mut taken = [0; 3];
    until("the places are taken", || {
        taken = PORTS.map(|port| work::connections(host.port(port)));
        taken == [PLACES; 3]
    });
    let inside = Inside::of(&zone);
    drop(peers::run(serving(inside.endpoint(&host, "host-1"), "echo", echo())));
    host.counts("it has parked", |counts| counts["endpoints"] == 1);
    let mut session = inside.session("host-1:echo").await;
    peers::round_trip(&mut session, 1).await.expect("a session");
    assert!(succeed(&mut zone.cli(&["status"]), b"").contains("p1"));
    drop(session);
    drop(silent);
}
