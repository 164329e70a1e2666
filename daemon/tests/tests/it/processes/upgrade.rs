//! An upgrade of the package: the next control finds a relay of another build, and replaces it without a loss.

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use zone_tests::host::Host;
use zone_tests::session::{Session, random};
use zone_tests::zone::Zone;
use zone_tests::{folder, program, until};

use super::{Knocking, echo, goes, is_there, serving};

#[test]
fn a_relay_of_an_earlier_build_drains_with_its_sessions_while_a_new_one_serves_the_same_ports() {
    let folder = folder();
    let installed = folder.path().join("zone-relay");
    std::fs::copy(program("zone-relay"), &installed).expect("a copy of zone-relay");
    let config = format!("[relay]\nprogram = \"{}\"\n[timeouts]\nrelease = 0.2\n", installed.display());
    let mut host = Host::start(&config);
    let zone = Zone::with(&host);
    let _endpoint = zone.endpoint(&host, "host-7", &[echo()]);
    let mut session = Session::connect(&zone, "host-7:echo");
    session.exchanges(b"in the earlier build");
    let (old, generation) = serving(&host);
    host.restart();
    assert_eq!(serving(&host), (old, generation), "a restart alone replaces nothing");

    replace(&installed);
    let knocking = Knocking::begin(&host);
    host.restart();
    until("a relay of the new build serves", || serving(&host).1 > generation);
    let (new, _) = serving(&host);
    assert!(new != old && is_there(old));
    session.exchanges(&random(1 << 20));
    host.counts("the endpoint parks at the new one", |counts| counts["parks"].as_u64() >= Some(1));
    Session::connect(&zone, "host-7:echo").exchanges(b"in the new build");
    let (connections, refused) = knocking.end();
    assert!(connections > 20 && refused == 0, "{connections} connections, {refused} refused");

    session.exchanges(b"the earlier one is still there");
    session.end();
    assert!(session.ends().0.success());
    goes(old);
    assert_eq!(serving(&host).0, new);
}

/// A control that starts relays itself keeps the right to execute the very file that it found, and says what to do.
#[test]
fn a_relay_program_that_was_replaced_is_started_once_control_was_started_again() {
    let folder = folder();
    let installed = folder.path().join("zone-relay");
    std::fs::copy(program("zone-relay"), &installed).expect("a copy of zone-relay");
    let mut host = Host::start(&format!("[relay]\nprogram = \"{}\"\n", installed.display()));
    let _zone = Zone::with(&host);
    let (old, generation) = serving(&host);
    replace(&installed);
    kill(old, Signal::SIGKILL).expect("the relay is there");
    if landlock_is_there(&host) {
        host.control.says("if the program was replaced, start zone-proxy again");
        host.restart();
    }
    until("a relay of the new build serves", || serving(&host).1 > generation);
}

/// As package managers do: a new file beside the old one, and a rename.
fn replace(installed: &Path) {
    let next = installed.with_extension("new");
    std::fs::copy(program("zone-relay"), &next).expect("a copy of zone-relay");
    std::fs::rename(&next, installed).expect("renamed");
}

fn landlock_is_there(host: &Host) -> bool {
    host.status()["processes"].to_string().contains(", restricted")
}
