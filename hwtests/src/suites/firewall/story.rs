//! The stages of an appliance, seen from outside, and its rules at each.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use super::foreign::{Foreign, View};
use crate::lab::check::{PROBE_TIMEOUT, probe_all};
use crate::lab::{Cmd, Host, Probe, Result, Scene, Topology};
use crate::suites::appliance::{Admin, Format, prepare};
use crate::suites::parties::{init_zone, module, provision};

/// The host's own ssh server: the first port is let in by the host's firewall, the second by none that closes.
const SSH: [u16; 2] = [22, 2222];
const ENDPOINTS: u16 = 17486;
const SESSIONS: u16 = 17487;
const PROVISIONING: u16 = 17488;

/// How long rules may take to be back after somebody else's firewall was started again.
const RETURN_TIMEOUT: Duration = Duration::from_secs(10);

/// A host between the internet and the inside.
pub(super) fn topology(foreign: Foreign) -> Topology {
    let proxy = Host::booted("proxy", foreign.root())
        .nic("outside", "outside", &["203.0.113.10/24", "2001:db8:113::10/64"])
        .nic("inside", "inside", &["10.20.0.10/24", "fd00:20::10/64"])
        .enable(&["ssh.service"]);
    Topology::new()
        .link("outside")
        .link("inside")
        .host(foreign.unit().into_iter().fold(proxy, |proxy, unit| proxy.enable(&[unit])))
        .host(Host::netns("internet").nic("eth0", "outside", &["203.0.113.2/24", "2001:db8:113::2/64"]))
        .host(Host::netns("module").nic("eth0", "inside", &["10.20.0.2/24", "fd00:20::2/64"]))
}

/// All stages.
pub(super) fn tell(scene: &mut Scene<'_>, foreign: Foreign) -> Result<()> {
    scene.step("the host's own firewall", |scene| {
        scene.host("proxy")?.put("/etc/ssh/sshd_config.d/lab.conf", b"Port 22\nPort 2222\n", 0o644)?;
        scene.must("proxy", &Cmd::new("systemctl").args(["restart", "ssh.service"]))?;
        foreign.set_up(scene)
    })?;
    let before = Rules::of(scene, foreign)?;
    answers(scene, foreign, "before installation", Stage::Bare)?;

    let admin = prepare(scene, Format::Deb, "module")?;
    let payload = scene.step("installation", |scene| {
        let install =
            "install 0.1.0-1 --listen 0.0.0.0 --listen :: --allow 10.20.0.0/24 --allow fd00:20::/64";
        admin.must(scene, install, b"")?;
        Ok(admin.must(scene, "show payload", b"")?.stdout)
    })?;
    answers(scene, foreign, "after installation", Stage::Installed)?;
    let installed = Rules::of(scene, foreign)?;
    whole_within(scene, "after installation", &before, &installed);
    is_as_desired(scene, "after installation")?;

    scene.step("provisioning", |scene| {
        init_zone(scene, "module")?;
        let control = scene.host("proxy")?.ipv4("inside")?;
        let settings =
            ["--listen", "0.0.0.0", "::", "--allow-module-servers", "10.20.0.0/24", "fd00:20::/64"];
        provision(scene, "module", &payload, control, &settings)
    })?;
    answers(scene, foreign, "after provisioning", Stage::Provisioned)?;
    let provisioned = Rules::of(scene, foreign)?;
    whole_within(scene, "after provisioning", &before, &provisioned);
    is_as_desired(scene, "after provisioning")?;
    admin_sees_no_finding(scene, &admin, "after provisioning")?;

    in_the_middle(scene, foreign, &before, &provisioned)?;

    scene.step("un-provisioning", |scene| {
        let cmd = module(scene, "module", &["unprovision", "proxy1"])?;
        scene.must("module", &cmd)
    })?;
    answers(scene, foreign, "after un-provisioning", Stage::Installed)?;
    installed.check_meaning(scene, "after un-provisioning, the rules are those of after installation")?;

    scene.step("removal", |scene| admin.must(scene, "remove", b"yes\n"))?;
    answers(scene, foreign, "after removal", Stage::Bare)?;
    let units = Cmd::sh("systemctl list-units --all --plain --no-legend --no-pager 'zone-*'");
    let left = scene.must("proxy", &units)?.stdout;
    scene.check("after removal, systemd knows no unit of ours", left.is_empty(), left.as_str());
    before.check(scene, "after removal, the rules are those of the beginning")
}

/// What others do to their firewall while our ports are open.
fn in_the_middle(scene: &mut Scene<'_>, foreign: Foreign, before: &Rules, provisioned: &Rules) -> Result<()> {
    if foreign == Foreign::Iptables {
        save_and_restore(scene)?;
        are_back(scene, foreign, "after iptables-save and iptables-restore", before, provisioned)?;
    }
    if let Some(unit) = foreign.unit() {
        for verb in ["restart", "reload"] {
            scene.step(&format!("systemctl {verb} {unit}"), |scene| {
                scene.must("proxy", &Cmd::new("systemctl").args([verb, unit]))
            })?;
            are_back(scene, foreign, &format!("after a {verb} of {unit}"), before, provisioned)?;
        }
    }
    if foreign != Foreign::Iptables {
        scene.step("a reboot", |scene| scene.host("proxy")?.reboot())?;
        are_back(scene, foreign, "after a reboot", before, provisioned)?;
    }
    Ok(())
}

/// The admins of an iptables host keep their rules as text: ours in it must say what they mean.
fn save_and_restore(scene: &mut Scene<'_>) -> Result<()> {
    for program in ["iptables", "ip6tables"] {
        let saved = scene.must("proxy", &Cmd::new(format!("{program}-save")))?.stdout;
        for port in [ENDPOINTS, SESSIONS, PROVISIONING] {
            let line = saved.lines().find(|line| line.contains(&format!("--dport {port}")));
            scene.check(
                format!("{program}-save prints the rule for {port}"),
                line.is_some_and(|line| line.ends_with("-j ACCEPT")),
                line.unwrap_or("no such line"),
            );
        }
        let open = saved.lines().find(|line| line.trim_end() == "-A INPUT -p tcp -j ACCEPT");
        scene.check(
            format!("{program}-save prints no rule that opens every port"),
            open.is_none(),
            saved.as_str(),
        );
        scene.must("proxy", &Cmd::new(format!("{program}-restore")).input(saved))?;
    }
    Ok(())
}

/// Waits until the rules are complete again, and checks that they are those of before.
fn are_back(
    scene: &mut Scene<'_>,
    foreign: Foreign,
    when: &str,
    before: &Rules,
    provisioned: &Rules,
) -> Result<()> {
    let verify = Cmd::new("zone-firewall").arg("verify");
    let host = scene.host("proxy")?;
    scene.until(RETURN_TIMEOUT, || host.run(&verify).is_ok_and(|output| output.ok()));
    is_as_desired(scene, when)?;
    answers(scene, foreign, when, Stage::Provisioned)?;
    whole_within(scene, when, before, &Rules::of(scene, foreign)?);
    provisioned.check_meaning(scene, &format!("{when}, the rules are those of before"))
}

/// How far an appliance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Bare,
    Installed,
    Provisioned,
}

/// Checks what answers from the internet and from the inside, by IPv4 and IPv6, all at once.
fn answers(scene: &mut Scene<'_>, foreign: Foreign, when: &str, stage: Stage) -> Result<()> {
    let mut views = Vec::new();
    for (from, nic) in [("internet", "outside"), ("module", "inside")] {
        let proxy = scene.host("proxy")?;
        let ports = ports(foreign, stage, from == "module");
        let addresses = [proxy.ipv4(nic)?, proxy.ipv6(nic)?];
        let wanted: Vec<_> = addresses
            .iter()
            .flat_map(|&ip| ports.map(|(port, open)| (SocketAddr::new(ip, port), open)))
            .collect();
        views.push((from, scene.host(from)?, ports, wanted));
    }
    let seen: Vec<_> = thread::scope(|scope| {
        let probing: Vec<_> = views
            .iter()
            .map(|(_, host, _, wanted)| {
                let addresses: Vec<_> = wanted.iter().map(|(address, _)| *address).collect();
                scope.spawn(move || probe_all(*host, &addresses, PROBE_TIMEOUT))
            })
            .collect();
        probing.into_iter().map(|one| one.join().unwrap_or_default()).collect()
    });
    for ((from, _, ports, wanted), seen) in views.iter().zip(seen) {
        let open: Vec<_> = ports.iter().filter(|(_, open)| *open).map(|(port, _)| port.to_string()).collect();
        let right = |((_, open), (_, probe)): (&(SocketAddr, bool), &(SocketAddr, Probe))| {
            (*probe == Probe::Open) == *open
        };
        let held = seen.len() == wanted.len() && wanted.iter().zip(&seen).all(right);
        let told: Vec<_> = seen.iter().map(|(address, probe)| format!("{address}: {probe}")).collect();
        scene.check(
            format!("{when}, {from} reaches {}, and no more, by IPv4 and IPv6", open.join(", ")),
            held,
            told.join("\n"),
        );
    }
    Ok(())
}

/// The ports that are looked at, and whether a connection is to be accepted.
fn ports(foreign: Foreign, stage: Stage, inside: bool) -> [(u16, bool); 5] {
    [
        (SSH[0], true),
        (SSH[1], !foreign.closes()),
        (ENDPOINTS, stage == Stage::Provisioned),
        (SESSIONS, stage == Stage::Provisioned && inside),
        (PROVISIONING, stage != Stage::Bare && inside),
    ]
}

/// Checks that the live rules are the desired ones, as the tool itself says.
fn is_as_desired(scene: &mut Scene<'_>, when: &str) -> Result<()> {
    let verified = scene.run("proxy", &Cmd::new("zone-firewall").arg("verify"))?;
    scene.check(format!("{when}, `zone-firewall verify` finds nothing"), verified.ok(), verified.text());
    let planned = scene.must("proxy", &Cmd::new("zone-firewall").arg("plan"))?;
    // What an admin denies to some by name is told behind it.
    let held = planned.stdout.lines().next() == Some("nothing to change");
    scene.check(format!("{when}, there is nothing to change"), held, planned.text());
    Ok(())
}

/// Checks that the admin, who is not root, is told the same.
fn admin_sees_no_finding(scene: &mut Scene<'_>, admin: &Admin, when: &str) -> Result<()> {
    let seen = admin.verb(scene, "firewall verify", b"")?;
    scene.check(format!("{when}, the admin's `firewall verify` finds nothing"), seen.ok(), seen.text());
    Ok(())
}

/// Checks that every line of the rules of before is still there, in its place among the others.
fn whole_within(scene: &mut Scene<'_>, when: &str, before: &Rules, now: &Rules) {
    for ((view, before), (_, now)) in before.views.iter().zip(&now.views) {
        let mut lines = now.lines();
        let lost = before.lines().find(|line| !lines.any(|other| other == *line));
        scene.check(
            format!("{when}, {}: what was there is whole and in its order", view.name),
            lost.is_none(),
            lost.map_or_else(
                || crate::lab::check::difference(before, now),
                |line| format!("missing or moved: {line}"),
            ),
        );
    }
}

/// All that a host's firewall is, as its own tools tell it, without what traffic counted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rules {
    foreign: Foreign,
    views: Vec<(&'static View, String)>,
}

impl Rules {
    fn of(scene: &Scene<'_>, foreign: Foreign) -> Result<Self> {
        let host = scene.host("proxy")?;
        let views = foreign.views().iter().map(|view| Ok((view, host.run(&Cmd::sh(view.shown_by))?.stdout)));
        Ok(Self { foreign, views: views.collect::<Result<_>>()? })
    }

    /// Checks that they are just these again.
    fn check(&self, scene: &mut Scene<'_>, sentence: &str) -> Result<()> {
        let now = Self::of(scene, self.foreign)?;
        for ((view, before), (_, now)) in self.views.iter().zip(&now.views) {
            scene.check_equal(format!("{sentence}: {}", view.name), before, now);
        }
        Ok(())
    }

    /// Checks that they are the same rules; ours may have come in another order.
    fn check_meaning(&self, scene: &mut Scene<'_>, sentence: &str) -> Result<()> {
        let now = Self::of(scene, self.foreign)?;
        for ((view, before), (_, now)) in
            self.views.iter().zip(&now.views).filter(|((view, _), _)| view.lasting)
        {
            scene.check_equal(format!("{sentence}: {}", view.name), &sorted(before), &sorted(now));
        }
        Ok(())
    }
}

fn sorted(text: &str) -> String {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}
