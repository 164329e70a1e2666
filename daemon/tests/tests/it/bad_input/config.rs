//! `zone-proxy.toml` with mistakes in it, at the start and while the daemon runs.

use std::fs;

use nix::sys::signal::Signal;
use zone_tests::control::Client;
use zone_tests::host::Host;
use zone_tests::process::{fail, succeed};
use zone_tests::session::Session;
use zone_tests::zone::{Service, Zone};
use zone_tests::{target, until};

use super::Snapshot;

#[test]
fn every_mistake_in_the_file_is_named_with_its_line_and_what_was_meant() {
    let mut host = Host::start("");
    assert_eq!(succeed(&mut host.cli(&["check-config"]), b""), "ok\n");
    let good = fs::read_to_string(host.config()).expect("the file");
    let lines = good.lines().count();
    let wrong = format!(
        "{good}[limits]\nsesions = 10\nwaiting = \"many\"\nendpoints = 0\n[timeouts]\npong = -1\nping_after = 60\n\
         [relay]\non_stop = \"explode\"\n"
    );
    fs::write(host.config(), &wrong).expect("written");
    let told = fail(&mut host.cli(&["check-config"]), b"");
    let expected = [
        (2, "unknown key 'limits.sesions': did you mean 'limits.sessions'?"),
        (3, "limits.waiting: invalid type: string"),
        (4, "limits.endpoints: must be at least 1"),
        (6, "timeouts.pong: must be more than 0"),
        (7, "timeouts.ping_after: must be below 45"),
        (9, "relay.on_stop: unknown variant `explode`"),
    ];
    for (line, words) in expected {
        assert!(told.contains(&format!("zone-proxy.toml:{}: {words}", lines + line)), "{words}: {told}");
    }
    assert_eq!(told.trim().lines().count(), expected.len(), "{told}");

    host.control.kill();
    assert_eq!(fail(&mut host.cli(&["run"]), b""), told, "the daemon says the same and does not start");
    fs::remove_file(host.config()).expect("removed");
    let told = fail(&mut host.cli(&["check-config"]), b"");
    assert!(told.contains("zone-proxy.toml: can't be read: No such file"), "{told}");
    fs::write(host.config(), good).expect("written");
    host.restart();
}

#[test]
fn a_reload_takes_a_good_file_at_once_and_nothing_of_a_bad_one() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let echo = Service { name: "echo", port: 7, target: target::echo().to_string(), end_to_end: true };
    let _endpoint = zone.endpoint(&host, "e1", &[echo]);
    let mut session = Session::connect(&zone, "e1:echo");
    session.exchanges(b"hello");
    let (before, relay) = (Snapshot::of(&host), host.relay());
    let good = fs::read_to_string(host.config()).expect("the file");
    let reload = |more: &str, words: &str| {
        let said = host.control.said().matches(words).count();
        fs::write(host.config(), format!("{good}{more}")).expect("written");
        host.control.signal(Signal::SIGHUP);
        until(words, || host.control.said().matches(words).count() == said + 1);
    };
    let is_too_large =
        || Client::member(&host, &zone).ask("PUT", "/v1/trust", &[], &b" ".repeat(40_000)).status == 413;

    reload("[limits]\ncontrol_body_bytes = 20000\nsessions = 0\n", "everything stays as it was");
    let line = host.logs(&["everything stays as it was"]);
    assert!(line.contains("limits.sessions: must be at least 1"), "{line}");
    assert!(!is_too_large());
    fs::remove_file(host.config()).expect("removed");
    host.control.signal(Signal::SIGHUP);
    host.control.says("can't be read");
    session.exchanges(b"still here");

    reload("[limits]\ncontrol_body_bytes = 20000\nsessions = 1\n", "the configuration was read again");
    assert!(is_too_large());
    let mut refused = Session::connect(&zone, "e1:echo");
    let (status, told) = refused.ends();
    assert_eq!(status.code(), Some(1));
    assert!(told.contains("limit"), "{told}");
    session.exchanges(b"a limit ends nothing that is there");

    reload("[relay]\nprogram = \"/nowhere\"\n", "these keys take a restart");
    host.logs(&["these keys take a restart", "relay.program"]);
    assert!(!is_too_large(), "limits are the file's again");
    Session::connect(&zone, "e1:echo").exchanges(b"and there is room again");
    assert_eq!((Snapshot::of(&host), host.relay()), (before, relay));
}

#[test]
fn a_17488_that_another_process_has_is_named_at_the_start() {
    let mut host = Host::start("");
    host.control.kill();
    let taken = std::net::TcpListener::bind(host.port(17488)).expect("a port");
    let told = fail(&mut host.cli(&["run"]), b"");
    assert!(
        told.contains(&format!("can't listen on {}: Address already in use", host.port(17488))),
        "{told}"
    );
    drop(taken);
    host.restart();
}

#[test]
fn commands_without_a_daemon_say_so() {
    let mut host = Host::start("");
    host.control.kill();
    for words in [&["show", "payload"] as &[_], &["token", "new"], &["status"], &["status", "--json"]] {
        let told = fail(&mut host.cli(words), b"");
        assert!(told.contains("the daemon does not answer at") && told.contains("is it running?"), "{told}");
    }
    host.restart();
}
