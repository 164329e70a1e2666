//! A storm of sessions that is over: what it cost the relay goes back to the system.

use std::time::{Duration, Instant};

use nix::unistd::Pid;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinSet;
use zone_tests::host::Host;
use zone_tests::zone::Zone;
use zone_tests::{TEST_TIMEOUT, skip};

use super::memory::{resident, settled};
use super::peers::{Inside, echo, round_trip, run, serving};

/// Each with two connections, and as many parks stand by.
const SESSIONS: usize = 2_000;
/// Fewer than an endpoint may have (`limits.sessions_per_endpoint`).
const SESSIONS_OF_AN_ENDPOINT: usize = 25;
const AT_ONCE: usize = 20;
/// Of what the storm has cost, so much may stay: tables that have grown, and half-empty pages.
const MOST_STAYS: f64 = 0.25;
/// Memory counts as settled when it has not moved for this long.
const QUIET: Duration = Duration::from_secs(4);

/// 2,000 sessions come and go; so does their memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_of_two_thousand_sessions_goes_back_to_the_system_when_they_have_ended() {
    let test = "the_memory_of_two_thousand_sessions_goes_back_to_the_system_when_they_have_ended";
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    if most < 8 * SESSIONS as u64 {
        return skip(test, "fewer than 16,000 descriptors may be opened here");
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: Some(most) })
        .expect("the hard limit can be asked for");
    let host = Host::start("");
    let zone = Zone::with(&host);
    let inside = std::sync::Arc::new(Inside::of(&zone));
    let relay = host.relay();
    let before = settled(relay, QUIET).await;

    let parks = u32::try_from(SESSIONS_OF_AN_ENDPOINT).expect("few");
    let endpoints: Vec<_> = (0..SESSIONS / SESSIONS_OF_AN_ENDPOINT)
        .map(|number| run(serving(inside.endpoint(&host, &id(number)).with_parks(parks), "echo", echo())))
        .collect();
    let mut sessions = Vec::new();
    while sessions.len() < SESSIONS {
        let mut opening = JoinSet::new();
        for number in sessions.len()..sessions.len() + AT_ONCE {
            let (inside, target) = (std::sync::Arc::clone(&inside), id(number / SESSIONS_OF_AN_ENDPOINT));
            opening.spawn(async move {
                let mut session = inside.session(&format!("{target}:echo")).await;
                round_trip(&mut session, 7).await.expect("a session");
                session
            });
        }
        sessions.extend(opening.join_all().await);
    }
    host.counts("all sessions are open", |counts| counts["sessions"] == SESSIONS);
    let during = resident(relay);
    drop(sessions);
    for endpoint in endpoints {
        endpoint.abort();
    }
    host.counts("all have left", |counts| counts["sessions"] == 0 && counts["parks"] == 0);
    let after = falls_to(relay, before, during).await;
    let stays = kib(after.saturating_sub(before)) / kib(during - before);
    println!(
        "{SESSIONS} sessions, RSS of the relay in KiB: {before} before, {during} with them, {after} afterwards: {:.0} % stay",
        100.0 * stays
    );
    assert!(stays <= MOST_STAYS, "{:.0} % stay", 100.0 * stays);
}

/// Waits until little of the growth is left, and says what is resident then.
async fn falls_to(relay: Pid, before: u64, during: u64) -> u64 {
    let deadline = Instant::now() + TEST_TIMEOUT;
    while kib(resident(relay) - before) > kib(during - before) * MOST_STAYS && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    settled(relay, QUIET).await
}

fn id(number: usize) -> String {
    format!("host-{number:02}")
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn kib(n: u64) -> f64 {
    n as f64
}
