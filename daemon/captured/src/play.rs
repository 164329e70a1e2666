//! Making attempts, one after the other, each with a fresh process, and what became of them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::DirEntry;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::attempts::{Attempt, Captured, Right};
use crate::injection::{Called, Injection, Stopped};
use crate::surroundings::Surroundings;

/// For a process to serve, to accept and to end.
const SERVING_TIMEOUT: Duration = Duration::from_secs(30);
/// In `/proc/PID/net/tcp`.
const LISTENING: &str = "0A";
const ESTABLISHED: &str = "01";
/// In `/proc/PID/net/unix`.
const DATAGRAMS: &str = "0002";

/// A process that is to be captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its process id.
    pub process: Pid,
    /// What it listens on, to be connected to: IPv4, and IPv6 where it does.
    pub connect: Vec<SocketAddr>,
    /// A port whose listening sockets it holds.
    pub listens: u16,
    /// The version of landlock by which it closed what is its own to close; 0 where there is none.
    pub landlock: u32,
}

/// The host on which attempts are made: it has a process to make them with, and another one after each.
pub trait Scene {
    /// The process that serves now. Waits for one.
    fn target(&mut self) -> Target;
    /// The one that served is gone: has another one start, where none does by itself.
    fn renew(&mut self);
}

/// What became of an attempt.
struct Outcome {
    called: Called,
    reached: Vec<&'static str>,
}

/// Makes every attempt, each with a fresh process, and prints a line about it. Returns the lines of those that came to
/// something else than they should.
pub fn play(scene: &mut impl Scene, around: &mut Surroundings, attempts: &[Attempt]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (turn, trial) in attempts.iter().enumerate() {
        let target = scene.target();
        let outcome = attempt(&target, around, trial, turn);
        let line = format!("{:58} {}", trial.name, outcome.words(trial.right));
        println!("{line}");
        if !outcome.is_right(trial.right, target.landlock) {
            wrong.push(line);
        }
        // Whatever is left of it is no process that another attempt should be made with.
        let _ = kill(target.process, Signal::SIGKILL);
        until("the process is gone", || {
            let status =
                std::fs::read_to_string(format!("/proc/{}/status", target.process)).unwrap_or_default();
            status.is_empty() || status.contains("State:\tZ")
        });
        scene.renew();
    }
    wrong
}

/// Has a thread of the process make an attempt. `turn` says which thread.
fn attempt(target: &Target, around: &mut Surroundings, attempt: &Attempt, turn: usize) -> Outcome {
    let connect = |address: &SocketAddr| {
        let mut connected = None;
        // A service that has just begun may not listen yet.
        until("it accepts", || {
            connected = TcpStream::connect_timeout(address, SERVING_TIMEOUT).ok();
            connected.is_some()
        });
        connected
    };
    let strangers: Vec<_> = target.connect.iter().map(connect).collect();
    let process = target.process;
    let accepted = |address: &SocketAddr| {
        let table = if address.is_ipv4() { "tcp" } else { "tcp6" };
        tcp(process, table, ESTABLISHED, address.port())
    };
    until("it has accepted", || target.connect.iter().all(|address| accepted(address).is_some()));
    let accepted = target.connect.iter().map(|address| accepted(address).expect("just seen")).collect();
    let listener =
        ["tcp", "tcp6"].into_iter().filter_map(|table| tcp(process, table, LISTENING, target.listens));
    let listener: Vec<_> = listener.collect();
    let manager = datagram(process);
    let injection = Injection::new(process, threads(process), turn);
    let number = u64::from(process.as_raw().unsigned_abs());
    let mut captured = Captured { injection, process: number, accepted, listener, manager, around };
    let called = (attempt.make)(&mut captured);
    drop(captured);
    let reached = around.reached();
    drop(strangers);
    Outcome { called, reached }
}

impl Outcome {
    fn words(&self, right: Right) -> String {
        let words = match (self.called, right) {
            (Err(Stopped::Killed), _) => "killed".to_owned(),
            (Err(Stopped::Refused(error)), Right::Harmless(why)) => format!("{error:?}: {why}"),
            (Err(Stopped::Refused(Errno::EROFS)), Right::Closed { .. }) => "EROFS: its service".to_owned(),
            (Err(Stopped::Refused(error)), Right::Closed { .. }) => format!("{error:?}: landlock"),
            (Err(Stopped::Refused(error)), _) => format!("{error:?}"),
            (Ok(value), Right::Harmless(why)) => format!("allowed ({value}): {why}"),
            (Ok(_), Right::Reaches { what, why }) => format!("reaches {what}: {why}"),
            (Ok(value), Right::Closed { since, .. }) => {
                format!("open ({value}) without landlock ABI {since}")
            }
            (Ok(value), _) => format!("ALLOWED ({value})"),
        };
        let beyond: Vec<_> =
            self.reached.iter().copied().filter(|reached| !right.may_reach(reached)).collect();
        if beyond.is_empty() { words } else { format!("{words}; REACHED {}", beyond.join(", ")) }
    }

    fn is_right(&self, right: Right, landlock: u32) -> bool {
        let refused = |error| self.called == Err(Stopped::Refused(error));
        let fits = match right {
            Right::Killed => self.called == Err(Stopped::Killed),
            Right::Eperm => refused(Errno::EPERM),
            Right::Refused => refused(Errno::EPERM) || self.called == Err(Stopped::Killed),
            Right::Enosys => refused(Errno::ENOSYS),
            Right::Closed { since, .. } if landlock < since => return self.called != Err(Stopped::Killed),
            // What its service manager made read-only for it is refused before landlock is asked.
            Right::Closed { error, .. } => refused(error) || refused(Errno::EROFS),
            Right::Reaches { .. } => self.called.is_ok(),
            Right::Harmless(_) => true,
        };
        fits && self.reached.iter().all(|reached| right.may_reach(reached))
    }
}

/// The threads of a process.
pub fn threads(process: Pid) -> Vec<Pid> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("its threads");
    let number = |name: OsString| name.to_str()?.parse().ok().map(Pid::from_raw);
    let mut threads: Vec<_> = tasks.flatten().filter_map(|task| number(task.file_name())).collect();
    threads.sort();
    threads
}

/// A socket of a process that takes an address with each message, by its type in `/proc/PID/net/unix`.
pub fn datagram(process: Pid) -> Option<u64> {
    let own = sockets(process);
    let table = std::fs::read_to_string(format!("/proc/{process}/net/unix")).expect("its sockets");
    table.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        own.get(*words.get(6)?).copied().filter(|_| words.get(4) == Some(&DATAGRAMS))
    })
}

/// Whether a process holds a socket that listens on a port.
pub fn listens(process: Pid, port: u16) -> bool {
    tcp(process, "tcp", LISTENING, port).is_some()
}

/// The sockets of a process: the descriptor of each, by inode.
fn sockets(process: Pid) -> BTreeMap<String, u64> {
    let held = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let socket = |entry: DirEntry| {
        let target = std::fs::read_link(entry.path()).ok()?;
        let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned();
        Some((inode, entry.file_name().to_str()?.parse().ok()?))
    };
    held.filter_map(socket).collect()
}

/// A TCP socket of a process in a state, on a port of ours.
fn tcp(process: Pid, table: &str, state: &str, port: u16) -> Option<u64> {
    let (own, local) = (sockets(process), format!(":{port:04X}"));
    // A relay's own tables are of a network without an address, under systemd: its listeners come from elsewhere.
    let table =
        std::fs::read_to_string(format!("/proc/thread-self/net/{table}")).expect("the host's sockets");
    table.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let fits = words.get(1)?.ends_with(&local) && words.get(3) == Some(&state);
        own.get(*words.get(9)?).copied().filter(|_| fits)
    })
}

/// Waits until `done`, looking again and again.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + SERVING_TIMEOUT;
    while !done() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
