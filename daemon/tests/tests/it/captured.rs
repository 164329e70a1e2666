//! A process of the proxy that somebody has taken over, who has it make any system call: what they reach.
//!
//! The real relay, serving, is stopped by ptrace(2), and one of its threads after the other tries what an attacker
//! would try. A table is printed. Nothing may reach a server, a file, a program or another process.

mod attempts;
mod injection;
mod sockets;
mod stillness;
mod surroundings;
mod system;

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use zone_tests::host::Host;
use zone_tests::manager::Manager;
use zone_tests::process::{fail, run, succeed};
use zone_tests::zone::Zone;
use zone_tests::{TEST_TIMEOUT, as_daemon, folder, program_for_others, skip, until};

use self::attempts::{Attempt, Captured, Right};
use self::injection::{Called, Injection, Stopped};
use self::sockets::{SERVICE_MANAGER, SOCKETS_AT_HAND, SOCKETS_OF_ITS_OWN};
use self::surroundings::Surroundings;
use self::system::{FILES_AND_PROGRAMS, KERNEL, PROCESSES};

/// In `/proc/PID/net/tcp`.
const LISTENING: &str = "0A";
const ESTABLISHED: &str = "01";
/// In `/proc/PID/net/unix`.
const DATAGRAMS: &str = "0002";
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

/// A proxy that listens for IPv4 and IPv6.
fn proxy(config: &str, change: impl Fn(&mut Command) -> &mut Command) -> Host {
    let host = Host::start_by(config, change);
    let zone = Zone::init();
    let mut provision = zone.provision_command(&host);
    succeed(provision.args(["--listen", "::1"]), host.payload().as_bytes());
    host
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

/// The threads of a process.
fn threads(process: Pid) -> Vec<Pid> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("its threads");
    let number = |name: std::ffi::OsString| name.to_str()?.parse().ok().map(Pid::from_raw);
    let mut threads: Vec<_> = tasks.flatten().filter_map(|task| number(task.file_name())).collect();
    threads.sort();
    threads
}

/// The sockets of a process: the descriptor of each, by inode.
fn sockets(process: Pid) -> BTreeMap<String, u64> {
    let held = std::fs::read_dir(format!("/proc/{process}/fd")).expect("its descriptors").flatten();
    let socket = |entry: std::fs::DirEntry| {
        let target = std::fs::read_link(entry.path()).ok()?;
        let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned();
        Some((inode, entry.file_name().to_str()?.parse().ok()?))
    };
    held.filter_map(socket).collect()
}

/// A TCP socket of a process in a state, on a port of ours.
fn tcp(process: Pid, table: &str, state: &str, port: u16) -> Option<u64> {
    let (own, local) = (sockets(process), format!(":{port:04X}"));
    let table = std::fs::read_to_string(format!("/proc/{process}/net/{table}")).expect("its sockets");
    table.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let fits = words.get(1)?.ends_with(&local) && words.get(3) == Some(&state);
        own.get(*words.get(9)?).copied().filter(|_| fits)
    })
}

/// A socket of a process that takes an address with each message, by its type in `/proc/PID/net/unix`.
fn datagram(process: Pid) -> Option<u64> {
    let own = sockets(process);
    let table = std::fs::read_to_string(format!("/proc/{process}/net/unix")).expect("its sockets");
    table.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        own.get(*words.get(6)?).copied().filter(|_| words.get(4) == Some(&DATAGRAMS))
    })
}

/// What became of an attempt.
struct Outcome {
    called: Called,
    reached: Vec<&'static str>,
}

impl Outcome {
    fn words(&self, right: Right) -> String {
        let words = match (self.called, right) {
            (Err(Stopped::Killed), _) => "killed".to_owned(),
            (Err(Stopped::Refused(error)), Right::Harmless(why)) => format!("{error:?}: {why}"),
            (Err(Stopped::Refused(error)), _) => format!("{error:?}"),
            (Ok(value), Right::Harmless(why)) => format!("allowed ({value}): {why}"),
            (Ok(value), _) => format!("ALLOWED ({value})"),
        };
        if self.reached.is_empty() { words } else { format!("{words}; REACHED {}", self.reached.join(", ")) }
    }

    fn is_right(&self, right: Right) -> bool {
        let fits = match right {
            Right::Killed => self.called == Err(Stopped::Killed),
            Right::Eperm => self.called == Err(Stopped::Refused(nix::errno::Errno::EPERM)),
            Right::Enosys => self.called == Err(Stopped::Refused(nix::errno::Errno::ENOSYS)),
            Right::Harmless(_) => true,
        };
        fits && self.reached.is_empty()
    }
}

/// Has a thread of the relay make an attempt. `turn` says which thread.
fn attempt(host: &Host, relay: Pid, around: &Surroundings, attempt: &Attempt, turn: usize) -> Outcome {
    let connect = |address: SocketAddr| TcpStream::connect_timeout(&address, TEST_TIMEOUT).expect("accepted");
    let strangers = [connect(host.port(17486)), connect((Ipv6Addr::LOCALHOST, 17486).into())];
    let tables = ["tcp", "tcp6"];
    let both = |state, port| tables.map(|table| tcp(relay, table, state, port));
    until("the relay has accepted", || both(ESTABLISHED, 17486).iter().all(Option::is_some));
    let [accepted, listener] = [both(ESTABLISHED, 17486), both(LISTENING, 17487)]
        .map(|sockets| sockets.map(|socket| socket.expect("a socket of the relay")));
    let injection = Injection::new(relay, threads(relay), turn);
    let process = u64::from(relay.as_raw().unsigned_abs());
    let manager = datagram(relay);
    let mut captured = Captured { injection, process, accepted, listener, manager, around };
    let called = (attempt.make)(&mut captured);
    drop(captured);
    let reached = around.reached();
    drop(strangers);
    Outcome { called, reached }
}

/// Makes every attempt, each with a fresh relay, prints what came of it, and finds nothing that is more than it should be.
fn play(host: &mut Host, attempts: &[&[Attempt]], renew: impl Fn(&mut Host)) {
    let other_host = Host::start("");
    let _other_zone = Zone::with(&other_host);
    let around = Surroundings::new(serving(&other_host));
    let (mut table, mut wrong) = (String::new(), Vec::new());
    for (turn, trial) in attempts.iter().copied().flatten().enumerate() {
        let relay = serving(host);
        let outcome = attempt(host, relay, &around, trial, turn);
        let line = format!("{:58} {}", trial.name, outcome.words(trial.right));
        table.extend([line.as_str(), "\n"]);
        if !outcome.is_right(trial.right) {
            wrong.push(line);
        }
        // Whatever is left of it is no relay that another attempt should be made with.
        let _ = kill(relay, Signal::SIGKILL);
        until("the relay is gone", || {
            let status = std::fs::read_to_string(format!("/proc/{relay}/status")).unwrap_or_default();
            status.is_empty() || status.contains("State:\tZ")
        });
        renew(host);
    }
    println!("{table}");
    let count = wrong.len();
    assert!(wrong.is_empty(), "{count} attempts came to more than they should:\n{}", wrong.join("\n"));
}

#[test]
fn a_captured_relay_reaches_nothing() {
    let test = "a_captured_relay_reaches_nothing";
    if !may_capture(test) {
        return;
    }
    let mut host = proxy("", |command| command);
    assert_eq!(datagram(serving(&host)), None, "no socket that could send to whom it names");
    let all = [SOCKETS_OF_ITS_OWN, SOCKETS_AT_HAND, FILES_AND_PROGRAMS, PROCESSES, KERNEL];
    play(&mut host, &all, Host::restart);
}

/// The one socket that a relay has more under a service manager: it could send to any receiver that it names.
#[test]
fn a_captured_relay_speaks_with_its_service_manager_and_no_other() {
    let test = "a_captured_relay_speaks_with_its_service_manager_and_no_other";
    if !may_capture(test) {
        return;
    }
    let manager = Manager::start();
    let config = format!("[relay]\nsocket = \"{}\"\n", manager.socket().display());
    let mut host = proxy(&config, |command| manager.adopt(command, WATCHDOG));
    assert!(datagram(serving(&host)).is_some());
    play(&mut host, &[SERVICE_MANAGER], |host| host.restart_by(|command| manager.adopt(command, WATCHDOG)));
    manager.hears("WATCHDOG=1");
}

/// What `status` says of it is what the kernel shows, and it is so of every thread.
#[test]
fn every_thread_of_a_relay_is_confined_and_status_says_how() {
    let host = Host::start("");
    let _zone = Zone::with(&host);
    let relay = serving(&host);
    let field = |path: &str, name: &str| {
        let status = std::fs::read_to_string(path).expect("a thread");
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.trim().to_owned()).unwrap_or_default()
    };
    let status = host.status();
    let processes = status["processes"].as_array().expect("a list");
    let own = processes.iter().find(|process| process["role"] == "relay").expect("the relay");
    let filters = own["confinement"]["filters"].to_string();
    let threads = threads(relay);
    assert!(threads.len() >= 3, "its first, a worker and that of the log");
    for thread in threads {
        let path = format!("/proc/{relay}/task/{thread}/status");
        assert_eq!(
            (field(&path, "Seccomp").as_str(), field(&path, "Seccomp_filters")),
            ("2", filters.clone())
        );
    }
    assert_eq!(own["confinement"]["seccomp"], "filter");
    let landlock = own["confinement"]["landlock"].as_str().expect("its word");
    assert!(landlock.ends_with(", denied") || landlock == "not in this kernel", "{landlock}");
    let shown = succeed(&mut host.cli(&["status"]), b"");
    let line = format!("no_new_privs, seccomp filter ({filters}), landlock: {landlock}");
    assert!(shown.contains(&line), "{shown}");
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
