//! *ports*: what answers on each NIC in each state, by real TCP connections from three networks, IPv4 and IPv6.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::appliance::INSTALL_TIMEOUT;
use super::parties::{ByHand, init_zone, module, provision};
use crate::lab::roots::{APPLIANCE, ROOT_HOME};
use crate::lab::{
    Case, Cmd, Context, Expected, Host, Need, Probe, Result, Scene, Suite, Topology, tcp_probe,
};

/// Endpoints, Module Servers, provisioning, and a port on which nothing ever listens.
const ENDPOINTS: u16 = 17486;
const SESSIONS: u16 = 17487;
const PROVISIONING: u16 = 17488;
const NOBODYS: u16 = 17489;

/// How long the relay before may still accept after a change.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(2);

/// Where somebody may come from, and the NIC of the proxy that they reach.
const VIEWS: [(&str, &str); 3] = [("internet", "outside"), ("module", "inside"), ("branch", "outside")];

/// The suite.
pub(crate) fn suite() -> Suite {
    let programs = [Need::Program("zone-proxy"), Need::Program("zone-relay"), Need::Program("zone-module")];
    Suite {
        name: "ports",
        about: "what answers on each NIC from outside, inside and a third network, in each state",
        cases: vec![
            Case::new(
                "listening everywhere, a proxy answers on 17488 alone until it is provisioned, and afterwards again",
                town(Host::netns("proxy")),
                by_hand_everywhere,
            )
            .shows(&["R-10", "R-11", "R-12", "R-15", "R-30"])
            .needs(&programs),
            Case::new(
                "listening on the inner NIC, a proxy's 17488 and 17487 do not answer on the outer one",
                town(Host::netns("proxy")),
                by_hand_inside,
            )
            .shows(&["R-10", "R-15"])
            .needs(&programs),
            Case::new(
                "with its package and the host's firewall, ports are open just when they listen, also after a reboot",
                town(Host::booted("proxy", APPLIANCE)),
                installed,
            )
            .shows(&["R-10", "R-11", "R-12", "R-15", "R-16", "R-30", "R-45"])
            .needs(&programs)
            .needs(&[Need::Package("zone-proxy_0.1.0-1")]),
        ],
    }
}

/// A proxy between the internet and the inside, and a branch office behind a router.
pub(crate) fn town(proxy: Host) -> Topology {
    Topology::new()
        .link("outside")
        .link("inside")
        .link("branch-lan")
        .host(Host::netns("internet").nic("eth0", "outside", &["203.0.113.2/24", "2001:db8:113::2/64"]))
        .host(
            Host::netns("branch")
                .nic("eth0", "branch-lan", &["198.51.100.2/24", "2001:db8:51::2/64"])
                .route("0.0.0.0/0", "198.51.100.1")
                .route("::/0", "2001:db8:51::1"),
        )
        .host(
            Host::netns("router")
                .nic("eth0", "branch-lan", &["198.51.100.1/24", "2001:db8:51::1/64"])
                .nic("eth1", "outside", &["203.0.113.1/24", "2001:db8:113::1/64"])
                .forwarding(),
        )
        .host(
            proxy
                .nic("outside", "outside", &["203.0.113.10/24", "2001:db8:113::10/64"])
                .nic("inside", "inside", &["10.20.0.10/24", "fd00:20::10/64"])
                .route("0.0.0.0/0", "203.0.113.1")
                .route("::/0", "2001:db8:113::1"),
        )
        .host(Host::netns("module").nic("eth0", "inside", &["10.20.0.2/24", "fd00:20::2/64"]))
}

fn by_hand_everywhere(scene: &mut Scene<'_>) -> Result<()> {
    init_zone(scene, "module")?;
    everyone_sees(scene, "before anything runs", &[])?;
    let proxy = ByHand::start(scene, "proxy", "[control]\nlisten = [\"0.0.0.0\", \"::\"]\n")?;
    everyone_sees(scene, "before provisioning", &[PROVISIONING])?;
    let payload = scene.host("proxy")?.must(&proxy.cli(scene, &["show", "payload"]))?.stdout;
    let control = scene.host("proxy")?.ipv4("inside")?;
    provision(scene, "module", &payload, control, &["--listen", "0.0.0.0", "::"])?;
    everyone_sees(scene, "while provisioned", &[ENDPOINTS, SESSIONS, PROVISIONING])?;
    let unprovision = module(scene, "module", &["unprovision", "proxy1"])?;
    scene.must("module", &unprovision)?;
    everyone_sees(scene, "after un-provisioning", &[PROVISIONING])
}

fn by_hand_inside(scene: &mut Scene<'_>) -> Result<()> {
    init_zone(scene, "module")?;
    let proxy = ByHand::start(scene, "proxy", "[control]\nlisten = [\"10.20.0.10\", \"fd00:20::10\"]\n")?;
    let sees = |scene: &mut Scene<'_>, state: &str, inside: &[u16]| -> Result<()> {
        view(scene, state, "internet", "outside", &[])?;
        view(scene, state, "branch", "outside", &[])?;
        view(scene, state, "module", "inside", inside)
    };
    sees(scene, "before provisioning", &[PROVISIONING])?;
    let payload = scene.host("proxy")?.must(&proxy.cli(scene, &["show", "payload"]))?.stdout;
    let control = scene.host("proxy")?.ipv4("inside")?;
    provision(scene, "module", &payload, control, &["--listen", "10.20.0.10", "fd00:20::10"])?;
    sees(scene, "while provisioned", &[ENDPOINTS, SESSIONS, PROVISIONING])?;
    let again = ["provision", "--again", "--name", "proxy1", "--endpoint-port", "18486"];
    let again = module(scene, "module", &again)?;
    scene.must("module", &again)?;
    // The relay before closes its port when it hears of the one after, which the answer does not wait for.
    let (from, old) = (scene.host("module")?, SocketAddr::new(control, ENDPOINTS));
    let closed = scene.until(HANDOVER_TIMEOUT, || tcp_probe(from, old) != Probe::Open);
    scene.check("the port of before closes within two seconds", closed, old.to_string());
    sees(scene, "with another port for endpoints", &[18486, SESSIONS, PROVISIONING])?;
    let unprovision = module(scene, "module", &["unprovision", "proxy1"])?;
    scene.must("module", &unprovision)?;
    sees(scene, "after un-provisioning", &[PROVISIONING])
}

/// As zone-installer does it, by hand.
const SET_UP: &str = "set -e
sed -i 's/^open = false/open = true/; s/^listen = .*/listen = [\"0.0.0.0\", \"::\"]/' /etc/zone-proxy/firewall.toml
sed -i 's/^listen = .*/listen = [\"0.0.0.0\", \"::\"]/' /etc/zone-proxy/zone-proxy.toml
zone-firewall apply
systemctl enable --quiet --now zone-firewall.socket zone-firewall-restore.service zone-relay.socket zone-proxy.service
";

fn installed(scene: &mut Scene<'_>) -> Result<()> {
    init_zone(scene, "module")?;
    everyone_sees(scene, "before installation", &[])?;
    let package = scene.places().package("zone-proxy_0.1.0-1")?;
    let bytes = std::fs::read(&package).during(|| format!("can't read {}", package.display()))?;
    scene.host("proxy")?.put(&format!("{ROOT_HOME}/zone-proxy.deb"), &bytes, 0o644)?;
    scene.must(
        "proxy",
        &Cmd::sh(format!("dpkg --install {ROOT_HOME}/zone-proxy.deb")).limit(INSTALL_TIMEOUT),
    )?;
    everyone_sees(scene, "with the package, which starts nothing", &[])?;
    scene.must("proxy", &Cmd::sh(SET_UP).limit(INSTALL_TIMEOUT))?;
    everyone_sees(scene, "installed", &[PROVISIONING])?;
    let payload = scene.host("proxy")?.must(&Cmd::new("zone-proxy").args(["show", "payload"]))?.stdout;
    let control = scene.host("proxy")?.ipv4("inside")?;
    provision(scene, "module", &payload, control, &["--listen", "0.0.0.0", "::"])?;
    let all = [ENDPOINTS, SESSIONS, PROVISIONING];
    everyone_sees(scene, "provisioned", &all)?;
    scene.step("reboot", |scene| scene.host("proxy")?.reboot())?;
    everyone_sees(scene, "after a reboot", &all)?;
    let unprovision = module(scene, "module", &["unprovision", "proxy1"])?;
    scene.must("module", &unprovision)?;
    everyone_sees(scene, "un-provisioned", &[PROVISIONING])?;
    scene.must("proxy", &Cmd::sh("dpkg --purge zone-proxy").limit(INSTALL_TIMEOUT))?;
    everyone_sees(scene, "removed", &[])?;
    let rules = scene.must("proxy", &Cmd::new("nft").args(["list", "ruleset"]))?.stdout;
    scene.check("no rule is left after removal", rules.is_empty(), rules);
    Ok(())
}

/// Checks that just these ports answer, from each network, at the NIC that is reached from there.
pub(crate) fn everyone_sees(scene: &mut Scene<'_>, state: &str, open: &[u16]) -> Result<()> {
    VIEWS.iter().try_for_each(|(from, nic)| view(scene, state, from, nic, open))
}

/// Checks that just these ports answer at a NIC of the proxy, by IPv4 and IPv6.
pub(crate) fn view(scene: &mut Scene<'_>, state: &str, from: &str, nic: &str, open: &[u16]) -> Result<()> {
    let proxy = scene.host("proxy")?;
    let expected = expectations(&[proxy.ipv4(nic)?, proxy.ipv6(nic)?], open);
    let which = match open {
        [] => "nothing answers".to_owned(),
        ports => {
            let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
            format!("{} and no other answer", ports.join(", "))
        }
    };
    scene.check_ports(&format!("{state}, {which} at the NIC {nic}, seen from {from}"), from, &expected)?;
    Ok(())
}

fn expectations(addresses: &[IpAddr], open: &[u16]) -> Vec<(SocketAddr, Expected)> {
    let ports = [ENDPOINTS, SESSIONS, PROVISIONING, NOBODYS, 18486];
    let on = |ip: IpAddr| {
        ports.into_iter().map(move |port| {
            let expected = if open.contains(&port) { Expected::Open } else { Expected::Closed };
            (SocketAddr::new(ip, port), expected)
        })
    };
    addresses.iter().copied().flat_map(on).collect()
}
