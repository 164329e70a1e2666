//! A program in the relay's place that does what a captured relay could.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use tempfile::TempDir;
use zone_tests::control::Client;
use zone_tests::host::Host;
use zone_tests::manager::Manager;
use zone_tests::process::succeed;
use zone_tests::until;
use zone_tests::zone::Zone;

use super::{is_there, trust_version};

const PROGRAM: &str = include_str!("relay.py");
/// For a relay to be gone once it was told to end, or is to be ended: it is given 3 s, killed, and waited for.
const END_TIMEOUT: Duration = Duration::from_secs(12);
/// Descriptors of control that a relay may cost, with everything else that it has.
const MAX_CONTROL_DESCRIPTORS: usize = 100;
/// What control may grow by for a relay, in KiB.
const MAX_CONTROL_GROWTH_KIB: u64 = 40 * 1024;

struct Captured {
    host: Host,
    zone: Zone,
    program: TempDir,
    _manager: Manager,
}

impl Captured {
    fn play(mode: &str) -> Self {
        let program = zone_tests::folder();
        let path = program.path().join("relay.py");
        fs::write(&path, PROGRAM).expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("our file");
        let captured = |mode: &str| fs::write(program.path().join("MODE"), mode).expect("written");
        captured(mode);
        // What control starts itself has no more than control.
        let manager = Manager::start_in_place_of_relays(&path);
        let host = Host::start(&format!("[relay]\nsocket = \"{}\"\n", manager.socket().display()));
        let zone = Zone::with(&host);
        Self { host, zone, program, _manager: manager }
    }

    /// Relays that are started from now on behave.
    fn next_behaves(&self) {
        fs::write(self.program.path().join("MODE"), "").expect("written");
    }

    fn control(&self) -> (usize, u64) {
        let process = format!("/proc/{}", self.host.control.pid());
        let status = fs::read_to_string(Path::new(&process).join("status")).expect("it runs");
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        let memory = memory.trim().trim_end_matches(" kB").parse().expect("a number");
        (fs::read_dir(Path::new(&process).join("fd")).expect("our process").count(), memory)
    }

    fn ask(&self, path: &str) -> String {
        Client::member(&self.host, &self.zone).ask("GET", path, &[], b"").body
    }
}

/// The process of the newest relay, by the kernel's word.
fn relay(host: &Host) -> Pid {
    let status = host.status();
    let newest =
        status["relays"].as_array().and_then(|relays| relays.first()).and_then(|relay| relay["pid"].as_i64());
    Pid::from_raw(newest.and_then(|pid| i32::try_from(pid).ok()).expect("a relay"))
}

fn gone_in_time(process: Pid, since: Instant) {
    assert!(!is_there(process), "{process} goes on");
    assert!(since.elapsed() < END_TIMEOUT, "{:?}", since.elapsed());
}

#[test]
fn whoever_does_not_keep_to_the_channel_is_killed_and_replaced() {
    for mode in ["unannounced", "announced", "too-many", "hello", "unasked", "deep", "huge", "garbage"] {
        let scene = Captured::play(&format!("stubborn {mode}"));
        scene.host.control.says("does not keep to the channel");
        scene.next_behaves();
        until(&format!("{mode}: another one serves"), || {
            let status = scene.host.status();
            let relay = &status["relays"][0];
            relay["state"] == "serving" && relay["generation"].as_u64() > Some(1)
        });
        let (descriptors, _) = scene.control();
        assert!(descriptors < MAX_CONTROL_DESCRIPTORS, "{mode}: {descriptors}");
        let status = scene.host.status();
        assert_eq!(status["relays"].as_array().map(Vec::len), Some(1), "{mode}: {status}");
    }
}

#[test]
fn what_a_relay_says_never_stands_as_controls_word() {
    let scene = Captured::play("forge");
    scene.host.control.says("relay_change=\"provision\"");
    let said = scene.host.control.said();
    let forged = |line: &&str| line.contains("evil") || line.contains("change=\"trust\"");
    for line in said.lines().filter(forged) {
        assert!(line.contains(" zone_relay: ") && line.contains("process=\"zone-relay\""), "{line}");
        assert!(!line.contains(" change=") && !line.contains(" audit: "), "{line}");
    }
    assert_eq!(said.lines().filter(|line| line.contains("audit: done")).count(), 1, "the true one: {said}");

    let relay = relay(&scene.host);
    let status = scene.host.status();
    assert_eq!(status["relays"][0]["pid"], relay.as_raw());
    let processes = status["processes"].as_array().expect("a list");
    let shown = processes.iter().find(|one| one["role"] == "relay").expect("the relay");
    assert_eq!(shown["pid"], relay.as_raw());
    assert_eq!(shown["capabilities"], processes[0]["capabilities"], "as the kernel shows them");

    let metrics = scene.ask("/metrics");
    assert!(
        metrics.contains("zone_relay_parks 7") && metrics.contains("zone_proxy_provisioned 1"),
        "{metrics}"
    );
    assert!(!metrics.contains("99999") && !metrics.contains("garbage"), "{metrics}");
    assert!(!metrics.contains("# EOF"), "a relay does not end the text: {metrics}");
    assert!(scene.host.metric(&scene.zone, "zone_proxy_relay_metrics_dropped_total") >= 4);
}

#[test]
fn a_flood_of_records_costs_a_bounded_log_and_keeps_nobody_from_being_answered() {
    let scene = Captured::play("flood");
    let (_, before) = scene.control();
    let (began, mut worst) = (Instant::now(), Duration::ZERO);
    while began.elapsed() < Duration::from_secs(8) {
        let asked = Instant::now();
        scene.ask("/v1/trust");
        worst = worst.max(asked.elapsed());
    }
    let (descriptors, memory) = scene.control();
    let (logged, grown) = (scene.host.control.said().len() / 1024, memory.saturating_sub(before));
    println!("8 s of flood: log {logged} KiB, memory +{grown} KiB, slowest answer {worst:.1?}");
    // 8 MiB at once and 512 KiB a second, with what stands before each line.
    assert!(logged < 16 * 1024, "{logged} KiB of log");
    assert!(grown < MAX_CONTROL_GROWTH_KIB, "{grown} KiB");
    assert!(descriptors < MAX_CONTROL_DESCRIPTORS, "{descriptors}");
    assert!(worst < Duration::from_secs(2), "{worst:?}");
    assert!(scene.host.metric(&scene.zone, "zone_proxy_relay_records_dropped_total") > 100);
    scene.host.control.says("records of a relay are dropped");
}

#[test]
fn a_flood_of_answers_keeps_nobody_from_being_answered() {
    let scene = Captured::play("replies");
    let (_, before) = scene.control();
    let asked = Instant::now();
    for _ in 0..20 {
        scene.ask("/v1/trust");
    }
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    assert!(scene.control().1.saturating_sub(before) < MAX_CONTROL_GROWTH_KIB);
}

#[test]
fn a_relay_that_refuses_or_ignores_a_policy_does_not_outlive_a_revocation() {
    for mode in ["stubborn refuses", "stubborn deaf"] {
        let scene = Captured::play(mode);
        let (old, version) = (relay(&scene.host), trust_version(&scene.host, &scene.zone));
        scene.next_behaves();
        let began = Instant::now();
        succeed(&mut scene.zone.cli(&["revoke", "endpoint", "host-7"]), b"");
        assert!(!is_there(old), "{mode}: it is gone when the command says that it is done");
        println!("'{mode}': a revocation in force after {:.1?}", began.elapsed());
        assert_eq!(trust_version(&scene.host, &scene.zone), version + 1);
        until("another one serves", || scene.host.status()["relays"][0]["state"] == "serving");
        let said = scene.host.control.said();
        assert!(said.lines().all(|line| line.len() < 2_000), "its own words are cut");
    }
}

#[test]
fn a_relay_that_keeps_its_port_does_not_outlive_a_reset() {
    let scene = Captured::play("stubborn listen");
    let old = relay(&scene.host);
    let began = Instant::now();
    succeed(&mut scene.host.cli(&["reset", "--yes"]), b"");
    gone_in_time(old, began);
    println!("a reset that the relay ignores: {:.1?}", began.elapsed());
    assert!(!scene.host.answers(17486) && !scene.host.answers(17487));
    let status = scene.host.status();
    assert_eq!(status["relays"].as_array().map(Vec::len), Some(0), "{status}");
}

#[test]
fn a_session_whose_relay_was_killed_ends_in_the_audit_log() {
    let mut scene = Captured::play("stubborn sessions");
    scene.host.control.says("session-4");
    // The control that follows knows of them too.
    scene.host.restart();
    nix::sys::signal::kill(serving(&scene.host), nix::sys::signal::Signal::SIGKILL).expect("it is there");
    until("their ends are logged", || scene.host.control.said().matches("relay_lost").count() >= 5);
    for number in 0..5 {
        let id = format!("session=\"session-{number}\"");
        scene.host.logs(&["audit", "session ended", &id, "reason=\"relay_lost\"", "caller=\"module-1\""]);
    }
}

/// A relay that has said nothing of being taken up is found by its file.
fn serving(host: &Host) -> Pid {
    let noted = fs::read_to_string(host.runtime().join("relay-1.json")).expect("it is noted");
    let noted: serde_json::Value = serde_json::from_str(&noted).expect("JSON");
    Pid::from_raw(i32::try_from(noted["pid"].as_i64().expect("a process id")).expect("a process id"))
}
