//! A relay at its limits, with every session stalled in both directions: it has less memory than its service manager is told
//! to let it have, so its limits bite before the kernel ends it.

use std::process::Command;
use std::time::Duration;

use tokio::task::JoinSet;
use zone_module::proxies;
use zone_module::session::EndToEnd;
use zone_settings::Limits;
use zone_tests::host::Host;
use zone_tests::process::succeed;
use zone_tests::skip;
use zone_tests::zone::Zone;

use super::memory::settled;
use super::peers::{Inside, run, serving};
use super::stalled::{Stalling, push};

const SESSIONS: usize = 120;
/// Two for each session, and parks.
const CONNECTIONS: usize = 320;
const SESSIONS_OF_AN_ENDPOINT: usize = 30;
const PARKS_OF_AN_ENDPOINT: u32 = 4;
/// Memory counts as settled when it has not moved for this long.
const QUIET: Duration = Duration::from_secs(1);

/// What the kernel holds for the sockets of a host's relay ports, bytes: receive queues, send queues, and what is set aside
/// for them (`skmem` in ss(8)).
fn socket_bytes(host: &Host) -> u64 {
    let mut ss = Command::new("ss");
    let filter = format!("( sport = :17486 or sport = :17487 ) and src {}", host.address);
    let told = succeed(ss.args(["-H", "-t", "-n", "-m"]).arg(filter), b"");
    let of_one = |text: &str| -> u64 {
        let figures = text.split(')').next().unwrap_or_default().split(',');
        let counted = |figure: &str| {
            ["r", "f", "w"].iter().find_map(|kind| figure.strip_prefix(kind)?.parse::<u64>().ok())
        };
        figures.filter_map(counted).sum()
    };
    told.split("skmem:(").skip(1).map(of_one).sum()
}

/// The drop-in that `check-config` prints goes by the same figure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_at_its_limits_stays_below_what_its_unit_is_told_to_let_it_have() {
    let name = "a_relay_at_its_limits_stays_below_what_its_unit_is_told_to_let_it_have";
    if Command::new("ss").arg("-V").output().is_err() {
        return skip(name, "ss is missing");
    }
    let host = Host::start(&format!("[limits]\nsessions = {SESSIONS}\nconnections = {CONNECTIONS}\n"));
    let zone = Zone::with(&host);
    let inside = Inside::of(&zone);
    let stalling = Stalling::default();
    let endpoints = SESSIONS / SESSIONS_OF_AN_ENDPOINT;
    for number in 0..endpoints {
        let endpoint = inside.endpoint(&host, &format!("stalled-{number}")).with_parks(PARKS_OF_AN_ENDPOINT);
        drop(run(serving(endpoint, "pusher", stalling.pusher())));
    }
    let relay = host.relay();
    let mut crowd = JoinSet::new();
    for number in 0..SESSIONS {
        let session = inside.session(&format!("stalled-{}:pusher", number % endpoints)).await;
        let (stage, pushed) = stalling.subscribe();
        crowd.spawn(push(session, stage, pushed));
    }
    let clients = proxies::clients(&zone.directory()).expect("a proxy");
    let target = "stalled-0:pusher".parse().expect("a target");
    let further = proxies::connect(&clients, &target, EndToEnd::Off);
    let refused = further.await.map(drop).expect_err("one session too many");
    println!("one session too many: {refused}");
    // Parks take what is left.
    let left = CONNECTIONS - 2 * SESSIONS - endpoints * PARKS_OF_AN_ENDPOINT as usize;
    for number in 0..left / PARKS_OF_AN_ENDPOINT as usize + 2 {
        let endpoint = inside.endpoint(&host, &format!("parked-{number}")).with_parks(PARKS_OF_AN_ENDPOINT);
        drop(run(endpoint));
    }
    let most_parks = (CONNECTIONS - 2 * SESSIONS) as u64;
    host.counts("parks take what is left", |counts| counts["parks"].as_u64() >= Some(most_parks - 8));
    let pushed = stalling.fill().await;
    let resident = settled(relay, QUIET).await;
    let kernel = socket_bytes(&host) >> 10;
    // No handshake is underway, so that nothing of what is set aside for those makes room here.
    let unauthenticated_connections = 0;
    let limits = Limits {
        sessions: SESSIONS,
        connections: CONNECTIONS,
        unauthenticated_connections,
        ..Limits::default()
    };
    let allowed = limits.relay_memory_bytes() >> 10;
    println!(
        "{SESSIONS} sessions, stalled both ways with {} MiB underway, {CONNECTIONS} connections: {resident} KiB resident, \
         {kernel} KiB in sockets, {allowed} KiB allowed",
        pushed >> 20
    );
    assert!(resident + kernel < allowed, "{} KiB of {allowed}", resident + kernel);
    assert_eq!(host.relay(), relay, "nothing has ended it");
    stalling.end(crowd).await;
}
