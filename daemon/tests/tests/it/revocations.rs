//! Rights end when the command says so, whoever else changes the zone's trust at the same time.

mod model;

use std::process::Command;
use std::thread;

use zone_protocol::trust::{Denied, Trust};
use zone_tests::control::Client;
use zone_tests::host::Host;
use zone_tests::process::{fail, succeed};
use zone_tests::zone::Zone;

/// A standby Module Server, or a restored backup: both copies count from the same version.
#[test]
fn two_copies_of_a_zone_directory_deny_together_what_each_has_denied() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let standby = copy(&zone);
    succeed(&mut zone.cli(&["revoke", "endpoint", "a"]), b"");
    let told = succeed(&mut revoke(&zone, &standby, "b"), b"");
    assert!(told.contains("a proxy denies spiffe://plant/endpoint/a"), "{told}");
    assert!(told.contains("p1: has trust version 3 now (it had 2)"), "{told}");
    assert_eq!(denied(&host, &zone), ["a", "b"]);
    succeed(&mut zone.cli(&["revoke", "endpoint", "c"]), b"");
    succeed(&mut revoke(&zone, &standby, "d"), b"");
    assert_eq!(denied(&host, &zone), ["a", "b", "c", "d"]);
    let directory = zone_module::zone::Zone::open(&standby).expect("a zone");
    assert_eq!(directory.trust().expect("its trust").deny.len(), 4);
}

#[test]
fn eight_revocations_at_once_all_succeed_and_all_hold() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let standby = copy(&zone);
    let names: Vec<_> = (0..8).map(|number| format!("e{number}")).collect();
    thread::scope(|scope| {
        for (number, name) in names.iter().enumerate() {
            let mut command = if number % 2 == 0 {
                zone.cli(&["revoke", "endpoint", name])
            } else {
                revoke(&zone, &standby, name)
            };
            scope.spawn(move || succeed(&mut command, b""));
        }
    });
    assert_eq!(denied(&host, &zone), names);
}

/// The command ends with 0 only where every proxy has it, and names each that has not.
#[test]
fn a_proxy_that_is_down_is_named_and_learns_what_anybody_has_denied_when_it_is_back() {
    let (first, mut second) = (Host::start(""), Host::start(""));
    let zone = Zone::with(&first);
    let address = second.address.to_string();
    let mut provision = zone.cli(&["provision", "--name", "p2", "--listen", &address]);
    succeed(&mut provision, second.payload().as_bytes());
    let standby = copy(&zone);

    second.control.kill();
    let told = fail(&mut zone.cli(&["revoke", "endpoint", "a"]), b"");
    assert!(told.contains("p1: has trust version 2 now"), "{told}");
    assert!(told.contains("p2 does not have trust version 2: "), "{told}");
    let told = fail(&mut revoke(&zone, &standby, "b"), b"");
    assert!(told.contains("p2 does not have trust version"), "{told}");
    second.restart();
    assert_eq!(denied(&second, &zone), [""; 0]);
    let told = succeed(&mut zone.cli(&["status"]), b"");
    assert!(told.contains("p2"), "{told}");
    for host in [&first, &second] {
        assert_eq!(denied(host, &zone), ["a", "b"], "the copy's revocation, too");
    }
    let told = succeed(&mut zone.cli(&["trust", "push"]), b"");
    assert_eq!(told.matches("has trust version 3 already").count(), 2, "{told}");
}

fn copy(zone: &Zone) -> std::path::PathBuf {
    let to = zone.beside("standby");
    let copied = Command::new("cp").arg("-r").arg(zone.path()).arg(&to).status();
    assert!(copied.expect("cp runs").success());
    to
}

fn revoke(zone: &Zone, directory: &std::path::Path, id: &str) -> Command {
    let mut command = zone.cli(&["revoke", "endpoint", id]);
    command.arg("--zone").arg(directory);
    let arguments: Vec<_> = command.get_args().skip(2).map(ToOwned::to_owned).collect();
    let mut own = Command::new(command.get_program());
    own.args(arguments);
    own
}

fn denied(host: &Host, zone: &Zone) -> Vec<String> {
    let trust: Trust = Client::member(host, zone).ask("GET", "/v1/trust", &[], b"").document();
    let name = |entry: &Denied| match entry {
        Denied::Identity { identity, .. } => identity.name.to_string(),
        Denied::Certificate { serial, .. } => serial.clone(),
    };
    let mut names: Vec<_> = trust.deny.iter().map(name).collect();
    names.sort_unstable();
    names
}
