//! A relay with few descriptors: whoever waits for an endpoint does not keep it out.

use std::process::Command;

use tokio::task::JoinSet;
use zone_module::proxies;
use zone_module::session::EndToEnd;
use zone_tests::host::Host;
use zone_tests::process::succeed;
use zone_tests::zone::Zone;
use zone_tests::{as_daemon, until};

use super::peers::{Inside, echo, run, serving};

/// Of the relay, which inherits it from control.
const DESCRIPTORS: usize = 200;
/// More than there are descriptors for.
const CALLERS: usize = 240;
/// Endpoints that nobody runs; not too many callers wait for one of them.
const ABSENT: usize = 10;
const ENDPOINTS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_wait_leave_descriptors_to_endpoints_and_a_low_limit_is_warned_of() {
    let host = Host::start("[timeouts]\nsettle = 60\nconnect = 60\n");
    let (pid, limit) = (host.control.pid().to_string(), format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}"));
    succeed(as_daemon(Command::new("prlimit").args(["--pid", &pid, &limit])), b"");
    let zone = Zone::with(&host);
    host.logs(&["there are fewer descriptors than limits.connections takes", "descriptors=200"]);
    let inside = Inside::of(&zone);
    let mut waiting = JoinSet::new();
    for number in 0..CALLERS {
        let clients = proxies::clients(&zone.directory()).expect("a proxy");
        let target = format!("absent-{}:echo", number % ABSENT).parse().expect("a target");
        waiting.spawn(async move { proxies::connect(&clients, &target, EndToEnd::Off).await.map(drop) });
    }
    let relay = host.relay();
    let held = || std::fs::read_dir(format!("/proc/{relay}/fd")).map_or(0, Iterator::count);
    // A quarter, and what a relay has for itself.
    let share = DESCRIPTORS / 4;
    tokio::task::block_in_place(|| until("they wait", || held() >= share));
    for number in 0..ENDPOINTS {
        drop(run(serving(inside.endpoint(&host, &format!("host-{number}")), "echo", echo())));
    }
    tokio::task::block_in_place(|| {
        host.counts("all are parked", |counts| counts["endpoints"] == ENDPOINTS as u64);
    });
    assert!(held() < DESCRIPTORS, "there are descriptors left");
    let ended = waiting.try_join_next();
    assert!(ended.is_none(), "the callers wait still: {ended:?}");
}
