//! The audit log while processes are killed: what begins there ends there, once.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use zone_tests::host::Host;
use zone_tests::session::Session;
use zone_tests::zone::{Service, Zone};
use zone_tests::{target, until};

use super::{Random, seeds};

/// What happens to one host, one thing after the other.
const STEPS: usize = 12;
/// Sessions at the same time.
const MAX_SESSIONS: usize = 3;

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
    for line in
        fs::read_to_string(log).expect("the log").lines().filter(|line| line.contains(" audit: session "))
    {
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
        let step = ["begins", "begins", "ends", "control is killed", "relay is killed", "both are killed"];
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
            "control is killed" => {
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
                host.restart_by(|command| logging(command, log));
            }
            "relay is killed" | "both are killed" => {
                let relay = host.relay();
                if step == "both are killed" {
                    host.control.kill();
                }
                kill(relay, Signal::SIGKILL).expect("it is there");
                for mut session in open.drain(..) {
                    session.ends();
                }
                if step == "both are killed" {
                    host.restart_by(|command| logging(command, log));
                }
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
