//! Clocks that are wrong: the proxy's, the Module Server's, the endpoint's.

use std::path::PathBuf;
use std::process::Command;

use zone_tests::host::Host;
use zone_tests::process::{Process, fail, run, succeed};
use zone_tests::session::Session;
use zone_tests::zone::{Service, Zone};
use zone_tests::{program, skip, target, until};

use super::Snapshot;

/// A token that has expired stays so when the clock is set back, and the daemon says what it thinks of the clock.
#[test]
fn a_clock_set_back_a_year_does_not_revive_a_token() {
    let Some(clock) = Clock::new("a_clock_set_back_a_year_does_not_revive_a_token") else { return };
    let mut host = Host::start("[timeouts]\ntoken = 1.0");
    let payload = host.payload();
    until("the token expires", || !run(&mut host.cli(&["show", "payload"]), b"").status.success());
    host.restart_by(|command| clock.off_by("-1y", command));
    let shown = fail(&mut host.cli(&["show", "payload"]), b"");
    assert!(shown.contains("the token has expired"), "{shown}");
    let refused = fail(&mut Zone::init().provision_command(&host), payload.as_bytes());
    assert!(refused.contains("The token has expired"), "{refused}");
    warns(&host);
    assert!(!host.answers(17486) && !host.answers(17487));
}

#[test]
fn a_provisioned_proxy_goes_on_when_its_clock_is_set_back_a_year() {
    let test = "a_provisioned_proxy_goes_on_when_its_clock_is_set_back_a_year";
    let Some(clock) = Clock::new(test) else { return };
    let mut host = Host::start("");
    let zone = Zone::with(&host);
    let echo = Service { name: "echo", port: 7, target: target::echo().to_string(), end_to_end: true };
    let _endpoint = zone.endpoint(&host, "e1", &[echo]);
    let mut session = Session::connect(&zone, "e1:echo");
    session.exchanges(b"before");
    let id = host.status()["provisioning"].clone();

    host.restart_by(|command| clock.off_by("-1y", command));
    assert_eq!(host.status()["provisioning"], id);
    assert!(host.answers(17486) && host.answers(17487));
    session.exchanges(b"after");
    Session::connect(&zone, "e1:echo").exchanges(b"another");
    warns(&host);

    // Whoever asks at 17488 has a certificate from this proxy's future: both say so, with the times.
    let told = fail(&mut zone.cli(&["status", "p1"]), b"");
    assert!(told.contains("not valid at this time by its clock: compare the clocks"), "{told}");
    host.control.says("and now is");
    let said = host.control.said();
    let line = said.lines().find(|line| line.contains("and now is")).expect("a line about the times");
    assert!(line.contains("spiffe://plant/module-server/module-1 is valid from"), "{line}");
    host.restart();
    succeed(&mut zone.cli(&["status", "p1"]), b"");
}

/// The Module Server sees the difference before it signs anything that would not be valid there.
#[test]
fn a_proxy_in_another_year_is_not_provisioned_and_both_times_are_named() {
    let test = "a_proxy_in_another_year_is_not_provisioned_and_both_times_are_named";
    let Some(clock) = Clock::new(test) else { return };
    for offset in ["-1y", "+2y"] {
        let host = Host::start_by("", |command| clock.off_by(offset, command));
        let (zone, before) = (Zone::init(), Snapshot::of(&host));
        let told = fail(&mut zone.provision_command(&host), host.payload().as_bytes());
        assert!(told.contains("certificates signed now would not be valid there"), "{told}");
        assert!(told.contains("set the clock that is wrong"), "{told}");
        assert_eq!(Snapshot::of(&host), before);
    }
}

/// Within the hour by which certificates are back-dated, a clock may be wrong, and is warned of.
#[test]
fn a_proxy_that_is_half_an_hour_late_is_provisioned_with_a_warning() {
    let test = "a_proxy_that_is_half_an_hour_late_is_provisioned_with_a_warning";
    let Some(clock) = Clock::new(test) else { return };
    let host = Host::start_by("", |command| clock.off_by("-30m", command));
    let told = Zone::init().provision(&host);
    assert!(told.contains("warning: the proxy's clock says"), "{told}");
    assert!(told.contains("provisioned as p1"), "{told}");
}

#[test]
fn an_endpoint_in_another_year_says_that_its_clock_may_be_wrong() {
    let test = "an_endpoint_in_another_year_says_that_its_clock_may_be_wrong";
    let Some(clock) = Clock::new(test) else { return };
    let host = Host::start("");
    let zone = Zone::with(&host);
    let config = zone.issue_endpoint("e1", &[]).join("zone-endpoint.toml");
    for (offset, words) in [("-1y", "is not valid yet: look at this machine's clock"), ("+2y", "has expired")]
    {
        let mut command = Command::new(program("zone-endpoint"));
        let endpoint = Process::start(clock.off_by(offset, command.args(["run", "--config"]).arg(&config)));
        endpoint.says(words);
        endpoint.says("spiffe://plant/zone-proxy/p1 is valid from");
        endpoint.says("and now is");
    }
    host.counts("nobody has parked", |counts| counts["parks"] == 0);
}

/// Certificates live for a year, and are warned of for the last thirty days of it: on both sides, with what to do.
#[test]
fn whoever_is_about_to_lose_a_certificate_is_told_on_both_sides() {
    let test = "whoever_is_about_to_lose_a_certificate_is_told_on_both_sides";
    let Some(clock) = Clock::new(test) else { return };
    let mut host = Host::start("");
    let zone = Zone::with(&host);
    let config = zone.issue_endpoint("e1", &[]).join("zone-endpoint.toml");
    let early = succeed(&mut zone.cli(&["status"]), b"");
    assert!(!early.contains("expires in"), "{early}");

    host.control.kill();
    host.restart_by(|command| clock.off_by("+350d", command));
    let words = "the proxy's certificate expires in 1";
    host.control.says(words);
    let status = succeed(&mut host.cli(&["status"]), b"");
    let warned = |line: &str| line.starts_with("warning") && line.contains("'zone-module rotate p1'");
    assert!(status.contains(words) && status.lines().any(warned), "{status}");

    let told = succeed(clock.off_by("+350d", &mut zone.cli(&["status"])), b"");
    assert!(told.contains("its certificate expires in 1"), "{told}");
    assert!(told.contains("spiffe://plant/endpoint/e1 expires in 1"), "{told}");
    let mut check = Command::new(program("zone-endpoint"));
    check.args(["check-config", "--config"]).arg(&config);
    let told = succeed(clock.off_by("+350d", &mut check), b"");
    assert!(
        told.contains("endpoint.crt expires in 1") && told.contains("zone-module issue endpoint e1"),
        "{told}"
    );
}

fn warns(host: &Host) {
    let behind = "behind the highest time that this proxy has seen: set it";
    host.control.says(behind);
    let status = succeed(&mut host.cli(&["status"]), b"");
    assert!(status.lines().any(|line| line.starts_with("warning") && line.contains(behind)), "{status}");
}

/// Debian's faketime, which gives a program another wall clock.
struct Clock {
    library: PathBuf,
}

impl Clock {
    fn new(test: &str) -> Option<Self> {
        let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
        let library =
            folders.map(|folder| folder.path().join("faketime/libfaketime.so.1")).find(|path| path.exists());
        if library.is_none() {
            skip(test, "faketime is not installed");
        }
        Some(Self { library: library? })
    }

    /// Changes a command so that its wall clock is off by this much; timers go as ever.
    fn off_by<'a>(&self, offset: &str, command: &'a mut Command) -> &'a mut Command {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME", offset)
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    }
}
