//! Restarts of control beside a relay that stands still or has no descriptor left, and a state disk that is full: afterwards
//! one relay serves under the newest trust, or `status` says what is wrong.

use std::cell::OnceCell;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use zone_tests::host::Host;
use zone_tests::process::{Process, run, succeed};
use zone_tests::seeds::{Random, seeds};
use zone_tests::zone::Zone;
use zone_tests::{as_daemon, skip, until};

use super::{is_there, stop};

/// What happens to one host, one thing after the other.
const STEPS: usize = 4;
/// Hosts at the same time, where many histories are asked for.
const MAX_AT_ONCE: usize = 10;
/// What happens to a relay lasts so long at most, most of the time.
const MAX_SHORT_MILLIS: usize = 3_000;
/// One in so many times it lasts up to [`MAX_LONG_MILLIS`].
const LONG_ONE_IN: usize = 12;
/// As long as control waits for a relay that does not answer before it ends it.
const MAX_LONG_MILLIS: usize = 30_000;
/// A relay that answers within this time is kept, also on a loaded machine.
const SURE_TO_BE_KEPT: Duration = Duration::from_secs(25);

/// A host whose state directory is a small disk of its own, in a mount namespace that outlives control.
struct Scene {
    host: Host,
    zone: Zone,
    namespace: Process,
    /// The newest trust document that was said to be in force.
    pushed: u64,
}

impl Scene {
    fn play() -> Self {
        let namespace = OnceCell::new();
        let host = Host::start_by("", |command| {
            let config = PathBuf::from(command.get_args().last().expect("--config FILE"));
            within(namespace.get_or_init(|| small_disk(&config.with_file_name("state"))).pid(), command)
        });
        let (zone, namespace) = (Zone::with(&host), namespace.into_inner().expect("a mount namespace"));
        Self { host, zone, namespace, pushed: 1 }
    }

    fn restart(&mut self) {
        let namespace = self.namespace.pid();
        self.host.restart_by(|command| within(namespace, command));
    }

    /// A file on the small disk, as control sees it.
    fn filler(&self) -> PathBuf {
        let state = self.host.state();
        let inside = state.strip_prefix("/").expect("an absolute path");
        Path::new(&format!("/proc/{}/root", self.namespace.pid())).join(inside).join("filler")
    }

    fn fill(&self) {
        let mut file = fs::File::create(self.filler()).expect("a file");
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn free(&self) {
        // It may not be full.
        let _ = fs::remove_file(self.filler());
    }

    fn revoke(&mut self, id: u64) {
        let revoked = run(&mut self.zone.cli(&["revoke", "endpoint", &format!("host-{id}")]), b"");
        let said = String::from_utf8_lossy(&revoked.stderr).into_owned();
        if revoked.status.success() {
            self.pushed = self.host.status()["trust_version"].as_u64().expect("a version");
        } else {
            assert!(said.contains("No space left") || said.contains("not in force"), "it says why: {said}");
        }
    }

    /// One relay serves under the newest trust, and nothing is to be warned of.
    fn settles(&self, what: &str) {
        until(&format!("{what}: one relay serves:\n{}", self.host.control.said()), || {
            // Before the rest, for it may be mended in between.
            let warned = succeed(&mut self.host.cli(&["status"]), b"").contains("warning");
            let status = self.host.status();
            let relays = status["relays"].as_array().cloned().unwrap_or_default();
            let serving = relays.iter().filter(|relay| relay["state"] == "serving").count();
            let ports = status["ports"].as_array().cloned().unwrap_or_default();
            let well = serving == 1 && ports.iter().all(|port| port["listening"] == true);
            // What is wrong is said at every moment.
            assert!(well || warned, "{what}: nothing is said of {status}");
            well && !warned && relays.len() == 1
        });
        let status = self.host.status();
        assert!(status["trust_version"].as_u64() >= Some(self.pushed), "{what}: {status}");
    }
}

/// A mount namespace in which a directory is a small disk, held by a process.
fn small_disk(directory: &Path) -> Process {
    let script = "mkdir -p \"$0\" && mount -t tmpfs -o size=512k,mode=700,uid=nobody none \"$0\" && echo ready && exec sleep 600";
    let mut command = Command::new("unshare");
    let process = Process::start(command.args(["--mount", "sh", "-c", script]).arg(directory));
    process.says("ready");
    process
}

/// Has a program run in the mount namespace of a process.
fn within(process: Pid, command: &mut Command) -> &mut Command {
    let program = command.get_program().to_owned();
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    *command = Command::new("nsenter");
    command.args(["--target", &process.to_string(), "--mount", "--"]).arg(program).args(arguments)
}

fn limit(process: Pid, descriptors: usize) {
    let mut prlimit = Command::new("prlimit");
    prlimit.args(["--pid", &process.to_string(), &format!("--nofile={descriptors}:")]);
    succeed(as_daemon(&mut prlimit), b"");
}

fn history(seed: u64) {
    let mut random = Random::new(seed);
    let mut scene = Scene::play();
    let mut done = Vec::new();
    for step in 0..STEPS {
        let (how, full) =
            (["stands still", "has no descriptor", "is well"][random.below(3)], random.below(3) == 0);
        let longest = if random.below(LONG_ONE_IN) == 0 { MAX_LONG_MILLIS } else { MAX_SHORT_MILLIS };
        let stall = Duration::from_millis(random.below(longest) as u64);
        let revoked = random.below(2) == 0;
        done.push(format!("{how} for {stall:?}, full: {full}, revoked meanwhile: {revoked}"));
        let relay = scene.host.relay();
        if full {
            scene.fill();
        }
        // Before the relay: the kernel hangs up on a stopped process whose parent dies.
        scene.host.control.kill();
        match how {
            "stands still" => stop(relay),
            "has no descriptor" => {
                limit(relay, fs::read_dir(format!("/proc/{relay}/fd")).expect("our process").count());
            }
            _ => {}
        }
        scene.restart();
        if revoked {
            scene.revoke(seed * 100 + step as u64);
        }
        thread::sleep(stall);
        scene.free();
        match how {
            "stands still" if is_there(relay) => kill(relay, Signal::SIGCONT).expect("it is there"),
            "has no descriptor" if is_there(relay) => limit(relay, 1_000),
            _ => {}
        }
        scene.settles(&format!("seed {seed}: {done:#?}"));
        if !revoked && stall < SURE_TO_BE_KEPT {
            assert_eq!(
                scene.host.relay(),
                relay,
                "seed {seed}: {done:#?}: a relay that is well again is kept"
            );
        }
    }
}

#[test]
fn after_any_restart_one_relay_serves_under_the_newest_trust_or_status_says_what_is_wrong() {
    let name = "after_any_restart_one_relay_serves_under_the_newest_trust_or_status_says_what_is_wrong";
    if !run(Command::new("unshare").args(["--mount", "true"]), b"").status.success() {
        return skip(name, "a mount namespace takes root");
    }
    // They mostly wait, so several go side by side.
    let seeds = seeds(10);
    let at_once = usize::try_from(seeds.end - seeds.start).map_or(MAX_AT_ONCE, |all| all.div_ceil(2));
    let left = Mutex::new(seeds);
    thread::scope(|scope| {
        for _ in 0..at_once.min(MAX_AT_ONCE) {
            scope.spawn(|| {
                while let Some(seed) = { left.lock().expect("nobody panics in it").next() } {
                    history(seed);
                    println!("seed {seed} holds");
                }
            });
        }
    });
}

#[test]
fn a_full_state_disk_keeps_control_from_storing_and_not_from_serving() {
    let name = "a_full_state_disk_keeps_control_from_storing_and_not_from_serving";
    if !run(Command::new("unshare").args(["--mount", "true"]), b"").status.success() {
        return skip(name, "a mount namespace takes root");
    }
    let mut scene = Scene::play();
    let relay = scene.host.relay();
    scene.fill();
    scene.restart();
    assert_eq!(scene.host.relay(), relay, "it serves what it has");
    let told = succeed(&mut scene.host.cli(&["status"]), b"");
    assert!(told.contains("nothing can be stored") && told.contains("free some space"), "{told}");
    scene.free();
    scene.settles("there is space again");
}
