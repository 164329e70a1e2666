//! *lab*: the lab itself, so that what other suites see can be believed.

use std::net::SocketAddr;
use std::time::Duration;

use crate::lab::roots::APPLIANCE;
use crate::lab::{Case, Cmd, Error, Expected, Host, Need, Probe, Result, Scene, Suite, Topology};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// The suite.
pub(crate) fn suite() -> Suite {
    Suite {
        name: "lab",
        about: "the lab itself: NICs, rules, reboots, and that probes tell open, refused and no answer apart",
        cases: vec![
            Case::new("a probe tells open, refused and no answer apart", street(), probes)
                .needs(&[Need::Tool("python3"), Need::Tool("nft")]),
            Case::new("a booted root keeps its files and its network over a reboot", booted(), reboots)
                .needs(&[Need::Tool("systemd-nspawn")]),
        ],
    }
}

/// A host on each of two links, and a router between them.
fn street() -> Topology {
    Topology::new()
        .link("left")
        .link("right")
        .host(
            Host::netns("a")
                .nic("eth0", "left", &["192.0.2.2/24", "2001:db8:1::2/64"])
                .route("0.0.0.0/0", "192.0.2.1")
                .route("::/0", "2001:db8:1::1"),
        )
        .host(
            Host::netns("router")
                .nic("eth0", "left", &["192.0.2.1/24", "2001:db8:1::1/64"])
                .nic("eth1", "right", &["198.51.100.1/24", "2001:db8:2::1/64"])
                .forwarding(),
        )
        .host(
            Host::netns("b")
                .nic("eth0", "right", &["198.51.100.2/24", "2001:db8:2::2/64"])
                .route("0.0.0.0/0", "198.51.100.1")
                .route("::/0", "2001:db8:2::1"),
        )
}

fn booted() -> Topology {
    Topology::new()
        .link("wire")
        .host(Host::booted("root", APPLIANCE).nic("eth0", "wire", &["192.0.2.1/24"]).enable(&["ssh.service"]))
        .host(Host::netns("outside").nic("eth0", "wire", &["192.0.2.2/24"]))
}

fn probes(scene: &mut Scene<'_>) -> Result<()> {
    let addresses = [scene.host("b")?.ipv4("eth0")?, scene.host("b")?.ipv6("eth0")?];
    let server = Cmd::new("python3").args(["-u", "-m", "http.server", "--bind", "::", "8000"]);
    let mut server = scene.spawn("b", "server", &server)?;
    server.wait_for("Serving", ANSWER_TIMEOUT)?;
    let rules = "table inet t { chain c { type filter hook input priority 0; tcp dport 8002 drop; tcp dport 8003 reject with icmpx admin-prohibited; }; }";
    scene.must("b", &Cmd::new("nft").args(["-f", "-"]).input(rules))?;
    let expected: Vec<_> = addresses
        .iter()
        .flat_map(|&ip| {
            [(8000, Probe::Open), (8001, Probe::Refused), (8002, Probe::Filtered), (8003, Probe::Unreachable)]
                .map(|(port, probe)| (SocketAddr::new(ip, port), Expected::Exactly(probe)))
        })
        .collect();
    scene.check_ports("each port is seen as it is, through a router, by IPv4 and IPv6", "a", &expected)?;
    Ok(())
}

fn reboots(scene: &mut Scene<'_>) -> Result<()> {
    let root = scene.host("root")?;
    let ssh = [(SocketAddr::new(root.ipv4("eth0")?, 22), Expected::Open)];
    let state = root.wait_booted(ANSWER_TIMEOUT)?;
    scene.check("it boots without a failed unit", state == "running", state.as_str());
    scene.check_ports("its ssh server answers on its NIC", "outside", &ssh)?;
    let boot_id = |scene: &mut Scene<'_>| -> Result<String> {
        Ok(scene
            .must("root", &Cmd::new("systemctl").args(["show", "--property=UserspaceTimestampMonotonic"]))?
            .stdout)
    };
    let before = boot_id(scene)?;
    root.put("/etc/kept", b"kept", 0o600)?;
    scene.must("root", &Cmd::new("nft").args(["add", "table", "inet", "gone"]))?;
    scene.step("reboot", |_| root.reboot())?;
    let after = boot_id(scene)?;
    scene.check("it really booted again", after != before, format!("{before} then {after}"));
    scene.check("its files are kept", root.get("/etc/kept")? == b"kept", "/etc/kept");
    scene.check_ports("its ssh server answers again", "outside", &ssh)?;
    let rules = scene.must("root", &Cmd::new("nft").args(["list", "ruleset"]))?.stdout;
    // A namespace outlives the machine in it, which a real machine's rules do not.
    scene.check("its nft rules are gone, as after a real boot", rules.is_empty(), rules.as_str());
    let links = scene.must("root", &Cmd::new("ip").args(["-brief", "address"]))?.stdout;
    if !links.contains("192.0.2.1/24") {
        return Err(Error::other(format!("the NIC lost its address: {links}")));
    }
    Ok(())
}
