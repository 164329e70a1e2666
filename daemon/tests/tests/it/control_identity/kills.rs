//! The rotation that brings 17488 its identity is cut off by SIGKILL at every step, on either side: afterwards the proxy can be
//! reached, and a repeated rotation ends with the identity in force and noted.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use zone_tests::control::Client;
use zone_tests::host::Host;
use zone_tests::process::{run, succeed};
use zone_tests::zone::Zone;
use zone_tests::{skip, until};

use super::{noted, take_away};
use crate::crash::{Call, FILES, Trace};

/// What `zone-module` does to files, to the proxy, and while it waits for that.
const CLIENT_CALLS: [&str; 12] = [
    "connect", "flock", "fsync", "linkat", "openat", "recvfrom", "rename", "sendto", "socket", "unlink",
    "write", "writev",
];
/// More calls of one name than a rotation makes.
const MAX_CALLS: usize = 60;
/// For a call that comes after the client has its answer.
const LATE_CALL_TIMEOUT: Duration = Duration::from_millis(500);

/// The proxy as a Module Server of the version before has provisioned it.
struct Scene {
    host: Host,
    zone: Zone,
}

#[test]
fn control_killed_at_any_change_of_a_file_while_it_takes_new_keys_shows_the_old_identity_or_the_new_one() {
    let test = "control_killed_at_any_change_of_a_file_while_it_takes_new_keys_shows_the_old_identity_or_the_new_one";
    let Some(mut scene) = Scene::new(test) else { return };
    let Some(trace) = Trace::start(&scene.host.control, &[&format!("trace={FILES}")]) else {
        return skip(test, "strace may not attach to another process here");
    };
    succeed(&mut scene.zone.cli(&["rotate", "p1"]), b"");
    let mut counts = BTreeMap::<String, usize>::new();
    for call in trace.detach().into_iter().filter(|call| call.changes) {
        *counts.entry(call.name).or_default() += 1;
    }
    scene.reset();
    let (mut kills, mut old, mut new) = (0, 0, 0);
    for (name, count) in counts {
        for n in 1..=count {
            let Some(call) = scene.kill_control(&name, n) else { continue };
            kills += 1;
            scene.host.restart();
            if scene.shows_its_own() {
                new += 1;
            } else {
                old += 1;
            }
            scene.is_whole(&format!("control at {call}"));
            scene.reset();
        }
    }
    println!("control: {kills} kills, {old} ended with the old identity, {new} with the new one");
    assert!(kills >= 40 && old > 0 && new > 0, "{kills} kills, {old} old, {new} new");
}

#[test]
fn zone_module_killed_at_any_step_of_a_rotation_reaches_the_proxy_and_completes_it_when_it_is_repeated() {
    let test =
        "zone_module_killed_at_any_step_of_a_rotation_reaches_the_proxy_and_completes_it_when_it_is_repeated";
    let Some(mut scene) = Scene::new(test) else { return };
    let (mut kills, mut old, mut new, mut unnoted) = (0, 0, 0, 0);
    for name in CLIENT_CALLS {
        for n in 1..=MAX_CALLS {
            let output = run(&mut scene.traced_rotation(name, n), b"");
            if output.status.success() {
                scene.reset();
                break;
            }
            assert_eq!(output.status.signal(), Some(Signal::SIGKILL as i32), "{name} {n}: {output:?}");
            kills += 1;
            // The request may be there and its answer not: the change goes on.
            scene.settles();
            let shows = scene.shows_its_own();
            if shows {
                new += 1;
            } else {
                old += 1;
            }
            unnoted += usize::from(shows && !noted(&scene.zone));
            assert!(shows || !noted(&scene.zone), "{name} {n}: what is noted is not there");
            scene.is_whole(&format!("zone-module at {name} {n}"));
            scene.reset();
        }
    }
    println!(
        "zone-module: {kills} kills, {old} left the old identity, {new} the new one ({unnoted} of them not noted yet)"
    );
    assert!(kills >= 40 && old > 0 && new > 0 && unnoted > 0, "{kills} kills, {old}, {new}, {unnoted}");
}

impl Scene {
    fn new(test: &str) -> Option<Self> {
        if !Command::new("strace").arg("-V").output().is_ok_and(|output| output.status.success()) {
            skip(test, "strace is missing");
            return None;
        }
        let host = Host::start("");
        let mut scene = Self { zone: Zone::with(&host), host };
        scene.reset();
        Some(scene)
    }

    /// Takes the identity of 17488 away on both sides, as the programs of the version before do.
    fn reset(&mut self) {
        take_away(&mut self.host, &self.zone);
        assert!(!self.shows_its_own() && !noted(&self.zone));
    }

    /// The call at which control was killed while it was told to rotate; `None` where it did not get that far.
    fn kill_control(&mut self, name: &str, n: usize) -> Option<Call> {
        let inject = format!("inject={name}:signal=SIGKILL:when={n}");
        let trace = Trace::start(&self.host.control, &[&format!("trace={name}"), &inject])
            .expect("it attached before");
        let output = run(&mut self.zone.cli(&["rotate", "p1"]), b"");
        let deadline = Instant::now() + LATE_CALL_TIMEOUT;
        while self.host.control.runs() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        if self.host.control.runs() {
            trace.detach();
            assert!(output.status.success(), "{name} {n}: {output:?}");
            self.reset();
            return None;
        }
        let call = trace.ended().pop().expect("the call at which it was killed");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || said.contains("zone-module: proxy "), "{call}: {said}");
        Some(call)
    }

    fn traced_rotation(&self, name: &str, n: usize) -> Command {
        let rotation = self.zone.cli(&["rotate", "p1"]);
        let mut command = Command::new("strace");
        command.args(["-f", "-o", "/dev/null", "-e", &format!("trace={name}")]);
        command.args(["-e", &format!("inject={name}:signal=SIGKILL:when={n}")]);
        command.arg(rotation.get_program()).args(rotation.get_args());
        command
    }

    /// Waits until the proxy makes no change: then it answers one that is for another trust document with 412.
    fn settles(&self) {
        let trust =
            serde_json::to_vec(&self.zone.directory().trust().expect("a trust document")).expect("JSON");
        until("no change is under way", || {
            let fields = [("If-Match", "\"999999\"")];
            Client::member(&self.host, &self.zone).ask("PUT", "/v1/trust", &fields, &trust).status == 412
        });
    }

    fn shows_its_own(&self) -> bool {
        self.host.status()["control_identity"] == "spiffe://plant/zone-control/p1"
    }

    /// The proxy is reached by whoever did not hear what came of it, and the rotation can be repeated.
    fn is_whole(&self, at: &str) {
        succeed(&mut self.zone.cli(&["status", "p1"]), b"");
        assert_eq!(
            noted(&self.zone),
            self.shows_its_own(),
            "{at}: what is there is noted at the next contact"
        );
        succeed(&mut self.zone.cli(&["rotate", "p1"]), b"");
        assert!(self.shows_its_own() && noted(&self.zone), "{at}: a repeated rotation does not complete it");
        succeed(&mut self.zone.cli(&["status", "p1"]), b"");
    }
}
