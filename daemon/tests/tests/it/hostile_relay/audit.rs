//! The audit log while processes are killed: what begins there ends there, once.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use zone_tests::host::Host;
use zone_tests::process::run;
use zone_tests::seeds::{Random, seeds};
use zone_tests::session::Session;
use zone_tests::zone::{Service, Zone};
use zone_tests::{target, until};

/// What happens to one host, one thing after the other.
const STEPS: usize = 12;
/// Sessions at the same time.
const MAX_SESSIONS: usize = 3;
/// Times that processes are killed while sessions begin and end.
const KILLS: usize = 10;
/// Sessions of which a line is there twice, for control was killed just as it had written it; and those of which there is
/// none, for they began and ended just before both processes were killed.
const MAX_ODD: usize = 1;
/// Between two of them at most.
const MAX_PAUSE_MILLIS: usize = 400;

/// Has a program write its log into a file, for itself and the relays that it starts.
fn logging<'a>(command: &'a mut Command, log: &Path) -> &'a mut Command {
    let program = command.get_program().to_owned();
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    *command = Command::new("bash");
    command
        .args(["-c", "log=\"$1\"; shift; exec \"$@\" 2>>\"$log\"", "bash"])
        .arg(log)
        .arg(program)
        .args(arguments)
}

/// How often each session begins and ends in a log.
fn sessions(log: &Path) -> BTreeMap<String, (usize, usize)> {
    let mut sessions = BTreeMap::<String, (usize, usize)>::new();
    let log = fs::read_to_string(log).expect("the log");
    for line in log.lines().filter(|line| line.contains(" audit: session ")) {
        let id = line.split(" session=").nth(1).and_then(|rest| rest.split(' ').next()).expect("its id");
        let counts = sessions.entry(id.trim_matches('"').to_owned()).or_default();
        if line.contains("audit: session begins") { counts.0 += 1 } else { counts.1 += 1 }
    }
    sessions
}

fn history(seed: u64, log: &Path) {
    let mut random = Random::new(seed);
    File::create(log).expect("a log");
    let mut host = Host::start_by("", |command| logging(command, log));
    let zone = Zone::with(&host);
    let echo = Service { name: "echo", port: 7, target: target::echo().to_string(), end_to_end: true };
    let _endpoint = zone.endpoint(&host, "host-7", &[echo]);
    let (mut open, mut began, mut done) = (Vec::<Session>::new(), 0, Vec::new());
    for _ in 0..STEPS {
        let step =
            ["begins", "begins", "ends", "control is killed", "relay is killed", "control, then its relay"];
        let step = step[random.below(step.len())];
        done.push(step);
        match step {
            "begins" if open.len() < MAX_SESSIONS => {
                let mut session = Session::connect(&zone, "host-7:echo");
                session.exchanges(b"words");
                open.push(session);
                began += 1;
            }
            "ends" if !open.is_empty() => {
                let mut session = open.remove(random.below(open.len()));
                session.end();
                session.ends();
            }
            "relay is killed" => {
                kill(host.relay(), Signal::SIGKILL).expect("it is there");
                open.drain(..).for_each(|mut session| drop(session.ends()));
            }
            "control is killed" | "control, then its relay" => {
                let relay = host.relay();
                host.control.kill();
                // What ends, and what begins, while nobody is in control.
                if let Some(mut session) = (random.below(2) == 0).then(|| open.pop()).flatten() {
                    session.end();
                    session.ends();
                }
                if random.below(2) == 0 && open.len() < MAX_SESSIONS {
                    let mut session = Session::connect(&zone, "host-7:echo");
                    session.exchanges(b"words");
                    open.push(session);
                    began += 1;
                }
                if step == "control, then its relay" {
                    kill(relay, Signal::SIGKILL).expect("it is there");
                    open.drain(..).for_each(|mut session| drop(session.ends()));
                }
                host.restart_by(|command| logging(command, log));
            }
            _ => {}
        }
        host.counts("the endpoint parks", |counts| counts["parks"].as_u64() >= Some(1));
    }
    let relay = host.relay();
    kill(relay, Signal::SIGKILL).expect("it is there");
    until(&format!("seed {seed}, {done:?}: all that began has ended: {:#?}", sessions(log)), || {
        let sessions = sessions(log);
        sessions.len() == began && sessions.values().all(|counts| *counts == (1, 1))
    });
}

#[test]
fn what_begins_in_the_audit_log_ends_there_once_whatever_is_killed() {
    let folder = zone_tests::folder();
    for seed in seeds(4) {
        let log = folder.path().join(format!("log-{seed}"));
        println!("seed {seed}");
        history(seed, &log);
    }
}

/// A host on which sessions begin and end all the time, while processes are killed at moments that a seed draws.
fn turmoil(seed: u64, log: &Path) {
    let mut random = Random::new(seed);
    File::create(log).expect("a log");
    let mut host = Host::start_by("", |command| logging(command, log));
    let zone = Zone::with(&host);
    let echo = Service { name: "echo", port: 7, target: target::echo().to_string(), end_to_end: true };
    let _endpoint = zone.endpoint(&host, "host-7", &[echo]);
    let (over, whole) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..MAX_SESSIONS {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    // It fails where a process that it goes through is killed.
                    if run(&mut zone.cli(&["connect", "host-7:echo"]), b"words").stdout == b"words" {
                        whole.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        for _ in 0..KILLS {
            thread::sleep(Duration::from_millis(random.below(MAX_PAUSE_MILLIS) as u64));
            let who = random.below(4);
            let relay = host.relay_now();
            if who > 0 {
                host.control.kill();
                thread::sleep(Duration::from_millis(random.below(MAX_PAUSE_MILLIS) as u64));
            }
            if let Some(relay) = relay.filter(|_| who < 3) {
                kill(relay, Signal::SIGKILL).expect("it is there");
            }
            if who > 0 {
                host.restart_by(|command| logging(command, log));
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    until("another relay serves", || host.relay_now().is_some());
    kill(host.relay(), Signal::SIGKILL).expect("it is there");
    let halves = || sessions(log).into_values().filter(|(begins, ends)| *begins == 0 || *ends == 0).count();
    until(&format!("seed {seed}: all that began has ended: {:#?}", sessions(log)), || halves() == 0);
    let (whole, logged) = (whole.into_inner(), sessions(log));
    let repeated = logged.values().filter(|counts| **counts != (1, 1)).count();
    let lacking = whole.saturating_sub(logged.len());
    println!(
        "seed {seed}: {KILLS} kills, {} sessions, {whole} of them whole, {repeated} with a line twice, {lacking} lacking",
        logged.len()
    );
    assert!(repeated <= MAX_ODD && lacking <= MAX_ODD, "seed {seed}: {logged:#?}");
}

#[test]
fn each_session_that_begins_in_the_audit_log_ends_there_while_processes_are_killed_at_random() {
    let folder = zone_tests::folder();
    for seed in seeds(2) {
        turmoil(seed, &folder.path().join(format!("log-{seed}")));
    }
}
