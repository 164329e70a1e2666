//! A relay of which one thread stands still, held by ptrace(2), while all others go on.

use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::wait::waitpid;
use zone_tests::host::Host;
use zone_tests::manager::Manager;
use zone_tests::session::Session;
use zone_tests::zone::{Service, Zone};
use zone_tests::{skip, target, until};

/// Several times the watchdog timeout of the manager's relays.
const STARVED: Duration = Duration::from_millis(1_800);

/// The thread that talks with control is the first one; workers carry the sessions.
#[test]
fn a_relay_that_does_not_talk_with_control_starves_its_watchdog_while_sessions_go_on() {
    let name = "a_relay_that_does_not_talk_with_control_starves_its_watchdog_while_sessions_go_on";
    if !nix::unistd::geteuid().is_root() {
        return skip(name, "ptrace of a daemon takes root");
    }
    let manager = Manager::start();
    // Nobody but the relay reports to this manager.
    let host = Host::start(&format!("[relay]\nsocket = \"{}\"\n", manager.socket().display()));
    let zone = Zone::with(&host);
    let echo = Service { name: "echo", port: 7, target: target::echo().to_string(), end_to_end: true };
    let _endpoint = zone.endpoint(&host, "host-7", &[echo]);
    let mut session = Session::connect(&zone, "host-7:echo");
    session.exchanges(b"before");
    let relay = host.relay();
    manager.hears("WATCHDOG=1");

    ptrace::attach(relay).expect("root may attach");
    waitpid(relay, None).expect("its first thread stops");
    let (mut last, mut since) = (manager.count("WATCHDOG=1"), Instant::now());
    until("the watchdog is not fed any more", || {
        let now = manager.count("WATCHDOG=1");
        if now != last {
            (last, since) = (now, Instant::now());
        }
        since.elapsed() > STARVED
    });
    session.exchanges(b"meanwhile");
    ptrace::detach(relay, None).expect("it is ours");
    manager.hears("WATCHDOG=1");
    session.exchanges(b"afterwards");
}
