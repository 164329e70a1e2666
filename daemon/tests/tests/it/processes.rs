//! The two processes of the proxy: what becomes of the ports and of what flows when one of them ends.

mod control_dies;
mod generations;
mod managed;
mod panics;
mod relay_dies;
mod start;
mod stop;
mod upgrade;

use std::io::ErrorKind;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::Value;
use zone_tests::host::Host;
use zone_tests::process::Process;
use zone_tests::session::Session;
use zone_tests::zone::{Service, Zone};
use zone_tests::{TEST_TIMEOUT, target, until};

/// A host in a zone, an endpoint with a service that sends everything back, and a session to it.
struct Scene {
    host: Host,
    zone: Zone,
    endpoint: Process,
    session: Session,
}

impl Scene {
    fn play(config: &str) -> Self {
        let host = Host::start(config);
        let zone = Zone::with(&host);
        let endpoint = zone.endpoint(&host, "host-7", &[echo()]);
        let mut session = Session::connect(&zone, "host-7:echo");
        session.exchanges(b"first words");
        Self { host, zone, endpoint, session }
    }
}

fn echo() -> Service {
    Service { name: "echo", port: 7, target: target::echo().to_string(), end_to_end: true }
}

fn is_there(process: Pid) -> bool {
    // A process that has ended and is not waited for yet counts as gone.
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    kill(process, None).is_ok() && !status.contains("State:\tZ")
}

fn goes(process: Pid) {
    until(&format!("process {process} goes"), || !is_there(process));
}

/// Waits until these ports refuse connections.
fn refuse(host: &Host, ports: &[u16]) {
    for port in ports {
        until(&format!("{port} refuses:\n{}", host.control.said()), || !host.answers(*port));
    }
}

/// Waits until a relay serves: its process and its generation.
fn serving(host: &Host) -> (Pid, u64) {
    let mut found = None;
    until("a relay serves", || {
        let status = host.status();
        let relays = status["relays"].as_array().expect("a list");
        let relay = relays.iter().find(|relay| relay["state"] == "serving");
        found = relay.and_then(|relay| Some((relay["pid"].as_i64()?, relay["generation"].as_u64()?)));
        found.is_some()
    });
    let (pid, generation) = found.expect("one that serves");
    (Pid::from_raw(i32::try_from(pid).expect("a process id")), generation)
}

/// The token in a payload.
fn token(payload: &str) -> String {
    let payload: Value = serde_json::from_str(payload).expect("JSON");
    payload["token"].as_str().expect("a token").to_owned()
}

/// Connects to both relay ports all the time, and counts.
struct Knocking {
    ended: Arc<AtomicBool>,
    counting: JoinHandle<(usize, usize)>,
}

impl Knocking {
    fn begin(host: &Host) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let (ports, until_then) = ([host.port(17486), host.port(17487)], Arc::clone(&ended));
        let counting = thread::spawn(move || {
            let (mut connections, mut refused) = (0, 0);
            while !until_then.load(Ordering::Relaxed) {
                let result = TcpStream::connect_timeout(&ports[connections % 2], TEST_TIMEOUT);
                connections += 1;
                refused +=
                    usize::from(result.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused));
                // More would fill the queue of connections that nobody has accepted yet.
                thread::sleep(Duration::from_millis(2));
            }
            (connections, refused)
        });
        Self { ended, counting }
    }

    fn end(self) -> (usize, usize) {
        self.ended.store(true, Ordering::Relaxed);
        self.counting.join().expect("counting does not panic")
    }
}
