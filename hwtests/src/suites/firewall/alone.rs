//! The program alone on a host, without the packages: as on an appliance that is provisioned.

use std::net::SocketAddr;
use std::time::Duration;

use crate::lab::{Cmd, Context, Expected, Output, Probe, Process, Result, Scene};

/// The ports of the appliance.
const PORTS: [u16; 3] = [17486, 17487, 17488];
/// Who lets connections in on them.
const LISTENERS: &str = r#"
import select, socket
families = {"0.0.0.0": socket.AF_INET, "::": socket.AF_INET6}
ports = (17486, 17487, 17488)
all = [socket.create_server((host, port), family=families[host]) for host in families for port in ports]
print("all listen", flush=True)
while True:
    for one in select.select(all, [], [])[0]:
        one.accept()[0].close()
"#;
/// How long that may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Root's file, and the record of relay ports.
pub(super) const RECORD: &str = r#"set -e
mkdir -p /etc/zone-proxy /var/lib/zone-firewall
chmod 700 /var/lib/zone-firewall
printf '[control]\nopen = true\nlisten = ["0.0.0.0", "::"]\n' > /etc/zone-proxy/firewall.toml
port() { printf '{"purpose":"%s","port":%s,"listen":["0.0.0.0","::"],"networks":[]}' "$@"; }
echo "{\"version\":1,\"ports\":[$(port endpoint 17486),$(port module-server 17487)]}" > /var/lib/zone-firewall/relay-ports.json
"#;

/// Puts the program on host `proxy`, and lets something listen on all its ports while the handle lives.
pub(super) fn install(scene: &mut Scene<'_>) -> Result<Process> {
    let program = scene.places().program("zone-firewall");
    let bytes = std::fs::read(&program).during(|| format!("can't read {}", program.display()))?;
    scene.host("proxy")?.put("/usr/bin/zone-firewall", &bytes, 0o755)?;
    sh(scene, RECORD)?;
    let mut listeners = scene.spawn("proxy", "listeners", &Cmd::new("python3").args(["-c", LISTENERS]))?;
    listeners.wait_for("all listen", START_TIMEOUT)?;
    Ok(listeners)
}

/// Checks all ports as they are seen by a host, on the IPv4 address of one of the proxy's NICs.
pub(super) fn ports(
    scene: &mut Scene<'_>,
    sentence: &str,
    from: &str,
    nic: &str,
    probe: Probe,
) -> Result<()> {
    let address = scene.host("proxy")?.ipv4(nic)?;
    let expected = PORTS.map(|port| (SocketAddr::new(address, port), Expected::Exactly(probe)));
    scene.check_ports(sentence, from, &expected).map(|_| ())
}

/// Checks that our rules are as they should be. What others deny is another matter.
pub(super) fn is_as_desired(scene: &mut Scene<'_>, when: &str) -> Result<()> {
    let verified = verify(scene)?;
    let drift = ["missing", "unexpected", "altered"];
    let found = verified.stdout.lines().find(|line| drift.iter().any(|kind| line.starts_with(kind)));
    scene.check(format!("{when}, the rules are as they should be"), found.is_none(), verified.text());
    let again = sh(scene, "zone-firewall apply")?;
    let changes = ["add ", "change ", "load ", "remove ", "+ ", "- "];
    let changed = again.stdout.lines().find(|line| changes.iter().any(|change| line.starts_with(change)));
    scene.check(format!("{when}, there is nothing to change"), changed.is_none(), again.text());
    Ok(())
}

/// What `zone-firewall verify` says.
pub(super) fn verify(scene: &mut Scene<'_>) -> Result<Output> {
    scene.run("proxy", &Cmd::new("zone-firewall").arg("verify"))
}

/// A line of the shell on the proxy, which has to succeed.
pub(super) fn sh(scene: &mut Scene<'_>, line: &str) -> Result<Output> {
    scene.must("proxy", &Cmd::sh(line))
}
