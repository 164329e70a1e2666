//! A process of the proxy that somebody has taken over, who has it make any system call: what they reach.
//!
//! The real relay, serving, is stopped by ptrace(2), and one of its threads after the other tries what an attacker
//! would try. A table is printed. Nothing may reach a server, a file, a program or another process.

mod attempts;
mod injection;
mod sockets;
mod surroundings;
mod system;

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use zone_tests::host::Host;
use zone_tests::process::{run, succeed};
use zone_tests::zone::Zone;
use zone_tests::{TEST_TIMEOUT, skip, until};

use self::attempts::{Attempt, Captured, Right};
use self::injection::{Called, Injection, Stopped};
use self::sockets::{SOCKETS_AT_HAND, SOCKETS_OF_ITS_OWN};
use self::surroundings::Surroundings;
use self::system::{FILES_AND_PROGRAMS, KERNEL, PROCESSES};

/// In `/proc/PID/net/tcp`.
const LISTENING: &str = "0A";
const ESTABLISHED: &str = "01";

/// A proxy that listens for IPv4 and IPv6, in a network namespace of the test's own. `None` where that can't be had.
fn proxy(test: &str) -> Option<Host> {
    if !nix::unistd::geteuid().is_root() {
        skip(test, "a network namespace and ptrace of a daemon take root");
        return None;
    }
    if !run(Command::new("sh").args(["-c", "command -v ip"]), b"").status.success() {
        skip(test, "ip is missing");
        return None;
    }
    // This thread and all that it starts; other tests stay where they are.
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
    succeed(Command::new("ip").args(["link", "set", "lo", "up"]), b"");
    let host = Host::start("");
    let zone = Zone::init();
    let mut provision = zone.provision_command(&host);
    succeed(provision.args(["--listen", "::1"]), host.payload().as_bytes());
    Some(host)
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
    let mut captured = Captured { injection, process, accepted, listener, around };
    let called = (attempt.make)(&mut captured);
    drop(captured);
    let reached = around.reached();
    drop(strangers);
    Outcome { called, reached }
}

#[test]
fn a_captured_relay_reaches_nothing() {
    let Some(mut host) = proxy("a_captured_relay_reaches_nothing") else { return };
    let other_host = Host::start("");
    let _other_zone = Zone::with(&other_host);
    let around = Surroundings::new(serving(&other_host));
    let (mut table, mut wrong) = (String::new(), Vec::new());
    let all = [SOCKETS_OF_ITS_OWN, SOCKETS_AT_HAND, FILES_AND_PROGRAMS, PROCESSES, KERNEL];
    for (turn, trial) in all.into_iter().flatten().enumerate() {
        let relay = serving(&host);
        let outcome = attempt(&host, relay, &around, trial, turn);
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
        host.restart();
    }
    println!("{table}");
    assert!(
        wrong.is_empty(),
        "{} attempts came to more than they should:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
