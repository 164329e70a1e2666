//! Where the lines of both processes arrive, and in what shape.

use std::fs;
use std::io::{BufReader, Read as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use nix::sys::signal::Signal;
use zone_tests::host::Host;
use zone_tests::process::fail;
use zone_tests::session::Session;
use zone_tests::zone::{Service, Zone};
use zone_tests::{skip, target, until};

/// A syslog server that keeps every message as a line.
struct SyslogServer {
    port: u16,
    said: Arc<Mutex<Vec<String>>>,
}

impl SyslogServer {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (port, said) = (listener.local_addr().expect("ours").port(), Arc::<Mutex<Vec<_>>>::default());
        let keep = Arc::clone(&said);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut bytes = BufReader::new(stream).bytes().map_while(Result::ok);
                let mut length = 0;
                while let Some(byte) = bytes.next() {
                    if byte.is_ascii_digit() {
                        length = length * 10 + usize::from(byte - b'0');
                    } else {
                        let message: Vec<_> = bytes.by_ref().take(std::mem::take(&mut length)).collect();
                        let line = String::from_utf8(message).expect("UTF-8");
                        keep.lock().expect("nobody panics while collecting").push(line);
                    }
                }
            }
        });
        Self { port, said }
    }

    /// Waits for a message with all of these words.
    fn hears(&self, words: &[&str]) -> String {
        let found = || {
            let said = self.said.lock().expect("nobody panics while collecting");
            said.iter().find(|line| words.iter().all(|word| line.contains(word))).cloned()
        };
        until(&format!("a message with {words:?}"), || found().is_some());
        found().expect("just found")
    }
}

fn echo() -> Service {
    Service { name: "echo", port: 7, target: target::echo().to_string(), end_to_end: true }
}

///
#[test]
fn audit_lines_of_both_processes_reach_the_syslog_server_with_their_process_and_facts() {
    for name in ["127.0.0.1", "localhost"] {
        audit_lines_reach(name);
    }
}

fn audit_lines_reach(name: &str) {
    let server = SyslogServer::start();
    let host = Host::start(&format!(
        "[log]\nto = \"syslog\"\n[log.syslog]\nhost = \"{name}\"\nport = {}\n",
        server.port
    ));
    let zone = Zone::with(&host);
    let control = server.hears(&["[zone@32473 ", "change=\"provision\"", "audit: done"]);
    assert!(control.contains(&format!(" zone-proxy {} audit ", host.control.pid())), "{control}");
    let _endpoint = zone.endpoint(&host, "e1", &[echo()]);
    let mut session = Session::connect(&zone, "e1:echo");
    session.exchanges(b"audited");
    let begins = server.hears(&["session begins", "target=\"e1:echo\"", "caller_address="]);
    assert!(begins.contains(&format!(" zone-relay {} audit ", host.relay())), "{begins}");
    session.end();
    session.ends();
    server.hears(&["session ended", "target=\"e1:echo\"", "from_caller="]);
    assert!(!host.control.said().contains("session begins"), "what a server takes is not shown twice");
}

#[test]
fn what_a_relay_says_last_is_in_the_log_before_the_daemon_has_ended() {
    let mut host = Host::start("");
    let zone = Zone::with(&host);
    let _endpoint = zone.endpoint(&host, "e1", &[echo()]);
    let mut session = Session::connect(&zone, "e1:echo");
    session.exchanges(b"to be cut");
    let relay = host.relay();
    host.control.signal(Signal::SIGTERM);
    assert!(host.control.ends().success());
    let ended = host.logs(&["audit: session ended", "target=e1:echo"]);
    assert!(ended.ends_with(&format!("process=\"zone-relay\" pid={relay}")), "{ended}");
}

#[test]
fn a_new_level_reaches_the_relay_that_serves() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let _quiet = zone.endpoint(&host, "quiet", &[echo()]);
    assert!(!host.control.said().contains("parked endpoint=quiet"));
    let text = fs::read_to_string(host.config()).expect("the configuration");
    // As editors do: a new file in the place of the old one.
    let next = host.config().with_extension("new");
    fs::write(&next, format!("{text}\n[log]\nlevel = \"debug\"\n")).expect("written");
    fs::rename(next, host.config()).expect("renamed");
    host.control.signal(Signal::SIGHUP);
    host.control.says("the configuration was read again");
    let _loud = zone.endpoint(&host, "loud", &[echo()]);
    host.control.says("parked endpoint=loud");
}

#[test]
fn a_journal_that_is_not_there_is_named_by_check_config_and_at_the_start() {
    if Path::new("/run/systemd/journal/socket").exists() {
        skip("a_journal_that_is_not_there", "this host has a journal");
        return;
    }
    let mut host = Host::start("");
    host.control.kill();
    let text = fs::read_to_string(host.config()).expect("the configuration");
    fs::write(host.config(), format!("{text}\n[log]\nto = \"journal\"\n")).expect("written");
    for verb in ["check-config", "run"] {
        let told = fail(&mut host.cli(&[verb]), b"");
        assert!(told.contains("log.to: no journal runs on this host"), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
}
