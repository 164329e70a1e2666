//! The real firewall broker with real rules, in a network namespace of the test's own whose firewall drops whatever
//! is not allowed. What the broker does on other kinds of hosts is tested in `firewall/` and in the lab.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use zone_tests::host::Host;
use zone_tests::process::{Process, fail, run, succeed};
use zone_tests::zone::Zone;
use zone_tests::{folder, program, skip};

/// A host's own firewall, before anything of ours.
const FOREIGN: &str = "table inet filter { chain input { type filter hook input priority 0; policy drop; \
                       ct state established,related accept; tcp dport 17488 accept; }; }";
/// For an answer on the loopback interface; a dropped packet brings none.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// A broker within a ceiling, and a host that asks it. `None` where that can't be had.
struct Scene {
    host: Host,
    _broker: Process,
    _folder: tempfile::TempDir,
}

impl Scene {
    fn new(test: &str, ceiling: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            skip(test, "a network namespace takes root");
            return None;
        }
        if !run(Command::new("sh").args(["-c", "command -v nft && command -v ip"]), b"").status.success() {
            skip(test, "nft or ip is missing");
            return None;
        }
        // This thread and all that it starts; other tests stay where they are.
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        succeed(Command::new("ip").args(["link", "set", "lo", "up"]), b"");
        succeed(Command::new("nft").arg(FOREIGN), b"");
        let folder = folder();
        let broker = broker(folder.path(), ceiling);
        let socket = folder.path().join("broker.sock");
        let host =
            Host::start(&format!("[firewall]\nmode = \"broker\"\nsocket = \"{}\"\n", socket.display()));
        Some(Self { host, _broker: broker, _folder: folder })
    }

    fn reaches(&self, port: u16) -> bool {
        TcpStream::connect_timeout(&self.host.port(port), ANSWER_TIMEOUT).is_ok()
    }

    fn words(&self) -> Vec<String> {
        let status = self.host.status();
        let ports = status["ports"].as_array().expect("a list").iter();
        ports
            .map(|port| format!("{} {}", port["port"], port["firewall"].as_str().unwrap_or_default()))
            .collect()
    }
}

/// The broker, to which the daemon's user of these tests is zone-proxy.
fn broker(folder: &Path, ceiling: &str) -> Process {
    let accounts = std::fs::read_to_string("/etc/passwd").expect("the accounts");
    let ours = "zone-proxy:x:65534:65534::/:/bin/false\n";
    std::fs::write(folder.join("passwd"), format!("{ours}{accounts}")).expect("written");
    std::fs::write(folder.join("firewall.toml"), format!("[control]\nopen = true\n{ceiling}"))
        .expect("written");
    std::fs::create_dir(folder.join("firewall")).expect("the broker's directory");
    let script = "mount --bind \"$0/passwd\" /etc/passwd && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(folder).arg(program("zone-firewall"));
    command.arg("--config").arg(folder.join("firewall.toml")).arg("--state").arg(folder.join("firewall"));
    command.arg("--socket").arg(folder.join("broker.sock")).arg("broker");
    let mut broker = Process::start(&mut command);
    zone_tests::until("the broker listens, or ends", || {
        folder.join("broker.sock").exists() || !broker.runs()
    });
    assert!(broker.runs(), "{}", broker.said());
    broker
}

#[test]
fn the_relay_ports_are_let_through_from_the_provisioning_to_the_end_of_membership() {
    let test = "the_relay_ports_are_let_through_from_the_provisioning_to_the_end_of_membership";
    let Some(scene) = Scene::new(test, "") else { return };
    assert!(scene.reaches(17488) && !scene.reaches(17486) && !scene.reaches(17487));
    let zone = Zone::with(&scene.host);
    assert!(scene.reaches(17486) && scene.reaches(17487), "{}", scene.host.control.said());
    assert_eq!(scene.words(), ["17488 open", "17486 open", "17487 open"]);
    let rules = || succeed(Command::new("nft").args(["list", "chain", "inet", "filter", "input"]), b"");
    assert!(rules().contains("17486"), "{}", rules());

    let repairs = || scene.host.metric(&zone, "zone_proxy_firewall_repairs_total");
    let before = repairs();
    let anew =
        "flush chain inet filter input; add rule inet filter input ct state established,related accept";
    succeed(Command::new("nft").arg(anew), b"");
    zone_tests::until("what somebody took away is put back", || {
        ["17486", "17487", "17488"].iter().all(|port| rules().contains(port))
    });
    zone_tests::until("it is counted", || repairs() > before);
    assert!(scene.reaches(17486) && scene.reaches(17487));
    assert_eq!(scene.host.metric(&zone, "zone_proxy_firewall_watched"), 1);

    succeed(&mut zone.cli(&["unprovision", "p1"]), b"");
    assert!(!scene.reaches(17486) && !scene.reaches(17487));
    assert!(!rules().contains("17486"), "{}", rules());
}

#[test]
fn where_root_wants_drift_reported_what_somebody_took_away_is_a_warning_and_a_metric() {
    let test = "where_root_wants_drift_reported_what_somebody_took_away_is_a_warning_and_a_metric";
    let Some(scene) = Scene::new(test, "[watch]\nmode = \"report\"\n") else { return };
    let zone = Zone::with(&scene.host);
    assert!(scene.reaches(17486));
    let drift = || scene.host.metric(&zone, "zone_proxy_firewall_findings{level=\"drift\"}");
    assert_eq!(drift(), 0);
    let delete = "nft delete rule inet filter input handle $(nft -a list chain inet filter input | sed -n 's/.*dport 17486.*handle //p')";
    succeed(Command::new("sh").args(["-c", delete]), b"");
    zone_tests::until("it is counted", || drift() > 0);
    zone_tests::until("it is a warning", || {
        let shown = succeed(&mut scene.host.cli(&["status"]), b"");
        shown.contains("warning") && shown.contains("firewall closed")
    });
    assert!(!scene.reaches(17486), "it is not put back");
}

#[test]
fn a_ceiling_below_the_ports_undoes_the_provisioning_and_says_so() {
    let test = "a_ceiling_below_the_ports_undoes_the_provisioning_and_says_so";
    let Some(scene) = Scene::new(test, "[ceiling]\nports = [\"20000-21000\"]\n") else { return };
    let (zone, payload) = (Zone::init(), scene.host.payload());
    let said = fail(&mut zone.provision_command(&scene.host), payload.as_bytes());
    assert!(said.contains("step: firewall; everything was undone") && said.contains("17486"), "{said}");
    assert_eq!(scene.host.status()["state"], "unprovisioned");
    assert!(!scene.reaches(17486));
}
