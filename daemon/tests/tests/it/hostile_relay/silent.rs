//! A relay that says nothing: it vetoes no revocation, and a control that is started meanwhile takes it up later.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use zone_tests::host::Host;
use zone_tests::process::succeed;
use zone_tests::session::Session;
use zone_tests::zone::{Service, Zone};
use zone_tests::{as_daemon, target, until};

use super::{is_there, stop, trust_version};

/// For a relay to take a policy, for its end, and then some for a loaded machine.
const REVOCATION_TIMEOUT: Duration = Duration::from_secs(20);

fn scene() -> (Host, Zone, zone_tests::process::Process, Session) {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let echo = Service { name: "echo", port: 7, target: target::echo().to_string(), end_to_end: true };
    let endpoint = zone.endpoint(&host, "host-7", &[echo]);
    let mut session = Session::connect(&zone, "host-7:echo");
    session.exchanges(b"first words");
    (host, zone, endpoint, session)
}

fn parks(host: &Host) -> u64 {
    let status = host.status();
    status["relays"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|relay| relay["counts"]["parks"].as_u64())
        .sum()
}

#[test]
fn a_relay_that_says_nothing_vetoes_no_revocation_and_is_replaced() {
    let (host, zone, _endpoint, session) = scene();
    let before = trust_version(&host, &zone);
    let relay = host.relay();
    stop(relay);
    let began = Instant::now();
    succeed(&mut zone.cli(&["revoke", "endpoint", "host-7"]), b"");
    let took = began.elapsed();
    println!("a revocation that the relay does not take: in force after {took:.1?}");
    assert!(took < REVOCATION_TIMEOUT, "{took:?}");
    assert_eq!(trust_version(&host, &zone), before + 1);
    assert!(
        !is_there(relay),
        "the relay that goes by the old policy is gone when the command says that it is done"
    );
    drop(session);
    until("another relay serves", || host.status()["relays"][0]["state"] == "serving");
    assert_ne!(host.relay(), relay);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(parks(&host), 0, "the revoked endpoint is not let in again");
}

#[test]
fn a_reset_ends_a_relay_that_does_not_end_by_itself() {
    let (host, _zone, _endpoint, _session) = scene();
    let relay = host.relay();
    stop(relay);
    succeed(&mut host.cli(&["reset", "--yes"]), b"");
    assert!(!is_there(relay));
    assert_eq!(host.status()["relays"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_relay_that_stands_still_while_control_is_started_is_taken_up_once_it_goes_on() {
    let (mut host, zone, _endpoint, mut session) = scene();
    let relay = host.relay();
    // In this order: the kernel hangs up on a stopped process whose parent dies (setpgid(2), orphaned process groups).
    host.control.kill();
    stop(relay);
    host.restart();
    let told = succeed(&mut host.cli(&["status"]), b"");
    assert!(told.contains("warning") && told.contains(&relay.to_string()), "status is not well: {told}");
    std::thread::sleep(Duration::from_secs(3));
    resume(relay);
    taken_up(&host, relay);
    session.exchanges(b"nothing was lost");
    succeed(&mut zone.cli(&["revoke", "endpoint", "host-7"]), b"");
    assert_eq!(session.ends().0.code(), Some(3), "a revocation reaches it");
    assert_eq!(host.relay(), relay, "and it is the same one");
}

#[test]
fn a_revocation_does_not_claim_to_be_in_force_while_a_relay_is_not_taken_up() {
    let (mut host, zone, _endpoint, mut session) = scene();
    let relay = host.relay();
    // In this order: the kernel hangs up on a stopped process whose parent dies (setpgid(2), orphaned process groups).
    host.control.kill();
    stop(relay);
    host.restart();
    succeed(&mut zone.cli(&["revoke", "endpoint", "host-7"]), b"");
    assert!(!is_there(relay), "it never took the new trust document up, so it was ended");
    assert_eq!(session.ends().0.code(), Some(3));
    until("another relay serves", || host.status()["relays"][0]["state"] == "serving");
    for port in [17486, 17487] {
        until("the ports are open", || host.answers(port));
    }
}

#[test]
fn a_relay_without_descriptors_while_control_is_started_is_taken_up_once_it_has_some() {
    let (mut host, _zone, _endpoint, mut session) = scene();
    let relay = host.relay();
    host.control.kill();
    let used = std::fs::read_dir(format!("/proc/{relay}/fd")).expect("our process").count();
    limit(relay, used);
    host.restart();
    std::thread::sleep(Duration::from_secs(4));
    limit(relay, 1_000);
    taken_up(&host, relay);
    session.exchanges(b"nothing was lost");
}

fn limit(process: Pid, descriptors: usize) {
    let mut prlimit = Command::new("prlimit");
    prlimit.args(["--pid", &process.to_string(), &format!("--nofile={descriptors}:")]);
    succeed(as_daemon(&mut prlimit), b"");
}

fn resume(process: Pid) {
    kill(process, Signal::SIGCONT).expect("the process is there");
}

fn taken_up(host: &Host, relay: Pid) {
    until(&format!("{relay} is taken up:\n{}", host.control.said()), || {
        let status = host.status();
        let serving = |one: &serde_json::Value| one["state"] == "serving" && one["pid"] == relay.as_raw();
        status["relays"].as_array().is_some_and(|relays| relays.iter().any(serving))
            && status["ports"]
                .as_array()
                .is_some_and(|ports| ports.iter().all(|port| port["listening"] == true))
    });
    assert!(!succeed(&mut host.cli(&["status"]), b"").contains("warning"), "all is well again");
}

/// Nobody but control watches over a relay that it has started itself.
#[test]
fn a_relay_that_stands_still_is_replaced_though_nobody_asks_for_anything() {
    let (host, zone, _endpoint, session) = scene();
    let relay = host.relay();
    stop(relay);
    host.control.says("a relay gives no sign of life, and is killed");
    until("another relay serves", || host.relay_now().is_some_and(|now| now != relay));
    assert!(!is_there(relay));
    drop(session);
    until("the endpoint is back", || parks(&host) > 0);
    Session::connect(&zone, "host-7:echo").exchanges(b"words");
}
