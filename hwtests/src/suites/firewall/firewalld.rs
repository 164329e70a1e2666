//! What an admin of a firewalld host denies, and what is left when we go: the program alone in a booted root.

use std::net::SocketAddr;
use std::time::Duration;

use super::alone::{self, RECORD, is_as_desired, sh, verify};
use crate::lab::roots::FIREWALLD;
use crate::lab::{Case, Cmd, Error, Expected, Host, Need, Probe, Process, Result, Scene, Topology};

/// How long a service may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// What earlier versions of the product had in firewalld.
const EARLIER: &str = "set -e
firewall-cmd --permanent --new-policy zone-proxy
firewall-cmd --permanent --policy zone-proxy --set-target CONTINUE
firewall-cmd --permanent --policy zone-proxy --set-priority -100
firewall-cmd --permanent --policy zone-proxy --add-ingress-zone ANY
firewall-cmd --permanent --policy zone-proxy --add-egress-zone HOST
firewall-cmd --permanent --policy zone-proxy --add-rich-rule 'rule family=ipv4 port port=17488 protocol=tcp accept'
";
/// What an admin denies.
const DENIALS: &str = "set -e
firewall-cmd --permanent --zone drop --add-source 203.0.113.66 --add-source 2001:db8:113::66
firewall-cmd --permanent --new-ipset crowd --type hash:ip
firewall-cmd --permanent --ipset crowd --add-entry 203.0.113.67
firewall-cmd --permanent --zone public --add-rich-rule 'rule source ipset=crowd drop'
firewall-cmd --permanent --new-zone strict
firewall-cmd --permanent --zone strict --set-target DROP
firewall-cmd --permanent --zone strict --add-source 203.0.113.68
firewall-cmd --permanent --zone drop --add-interface=backup
";

/// The cases.
pub(super) fn cases() -> Vec<Case> {
    let needs = [Need::Program("zone-firewall")];
    let case = |sentence, play: fn(&mut Scene<'_>) -> Result<()>| {
        Case::new(sentence, topology(), play).shows(&["R-15", "R-16"]).needs(&needs)
    };
    vec![
        case("what firewalld's zones and ipsets deny stays shut, from the first version on", denials_hold),
        case("a rich rule of firewalld that rejects 17488 holds, and is reported", a_rich_rule_is_reported),
        case("a removal while firewalld is stopped leaves nothing", removal_while_stopped),
        case("firewalld's panic mode is named", panic_mode),
        case("firewalld takes the exported policy, which opens the ports", the_exported_policy_opens),
    ]
}

fn topology() -> Topology {
    let proxy = Host::booted("proxy", FIREWALLD)
        .nic("outside", "outside", &["203.0.113.10/24", "2001:db8:113::10/64"])
        .nic("backup", "backup", &["10.30.0.10/24"])
        .enable(&["firewalld.service"]);
    let sender = |name, number: u16| {
        let addresses = [format!("203.0.113.{number}/24"), format!("2001:db8:113::{number}/64")];
        Host::netns(name).nic("eth0", "outside", &[&addresses[0], &addresses[1]])
    };
    Topology::new()
        .link("outside")
        .link("backup")
        .host(proxy)
        .host(sender("admitted", 2))
        .host(sender("dropped", 66))
        .host(sender("listed", 67))
        .host(sender("strict", 68))
        .host(Host::netns("vault").nic("eth0", "backup", &["10.30.0.2/24"]))
}

fn denials_hold(scene: &mut Scene<'_>) -> Result<()> {
    let _listeners = begin(scene)?;
    scene.step("an earlier version's policy, and what the admin denies", |scene| {
        sh(scene, EARLIER)?;
        sh(scene, DENIALS)?;
        sh(scene, "firewall-cmd --reload").map(|_| ())
    })?;
    scene.step("upgrade", |scene| sh(scene, "zone-firewall apply").map(|_| ()))?;
    who_gets_in(scene)?;
    is_as_desired(scene, "after the upgrade")?;
    scene.step("firewalld is reloaded, restarted, and told of another source", |scene| {
        sh(scene, "firewall-cmd --reload")?;
        sh(scene, "systemctl restart firewalld.service")?;
        filters(scene)?;
        sh(scene, "firewall-cmd --zone drop --change-interface backup")?;
        sh(scene, "firewall-cmd --zone drop --add-source 203.0.113.2").map(|_| ())
    })?;
    ports(scene, "a source that zone drop is given later is shut at once", "admitted", Probe::Filtered)?;
    sh(scene, "firewall-cmd --zone drop --remove-source 203.0.113.2")?;
    for from in ["dropped", "strict"] {
        ports(scene, &format!("after a restart of firewalld, {from} stays shut"), from, Probe::Filtered)?;
    }
    scene.step("zone drop loses its interface", |scene| {
        sh(scene, "firewall-cmd --zone public --change-interface backup").map(|_| ())
    })?;
    ports(scene, "an interface that leaves zone drop is open", "vault", Probe::Open)?;
    ports(scene, "sources of zone drop stay shut when it loses its interface", "dropped", Probe::Filtered)
}

/// Checks each of those who connect.
fn who_gets_in(scene: &mut Scene<'_>) -> Result<()> {
    for (from, sentence, probe) in [
        ("admitted", "whom nobody denies gets in", Probe::Open),
        ("dropped", "a source of zone drop stays shut", Probe::Filtered),
        ("listed", "an address of an ipset that a rich rule drops stays shut", Probe::Filtered),
        ("strict", "a source of a zone whose target is DROP stays shut", Probe::Filtered),
        ("vault", "an interface in zone drop stays shut", Probe::Filtered),
    ] {
        ports(scene, sentence, from, probe)?;
    }
    Ok(())
}

fn a_rich_rule_is_reported(scene: &mut Scene<'_>) -> Result<()> {
    let _listeners = begin(scene)?;
    let rule = "rule family=ipv4 port port=17488 protocol=tcp reject";
    sh(
        scene,
        &format!("firewall-cmd --permanent --zone public --add-rich-rule '{rule}' && firewall-cmd --reload"),
    )?;
    sh(scene, "zone-firewall apply")?;
    let proxy = scene.host("proxy")?.ipv4("outside")?;
    let expected = [
        (SocketAddr::new(proxy, 17486), Expected::Open),
        (SocketAddr::new(proxy, 17488), Expected::Exactly(Probe::Refused)),
    ];
    scene.check_ports("17488 is rejected and 17486 is not", "admitted", &expected)?;
    let verified = verify(scene)?;
    let named = verified.stdout.lines().any(|line| line.contains("17488") && line.contains("reject"));
    scene.check("`zone-firewall verify` names the rule", verified.code() == 1 && named, verified.text());
    Ok(())
}

fn the_exported_policy_opens(scene: &mut Scene<'_>) -> Result<()> {
    let _listeners = begin(scene)?;
    ports(scene, "before, our ports are shut", "admitted", Probe::Unreachable)?;
    let policy = "/root/ports.xml";
    sh(scene, &format!("zone-firewall export --format firewalld > {policy}"))?;
    sh(scene, &format!("firewall-cmd --permanent --new-policy-from-file={policy} --name=zone-proxy-ports"))?;
    sh(scene, "firewall-cmd --check-config && firewall-cmd --reload")?;
    ports(scene, "with the policy they are open", "admitted", Probe::Open)?;
    sh(scene, "firewall-cmd --permanent --delete-policy=zone-proxy-ports && firewall-cmd --reload")?;
    ports(scene, "without it they are shut again", "admitted", Probe::Unreachable)
}

fn removal_while_stopped(scene: &mut Scene<'_>) -> Result<()> {
    let _listeners = begin(scene)?;
    let configuration = "find /etc/firewalld -type f | grep -v firewalld.conf | sort";
    let before = sh(scene, configuration)?.stdout;
    for clean in ["yes", "no"] {
        let when = format!("with CleanupOnExit={clean}");
        scene.step(&format!("firewalld is stopped {when}"), |scene| {
            sh(
                scene,
                &format!("sed -i 's/^CleanupOnExit=.*/CleanupOnExit={clean}/' /etc/firewalld/firewalld.conf"),
            )?;
            sh(scene, "systemctl restart firewalld.service")?;
            filters(scene)?;
            sh(scene, "zone-firewall apply")?;
            sh(scene, "systemctl stop firewalld.service").map(|_| ())
        })?;
        let removed = scene.step("removal", |scene| sh(scene, "zone-firewall remove"))?;
        scene.note(removed.stdout);
        let files = sh(scene, configuration)?.stdout;
        scene.check_equal(format!("{when}, no file of ours is left"), &before, &files);
        let rules = sh(scene, "nft list ruleset | grep zone || true")?.stdout;
        scene.check(format!("{when}, no rule of ours is left"), rules.is_empty(), rules.as_str());
        sh(scene, "systemctl start firewalld.service")?;
        filters(scene)?;
        ports(
            scene,
            &format!("{when}, nothing is open when firewalld starts again"),
            "admitted",
            Probe::Unreachable,
        )?;
        sh(scene, RECORD)?;
    }
    Ok(())
}

fn panic_mode(scene: &mut Scene<'_>) -> Result<()> {
    let _listeners = begin(scene)?;
    sh(scene, "zone-firewall apply && firewall-cmd --panic-on")?;
    let verified = verify(scene)?;
    let named = verified.stdout.contains("firewalld is in panic mode");
    scene.check("`zone-firewall verify` names it", verified.code() == 1 && named, verified.text());
    sh(scene, "firewall-cmd --panic-off")?;
    is_as_desired(scene, "when it is over")
}

/// The program beside a firewalld that runs, and who listens.
fn begin(scene: &mut Scene<'_>) -> Result<Process> {
    filters(scene)?;
    alone::install(scene)
}

/// Waits until firewalld has loaded its rules, which it does after systemd takes it for started.
fn filters(scene: &Scene<'_>) -> Result<()> {
    let running = Cmd::new("firewall-cmd").arg("--state");
    let host = scene.host("proxy")?;
    if scene.until(START_TIMEOUT, || host.run(&running).is_ok_and(|output| output.ok())) {
        Ok(())
    } else {
        Err(Error::other("firewalld does not run"))
    }
}

/// Checks all three ports.
fn ports(scene: &mut Scene<'_>, sentence: &str, from: &str, probe: Probe) -> Result<()> {
    alone::ports(scene, sentence, from, if from == "vault" { "backup" } else { "outside" }, probe)
}
