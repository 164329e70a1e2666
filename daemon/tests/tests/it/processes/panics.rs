//! A panic, wherever it happens: in a task that stands for the process it ends the process, and a fresh one takes its place; in
//! a session it ends that session alone.
//!
//! The programs are those with debug assertions: they alone panic on demand.

use std::time::{Duration, Instant};

use nix::sys::signal::kill;
use zone_tests::host::Host;
use zone_tests::manager::Manager;
use zone_tests::session::Session;
use zone_tests::zone::Zone;
use zone_tests::{built_with_tests, for_others, until};
use zone_watchdog::{EXIT_TASK_ENDED, fault};

use super::{echo, is_there};

/// The tasks of control that stand for it, but for the one that is there only where a firewall is.
const OF_CONTROL: [&str; 3] = ["admin socket", "17488", "clock and tickets"];
/// Those of a relay.
const OF_RELAY: [&str; 4] = ["accept loop", "switchboard", "certificate ends", "talk with control"];
/// In which a fresh process has taken the place of one that panicked.
const REPLACED_WITHIN: Duration = Duration::from_secs(2);
/// Of the service manager, in microseconds: tasks are asked for signs of life three times as often.
const WATCHDOG: &str = "900000";
/// Signs of life that a task gives before it panics: a session is up by then.
const SIGNS: u32 = 12;

fn managed(manager: &Manager, fault: &str) -> Host {
    managed_with(manager, fault, "")
}

fn managed_with(manager: &Manager, fault: &str, config: &str) -> Host {
    let config = format!("[relay]\nsocket = \"{}\"\n{config}", manager.socket().display());
    let told = fault.to_owned();
    Host::start_of(&built_with_tests(), &config, move |command| {
        manager.adopt(command, WATCHDOG).env(fault::VARIABLE, &told)
    })
}

#[test]
fn control_ends_with_any_task_that_stands_for_it_and_the_next_one_takes_its_relay_up() {
    for task in OF_CONTROL {
        let folder = zone_tests::folder();
        let manager =
            Manager::start_of(&for_others(&built_with_tests().join("zone-relay"), folder.path()), "");
        let mut host = managed(&manager, &format!("{task}:{SIGNS}"));
        let zone = Zone::with(&host);
        let _endpoint = zone.endpoint(&host, "host-7", &[echo()]);
        let mut session = Session::connect(&zone, "host-7:echo");
        session.exchanges(b"before");
        let relay = host.relay();

        assert_eq!(
            host.control.ends().code(),
            Some(EXIT_TASK_ENDED.into()),
            "{task}: {}",
            host.control.said()
        );
        assert!(host.control.said().contains(task), "{}", host.control.said());
        let began = Instant::now();
        host.restart_by(|command| manager.adopt(command, WATCHDOG));
        assert_eq!(host.relay(), relay, "{task}: the relay goes on");
        assert!(began.elapsed() < REPLACED_WITHIN, "{task}: {:?}", began.elapsed());
        session.exchanges(b"after");
    }
}

#[test]
fn control_ends_with_the_task_that_keeps_the_firewall() {
    let manager = Manager::start();
    let broker = "[firewall]\nmode = \"broker\"\nsocket = \"/nonexistent\"\n";
    let mut host = managed_with(&manager, &format!("firewall:{SIGNS}"), broker);
    assert_eq!(host.control.ends().code(), Some(EXIT_TASK_ENDED.into()), "{}", host.control.said());
}

#[test]
fn a_relay_ends_with_any_task_that_stands_for_it_and_another_one_serves_in_time() {
    for task in OF_RELAY {
        let folder = zone_tests::folder();
        let program = for_others(&built_with_tests().join("zone-relay"), folder.path());
        // Each of these relays panics in its turn.
        let manager = Manager::start_of(&program, &format!("{task}:{SIGNS}"));
        let host = managed(&manager, "");
        let _zone = Zone::with(&host);
        let relay = host.relay();
        until(&format!("{task} panics"), || !is_there(relay));
        let began = Instant::now();
        until(&format!("another relay serves: {task}"), || {
            host.relay_now().is_some_and(|next| next != relay)
        });
        assert!(began.elapsed() < REPLACED_WITHIN, "{task}: {:?}", began.elapsed());
        host.control.says("the serving relay ended");
    }
}

#[test]
fn a_panic_in_a_session_ends_that_one_alone_and_its_end_is_in_the_audit_log() {
    let folder = zone_tests::folder();
    let program = for_others(&built_with_tests().join("zone-relay"), folder.path());
    let manager = Manager::start_of(&program, "session:2");
    let host = managed(&manager, "");
    let zone = Zone::with(&host);
    let _endpoint = zone.endpoint(&host, "host-7", &[echo()]);
    let mut session = Session::connect(&zone, "host-7:echo");
    session.exchanges(b"before");
    let relay = host.relay();

    let (status, _) = Session::connect(&zone, "host-7:echo").ends();
    assert!(!status.success(), "its bytes were cut");
    host.control.says("reason=\"aborted\"");
    let said = host.control.said();
    assert_eq!(said.matches("session begins").count(), 2, "{said}");
    assert_eq!(said.matches("session ended").count(), 1, "{said}");
    session.exchanges(b"undisturbed");
    let mut third = Session::connect(&zone, "host-7:echo");
    third.exchanges(b"and another one");
    assert_eq!(host.relay(), relay);
    assert!(kill(relay, None).is_ok());
    host.counts("the one that panicked counts no more", |counts| counts["sessions"] == 2);
}
