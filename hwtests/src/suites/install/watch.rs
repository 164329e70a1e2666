//! The watch of the broker as the packaged unit runs it: from the boot on, unasked, and with no more rights than it had.

use std::time::Duration;

use super::hands::Hands;
use super::story::{CONTROL, answers};
use crate::lab::{Cmd, Result, Scene};
use crate::suites::appliance::{Format, pids, prepare};
use crate::suites::parties::{START_TIMEOUT, init_zone, metric, provision};

/// How long a repair may take after the change.
const REPAIR_LIMIT_MS: u64 = 1_000;
/// For one kind of drift, with the time until nothing is watched that is older.
const DRIFT_TIMEOUT: Duration = Duration::from_secs(30);

/// What others do to the rules, and what must hold again afterwards.
const DRIFT: [(&str, &str, &str); 7] = [
    ("our table is deleted", "nft delete table inet zone_proxy", "nft list table inet zone_proxy"),
    (
        "our table is flushed",
        "nft flush table inet zone_proxy",
        "nft list table inet zone_proxy | grep 'tcp dport'",
    ),
    ("our table is made dormant", "nft 'add table inet zone_proxy { flags dormant; }'", NOTHING_TO_DO),
    ("a chain that drops comes", "nft -f /root/drops.nft", "nft list chain inet others in | grep 17486"),
    ("our rules are flushed", "nft flush chain inet others in", "nft list chain inet others in | grep 17486"),
    ("a drop is put above ours", "nft insert rule inet others in counter drop", NOTHING_TO_DO),
    ("everything is flushed", "nft flush ruleset", "nft list table inet zone_proxy"),
];

/// Holds where all rules are as they should be, whether or not somebody listens.
const NOTHING_TO_DO: &str = "zone-firewall plan | grep 'nothing to change'";

/// Makes a change and prints how many milliseconds it took until all is well.
const MEASURE: &str = "sleep 2; eval \"$1\"; begin=$(date +%s%N); until eval \"$2\" >/dev/null 2>&1; do sleep 0.01; done; \
    echo $((($(date +%s%N) - begin) / 1000000))";

/// A firewall that drops what nobody lets in.
const DROPS: &str = "table inet others {\n\tchain in {\n\t\t\
    type filter hook input priority 0; policy drop;\n\t\tct state established,related accept\n\t\t\
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept\n\t\ttcp dport 22 accept\n\t}\n}\n";

pub(super) fn play(scene: &mut Scene<'_>) -> Result<()> {
    let admin = prepare(scene, Format::Deb, "admin")?;
    let payload = Hands::Verbs.install(scene, &admin, "0.1.0-1", &CONTROL)?;
    init_zone(scene, "module")?;
    let control = scene.host("proxy")?.ipv4("inside")?;
    provision(scene, "module", &payload, control, &["--listen", "0.0.0.0"])?;
    scene.host("proxy")?.put("/root/drops.nft", DROPS.as_bytes(), 0o600)?;
    let more = "printf '\\n[watch]\\nrepairs_per_minute = 60\\n' >> /etc/zone-proxy/firewall.toml";
    scene.must("proxy", &Cmd::sh(more))?;

    scene.step("a boot at which control does not start", |scene| {
        scene.must("proxy", &Cmd::sh("systemctl disable zone-proxy.service zone-relay.socket"))?;
        scene.host("proxy")?.reboot()?;
        let host = scene.host("proxy")?;
        let up = scene.until(START_TIMEOUT, || {
            host.run(&Cmd::sh("systemctl is-active zone-firewall.service")).is_ok_and(|output| output.ok())
        });
        scene.check("the broker runs, though nobody has asked it", up, "");
        let requests = scene
            .run("proxy", &Cmd::sh("journalctl -b -u zone-firewall -o cat | grep -c 'audit: request'"))?;
        scene.check_equal("nobody has asked it", "0", requests.stdout.trim());
        drift(scene, "after a boot")?;
        scene.must("proxy", &Cmd::sh("systemctl enable --now zone-relay.socket zone-proxy.service"))?;
        Ok(())
    })?;
    scene.step("kill -9 of the broker", |scene| {
        let before = pids(scene, "zone-firewall")?;
        scene.must("proxy", &Cmd::sh("systemctl kill --signal=KILL zone-firewall.service"))?;
        let back = scene.until(START_TIMEOUT, || {
            pids(scene, "zone-firewall").is_ok_and(|now| !now.is_empty() && now != before)
        });
        scene.check("systemd starts it again", back, format!("{before:?}"));
        Ok(())
    })?;
    scene.step("while all is up", |scene| {
        drift(scene, "while all is up")?;
        answers(scene, "after all that", &[17486, 17487, 17488], &[17486, 17487])?;
        let counted = |scene: &Scene<'_>, name: &str| metric(scene, "module", control, name);
        let repairs = counted(scene, "zone_proxy_firewall_repairs_total")?;
        let watched = counted(scene, "zone_proxy_firewall_watched")?;
        scene.check(
            "control's metrics tell of the repairs",
            repairs >= DRIFT.len() as u64 && watched == 1,
            format!("zone_proxy_firewall_repairs_total {repairs}, zone_proxy_firewall_watched {watched}"),
        );
        Ok(())
    })?;
    confined(scene)
}

fn drift(scene: &mut Scene<'_>, when: &str) -> Result<()> {
    for (what, change, good) in DRIFT {
        let said = scene.run("proxy", &Cmd::sh(MEASURE).args(["sh", change, good]).limit(DRIFT_TIMEOUT))?;
        let took: Option<u64> = said.stdout.trim().parse().ok();
        let held = took.is_some_and(|took| took < REPAIR_LIMIT_MS);
        scene.check(
            format!("{when}, {what}: put back in under a second"),
            held,
            format!("{} ms", said.text().trim()),
        );
    }
    // A line comes once the change was judged again, which is after the rules are back.
    let lines = "journalctl -b -u zone-firewall -o cat | grep 'were put back'";
    let told = || scene.host("proxy").and_then(|host| host.run(&Cmd::sh(lines))).map(|said| said.stdout);
    let held = scene.until(START_TIMEOUT, || told().is_ok_and(|told| told.lines().count() >= DRIFT.len()));
    let told = told()?;
    scene.check(format!("{when}, each is a line of the journal"), held, told);
    Ok(())
}

/// That the unit is no more exposed than it was, and holds within its bounds.
fn confined(scene: &mut Scene<'_>) -> Result<()> {
    let security = scene
        .run("proxy", &Cmd::sh("systemd-analyze security --no-pager zone-firewall.service | tail -1"))?;
    scene.note(security.stdout.trim());
    let show = "systemctl show zone-firewall.service -p MemoryCurrent,MemoryPeak,MemoryMax,TasksCurrent,TasksMax,NRestarts";
    let shown = scene.run("proxy", &Cmd::sh(show))?.stdout;
    let bounded = shown.contains("MemoryMax=1073741824") && shown.contains("TasksMax=64");
    scene.check("memory and tasks are bounded", bounded, shown);
    Ok(())
}
