//! A process of the proxy that somebody has taken over, who has it make any system call: what they reach.
//!
//! The real relay and the real control, serving, are played by [`zone_captured`]. Tables are printed. Nothing may reach a
//! server, a file, a program or another process, but for what the threat model names.

mod claims;
mod stillness;

use std::net::{Ipv6Addr, TcpListener};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use zone_captured::{
    Attempt, SERVICE_MANAGER, SYSLOG, Scene, Surroundings, Target, User, datagram, play, threads,
};
use zone_tests::host::Host;
use zone_tests::manager::Manager;
use zone_tests::process::{fail, run, succeed};
use zone_tests::zone::Zone;
use zone_tests::{USER, address, as_daemon, folder, program_for_others, skip, until};

/// Of the service manager, in microseconds: longer than anything here takes.
const WATCHDOG: &str = "30000000";

/// Whether there can be a network namespace of the test's own, in which this thread is then, and all that it starts.
fn may_capture(test: &str) -> bool {
    if !nix::unistd::geteuid().is_root() {
        skip(test, "a network namespace and ptrace of a daemon take root");
        return false;
    }
    if !run(Command::new("sh").args(["-c", "command -v ip"]), b"").status.success() {
        skip(test, "ip is missing");
        return false;
    }
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
    succeed(Command::new("ip").args(["link", "set", "lo", "up"]), b"");
    true
}

/// Which process of a host is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Relay,
    Control,
}

/// A proxy that listens for IPv4 and IPv6, one process of which is captured again and again.
struct Stage<'a> {
    host: Host,
    role: Role,
    manager: Option<&'a Manager>,
    /// The relay that serves.
    relay: Option<Pid>,
}

impl<'a> Stage<'a> {
    fn set(role: Role, manager: Option<&'a Manager>) -> Self {
        Self::set_with(role, manager, "")
    }

    fn set_with(role: Role, manager: Option<&'a Manager>, more: &str) -> Self {
        let socket = manager.map(|manager| format!("[relay]\nsocket = \"{}\"\n", manager.socket().display()));
        let host = Host::start_by(&(socket.unwrap_or_default() + more), |command| adopted(manager, command));
        let zone = Zone::init();
        let mut provision = zone.provision_command(&host);
        succeed(provision.args(["--listen", "::1"]), host.payload().as_bytes());
        Self { host, role, manager, relay: None }
    }

    /// Makes every attempt, prints what came of them, and finds nothing that is more than it should be.
    fn play(&mut self, attempts: &[Attempt]) {
        let nobody = nix::unistd::User::from_name(USER).expect("the user database").expect("that user");
        let user = User { uid: nobody.uid.as_raw(), gid: nobody.gid.as_raw() };
        let folder = folder();
        let mut around = Surroundings::new(folder.path(), address().into(), user);
        let wrong = play(self, &mut around, attempts);
        let count = wrong.len();
        assert!(
            count == 0,
            "{count} attempts came to something else than they should:\n{}",
            wrong.join("\n")
        );
    }
}

impl Scene for Stage<'_> {
    fn target(&mut self) -> Target {
        let relay = serving(&self.host);
        self.relay = Some(relay);
        // What a host's control closes by landlock, it says itself; a relay closes it by seccomp as well.
        let landlock = landlock(&self.host);
        match self.role {
            Role::Relay => Target {
                process: relay,
                connect: vec![self.host.port(17486), (Ipv6Addr::LOCALHOST, 17486).into()],
                listens: 17487,
                landlock,
            },
            Role::Control => Target {
                process: self.host.control.pid(),
                connect: vec![self.host.port(17488)],
                listens: 17487,
                landlock,
            },
        }
    }

    fn renew(&mut self) {
        // A relay whose listeners a captured control has closed is no relay for the next attempt.
        if let Some(relay) = self.relay.take() {
            let _ = kill(relay, Signal::SIGKILL);
        }
        let manager = self.manager;
        self.host.restart_by(|command| adopted(manager, command));
    }
}

fn adopted<'a>(manager: Option<&Manager>, command: &'a mut Command) -> &'a mut Command {
    match manager {
        Some(manager) => manager.adopt(command, WATCHDOG),
        None => command,
    }
}

/// Waits for a relay that serves.
fn serving(host: &Host) -> Pid {
    let mut found = None;
    until("a relay serves", || {
        let status = host.status();
        let relays = status["relays"].as_array().cloned().unwrap_or_default();
        let relay = relays.iter().find(|relay| relay["state"] == "serving");
        found = relay.and_then(|relay| relay["pid"].as_i64());
        found.is_some()
    });
    Pid::from_raw(i32::try_from(found.expect("one that serves")).expect("a process id"))
}

/// What a process says in `status` that it has given up.
fn confinement(host: &Host, role: &str) -> serde_json::Value {
    let status = host.status();
    let processes = status["processes"].as_array().expect("a list");
    processes.iter().find(|process| process["role"] == role).expect("that process")["confinement"].clone()
}

/// The version of landlock that control is confined by; 0 for none.
fn landlock(host: &Host) -> u32 {
    let word = confinement(host, "control")["landlock"].as_str().unwrap_or_default().to_owned();
    let version = word.strip_prefix("ABI ").and_then(|rest| rest.strip_suffix(", restricted"));
    version.and_then(|version| version.parse().ok()).unwrap_or_default()
}

#[test]
fn a_captured_relay_reaches_nothing() {
    let test = "a_captured_relay_reaches_nothing";
    if !may_capture(test) {
        return;
    }
    let mut stage = Stage::set(Role::Relay, None);
    assert_eq!(datagram(serving(&stage.host)), None, "no socket that could send to whom it names");
    stage.play(&zone_captured::relay());
}

/// The one socket that a relay has more under a service manager: it could send to any receiver that it names.
#[test]
fn a_captured_relay_speaks_with_its_service_manager_and_no_other() {
    let test = "a_captured_relay_speaks_with_its_service_manager_and_no_other";
    if !may_capture(test) {
        return;
    }
    let manager = Manager::start();
    let mut stage = Stage::set(Role::Relay, Some(&manager));
    assert!(datagram(serving(&stage.host)).is_some());
    stage.play(SERVICE_MANAGER);
    manager.hears("WATCHDOG=1");
}

#[test]
fn a_captured_control_that_a_service_manager_starts_relays_for_reaches_unix_sockets_and_nothing_else() {
    let test =
        "a_captured_control_that_a_service_manager_starts_relays_for_reaches_unix_sockets_and_nothing_else";
    if !may_capture(test) {
        return;
    }
    let manager = Manager::start();
    Stage::set(Role::Control, Some(&manager)).play(&zone_captured::control(false));
}

/// The one connection that leaves the host, where the admin has set it up.
#[test]
fn a_captured_control_with_a_syslog_server_connects_to_no_other_port() {
    let test = "a_captured_control_with_a_syslog_server_connects_to_no_other_port";
    if !may_capture(test) {
        return;
    }
    let (manager, server) = (Manager::start(), TcpListener::bind("127.0.0.1:0").expect("a port"));
    let port = server.local_addr().expect("ours").port();
    let syslog = format!("[log]\nto = \"syslog\"\n[log.syslog]\nhost = \"127.0.0.1\"\nport = {port}\n");
    let mut stage = Stage::set_with(Role::Control, Some(&manager), &syslog);
    server.accept().expect("it connects to this one");
    stage.play(SYSLOG);
}

#[test]
fn a_captured_control_that_starts_relays_reaches_unix_sockets_and_processes_of_its_user() {
    let test = "a_captured_control_that_starts_relays_reaches_unix_sockets_and_processes_of_its_user";
    if !may_capture(test) {
        return;
    }
    Stage::set(Role::Control, None).play(&zone_captured::control(true));
}

/// What `status` says of it is what the kernel shows, and it is so of every thread.
#[test]
fn every_thread_of_both_processes_is_confined_and_status_says_how() {
    let host = Host::start("");
    let _zone = Zone::with(&host);
    // Its first thread, that of the log, and a relay's workers.
    for (role, process, least, word) in
        [("relay", serving(&host), 3, ", denied"), ("control", host.control.pid(), 2, ", restricted")]
    {
        let own = confinement(&host, role);
        let filters = own["filters"].to_string();
        let threads = threads(process);
        assert!(threads.len() >= least, "{role}: {threads:?}");
        for thread in threads {
            let path = format!("/proc/{process}/task/{thread}/status");
            let shown = (field(&path, "Seccomp"), field(&path, "Seccomp_filters"));
            assert_eq!(shown, ("2".to_owned(), filters.clone()), "{role}");
        }
        assert_eq!(own["seccomp"], "filter");
        let landlock = own["landlock"].as_str().expect("its word");
        assert!(landlock.ends_with(word) || landlock == "not in this kernel", "{role}: {landlock}");
        let shown = succeed(&mut host.cli(&["status"]), b"");
        let line = format!("no_new_privs, seccomp filter ({filters}), landlock: {landlock}");
        assert!(shown.contains(&line), "{shown}");
    }
}

/// A line of a `/proc/PID/status`.
fn field(path: &str, name: &str) -> String {
    let status = std::fs::read_to_string(path).expect("a thread");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(|value| value.trim().to_owned()).unwrap_or_default()
}

/// Runs a relay where the kernel answers one call with an error, and returns what it said.
fn relay_where(call: &str, error: &str) -> Option<String> {
    let folder = folder();
    let mut command = Command::new("strace");
    command.args(["-f", "-o", "/dev/null", "-e", &format!("inject={call}:error={error}")]);
    command.arg(program_for_others("zone-relay", folder.path()));
    if !run(Command::new("sh").args(["-c", "command -v strace"]), b"").status.success() {
        return None;
    }
    Some(fail(as_daemon(&mut command), b""))
}

#[test]
fn a_relay_that_cannot_be_confined_serves_nobody_and_one_without_landlock_says_so() {
    let Some(refusal) = relay_where("seccomp", "EINVAL") else {
        return skip("a_relay_that_cannot_be_confined_serves_nobody", "strace is not installed");
    };
    assert!(refusal.contains("the kernel refuses a filter of system calls"), "{refusal}");
    assert!(refusal.contains("CONFIG_SECCOMP_FILTER") && !refusal.contains("channel"), "{refusal}");
    for (error, word) in [("EPERM", "landlock: failed: EPERM"), ("ENOSYS", "landlock: not in this kernel")] {
        let said = relay_where("landlock_create_ruleset", error).expect("strace is there");
        assert!(said.contains(word), "{said}");
        assert!(said.contains("not a channel to control"), "it went on, to what no test gives it: {said}");
    }
}

/// Other than a relay, which a kernel without seccomp keeps from serving, control says so and goes on.
#[test]
fn a_control_that_cannot_be_confined_goes_on_and_says_so() {
    let test = "a_control_that_cannot_be_confined_goes_on_and_says_so";
    if !run(Command::new("sh").args(["-c", "command -v strace"]), b"").status.success() {
        return skip(test, "strace is not installed");
    }
    let host = Host::start_by("", |command| {
        let program = command.get_program().to_owned();
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        *command = Command::new("strace");
        // The relay is another process, which strace does not follow.
        command.args(["-D", "-o", "/dev/null", "-e", "inject=seccomp:error=EINVAL"]);
        command.args(["-e", "inject=landlock_create_ruleset:error=EPERM"]).arg(program).args(arguments)
    });
    host.control.says("system calls of this process are not restricted");
    host.control.says("landlock: failed: EPERM");
    let shown = succeed(&mut host.cli(&["status"]), b"");
    assert!(shown.contains("seccomp off (0), landlock: failed: EPERM"), "{shown}");
    assert!(shown.contains("warning        system calls of zone-proxy are not restricted"), "{shown}");
}
