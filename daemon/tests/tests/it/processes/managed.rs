//! Under a service manager: relays are its own, outlive every restart of control, and end when the service is
//! stopped. The manager is played here; the lab has the real one.

use std::process::Command;

use nix::sys::signal::Signal;
use zone_tests::host::Host;
use zone_tests::manager::Manager;
use zone_tests::session::{Session, random};
use zone_tests::until;
use zone_tests::zone::Zone;

use super::{echo, goes, is_there, refuse, serving};

/// Longer than anything here takes on a busy machine, and short enough to be fed often in a test.
const WATCHDOG: &str = "900000";

fn managed(config: &str) -> (Manager, Host) {
    let manager = Manager::start();
    let socket = format!("socket = \"{}\"", manager.socket().display());
    let config = if config.contains("[relay]") {
        config.replace("[relay]", &format!("[relay]\n{socket}"))
    } else {
        format!("[relay]\n{socket}\n{config}")
    };
    let host = Host::start_by(&config, |command| manager.adopt(command, WATCHDOG));
    (manager, host)
}

#[test]
fn a_restart_and_a_kill_of_control_disturb_no_session_and_a_stop_ends_everything_at_once() {
    let (manager, mut host) = managed("[timeouts]\norphan = 0.2\n");
    until("the manager keeps the lifeline", || manager.kept() == ["lifeline-reader", "lifeline"]);
    let zone = Zone::with(&host);
    let _endpoint = zone.endpoint(&host, "host-7", &[echo()]);
    let mut session = Session::connect(&zone, "host-7:echo");
    session.exchanges(b"first words");
    let before = serving(&host);

    host.restart_by(|command| manager.adopt(command, WATCHDOG));
    assert_eq!(serving(&host), before, "kill -9");
    session.exchanges(&random(1 << 20));

    host.control.signal(Signal::SIGTERM);
    assert!(host.control.ends().success(), "{}", host.control.said());
    session.exchanges(b"nobody is in control, for longer than the orphan limit");
    Session::connect(&zone, "host-7:echo").exchanges(b"nor here");
    host.restart_by(|command| manager.adopt(command, WATCHDOG));
    assert_eq!(serving(&host), before, "a restart");
    assert_eq!(manager.kept().len(), 2, "what was handed on is not stored again");
    session.exchanges(b"somebody is");

    host.control.signal(Signal::SIGTERM);
    assert!(host.control.ends().success());
    assert!(host.answers(17486) && is_there(before.0), "the manager has not said yet that it means a stop");
    manager.stop();
    refuse(&host, &[17486, 17487, 17488]);
    assert_eq!(session.ends().0.code(), Some(3), "the session was cut off");
    goes(before.0);
}

#[test]
fn a_relay_of_the_manager_that_dies_is_replaced_by_another_one() {
    let (_manager, host) = managed("");
    let _zone = Zone::with(&host);
    let (relay, generation) = serving(&host);
    nix::sys::signal::kill(relay, Signal::SIGKILL).expect("the relay is there");
    until("another one serves", || serving(&host).1 > generation);
    assert!(host.answers(17486) && host.answers(17487));
}

#[test]
fn readiness_is_told_when_everything_serves_and_the_watchdog_is_fed_by_control_and_relay() {
    let (manager, host) = managed("");
    manager.hears("WATCHDOG=1");
    assert_eq!(manager.count("READY=1"), 1);
    assert!(manager.count("STATUS=unprovisioned") >= 1);
    let _zone = Zone::with(&host);
    until("the relay is ready too", || manager.count("READY=1") == 2);
    until("the relay says what it does", || manager.count("STATUS=generation 1 serves") == 1);
    assert_eq!(host.status()["processes"].as_array().map(Vec::len), Some(2));
}

/// A control whose thread stands still makes no progress, whatever else of it is alive.
#[test]
fn a_control_that_stands_still_starves_its_watchdog() {
    let (manager, mut host) = managed("");
    manager.hears("WATCHDOG=1");
    let pid = host.control.pid().to_string();
    // Every fsync takes three seconds from now on, and the state is stored on control's only thread.
    let mut strace = Command::new("strace");
    strace.args(["-f", "-p", &pid, "-e", "trace=fsync", "-e", "inject=fsync:delay_enter=3000000"]);
    let tracer = zone_tests::process::Process::start(&mut strace);
    until("strace attaches, or says why not", || {
        tracer.said().contains("attached") || tracer.said().contains("ptrace")
    });
    if !tracer.said().contains("attached") {
        return zone_tests::skip(
            "a_control_that_stands_still_starves_its_watchdog",
            "strace may not attach here",
        );
    }
    let mut token = host.cli(&["token", "new"]);
    let asking = std::thread::spawn(move || zone_tests::process::run(&mut token, b""));
    let (mut last, mut since, mut longest) = (manager.count("WATCHDOG=1"), std::time::Instant::now(), 0.0);
    until("the watchdog is not fed for twice its time", || {
        let now = manager.count("WATCHDOG=1");
        if now != last {
            (last, since) = (now, std::time::Instant::now());
        }
        longest = f64::max(longest, since.elapsed().as_secs_f64());
        longest > 1.8
    });
    drop(tracer);
    host.control.kill();
    let _ = asking.join();
}
