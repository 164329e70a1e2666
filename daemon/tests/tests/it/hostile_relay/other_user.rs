//! Relays of a user of their own, as the packaged units start them: control may not signal them, and a helper does.

use std::process::Command;

use zone_tests::host::Host;
use zone_tests::manager::Manager;
use zone_tests::process::{fail, succeed};
use zone_tests::skip;
use zone_tests::until;
use zone_tests::zone::Zone;

use super::{is_there, stop};

/// A user that every host has, and that is not the daemon's.
const OTHER_USER: &str = "daemon";

fn managed(test: &str, more: &str) -> Option<(Manager, Host, Zone)> {
    if !nix::unistd::geteuid().is_root() {
        skip(test, "to have processes of two users takes root");
        return None;
    }
    let manager = Manager::start_relays_as(OTHER_USER);
    let config = format!("[relay]\nsocket = \"{}\"\n{more}", manager.socket().display());
    let host = Host::start_by(&config, |command| manager.adopt(command, "10000000"));
    let zone = Zone::with(&host);
    Some((manager, host, zone))
}

fn uid_of(user: &str) -> u64 {
    succeed(Command::new("id").args(["-u", user]), b"").trim().parse().expect("a number")
}

#[test]
fn a_relay_of_another_user_that_does_not_end_is_ended_by_the_helper() {
    let Some((_manager, host, zone)) =
        managed("a_relay_of_another_user_that_does_not_end_is_ended_by_the_helper", "")
    else {
        return;
    };
    let relay = host.relay();
    let status = host.status();
    let process = status["processes"].as_array().expect("a list").iter().find(|one| one["role"] == "relay");
    let process = process.expect("the relay's process");
    assert_eq!((&process["pid"], &process["uid"]), (&relay.as_raw().into(), &uid_of(OTHER_USER).into()));

    stop(relay);
    succeed(&mut zone.cli(&["revoke", "endpoint", "host-7"]), b"");
    assert!(!is_there(relay), "the revocation is in force");
    until("another relay serves", || host.status()["relays"][0]["state"] == "serving");

    let relay = host.relay();
    stop(relay);
    succeed(&mut host.cli(&["reset", "--yes"]), b"");
    assert!(!is_there(relay), "the reset has ended it");
}

#[test]
fn a_relay_that_nothing_can_end_is_shown_and_nothing_claims_to_be_in_force() {
    let name = "a_relay_that_nothing_can_end_is_shown_and_nothing_claims_to_be_in_force";
    let Some((_manager, host, zone)) = managed(name, "end_socket = \"/nonexistent/end.sock\"\n") else {
        return;
    };
    let relay = host.relay();
    stop(relay);
    let told = fail(&mut zone.cli(&["revoke", "endpoint", "host-7"]), b"");
    let process = format!("process {relay}");
    assert!(told.contains("not in force everywhere") && told.contains(&process), "{told}");
    assert_eq!(host.status()["trust_version"], 2, "what takes rights away stays");
    host.logs(&["audit", "stored, not in force everywhere", "change=\"trust\""]);
    let told = fail(&mut host.cli(&["reset", "--yes"]), b"");
    assert!(told.contains(&process) && !told.contains("undone"), "{told}");
    let told = succeed(&mut host.cli(&["status"]), b"");
    assert!(told.contains("warning") && told.contains(&process) && told.contains("unprovisioned"), "{told}");

    nix::sys::signal::kill(relay, nix::sys::signal::Signal::SIGKILL).expect("it is there");
    until("nothing is to be warned of", || !succeed(&mut host.cli(&["status"]), b"").contains("warning"));
}
