//! What each process may, and that sessions outlive control.

use super::hands::Hands;
use super::story::{CONTROL, open_session, still_serves};
use crate::lab::{Cmd, Result, Scene};
use crate::suites::appliance::{Format, pids, prepare};
use crate::suites::outpost::Outpost;
use crate::suites::parties::{START_TIMEOUT, init_zone, provision, wait_parked};

/// `CAP_NET_ADMIN` (capabilities(7)) as a bit of a mask.
const NET_ADMIN: u64 = 1 << 12;

/// Every thread's credentials and capabilities (proc_pid_status(5)), one line each.
const THREADS: &str = r#"
for thread in /proc/"$1"/task/*; do
    # A thread may end meanwhile.
    cat "$thread/status" 2>/dev/null |
        awk '/^(Name|Uid|Gid|NoNewPrivs|Seccomp|Cap...):/ { printf "%s%s ", $1, $2 } END { if (NR) print "" }'
done
"#;

pub(super) fn play(scene: &mut Scene<'_>) -> Result<()> {
    let admin = prepare(scene, Format::Deb, "admin")?;
    let mut hands = Hands::Verbs;
    let shown = hands.install(scene, &admin, "0.1.0-1", &CONTROL)?;
    init_zone(scene, "module")?;
    let control = scene.host("proxy")?.ipv4("inside")?;
    provision(scene, "module", &shown, control, &["--listen", "0.0.0.0"])?;
    let outpost = Outpost::start(scene, "module", "outpost", "203.0.113.10:17486")?;
    wait_parked(scene, "module", "outpost")?;
    let mut session = open_session(scene, &outpost)?;

    scene.step("privileges as the kernel tells them", privileges)?;
    let relays = pids(scene, "zone-relay")?;
    scene.check("one relay serves", relays.len() == 1, format!("{relays:?}"));
    let endings: [(&str, &str); 2] = [
        ("kill -9 of control", "systemctl kill --kill-who=main --signal=KILL zone-proxy.service"),
        ("a restart of control", "systemctl restart zone-proxy.service"),
    ];
    for (what, command) in endings {
        scene.step(what, |scene| {
            let before = pids(scene, "zone-proxy")?;
            scene.must("proxy", &Cmd::sh(command))?;
            let host = scene.host("proxy")?;
            let status = Cmd::new("zone-proxy").args(["status", "--json"]);
            let back = scene.until(START_TIMEOUT, || {
                let now = pids(scene, "zone-proxy").unwrap_or_default();
                !now.is_empty() && now != before && host.run(&status).is_ok_and(|output| output.ok())
            });
            let now = pids(scene, "zone-proxy")?;
            scene.check("control is another process afterwards", back, format!("{before:?} then {now:?}"));
            let now = pids(scene, "zone-relay")?;
            scene.check("the relay is the same process", now == relays, format!("{relays:?} then {now:?}"));
            still_serves(scene, &mut session, "the same session goes on");
            let ssh = outpost.ssh(&[]).arg("cat /root/name");
            let output = scene.run("module", &ssh)?;
            scene.check("a new session opens", output.stdout.trim() == "outpost", output.text());
            Ok(())
        })?;
    }
    Ok(())
}

fn privileges(scene: &mut Scene<'_>) -> Result<()> {
    // The broker runs while somebody asks, and a little longer.
    scene.run("proxy", &Cmd::new("zone-firewall").arg("verify").user("zone-admin"))?;
    for (program, user, most) in [
        ("zone-firewall", "zone-firewall", NET_ADMIN),
        ("zone-proxy", "zone-proxy", 0),
        ("zone-relay", "zone-relay", 0),
    ] {
        let uid = scene.must("proxy", &Cmd::new("id").args(["-u", user]))?.stdout;
        let found = pids(scene, program)?;
        scene.check(format!("{program} runs"), !found.is_empty(), format!("{found:?}"));
        for pid in found {
            let lines = scene.must("proxy", &Cmd::sh(THREADS).args(["sh", &pid.to_string()]))?.stdout;
            let named = if most == 0 { "no capability" } else { "CAP_NET_ADMIN and no other capability" };
            let good = |line: &str| is_confined(line, uid.trim(), most);
            scene.check(
                format!("every thread of {program} is user {user}'s, can gain nothing, and has {named}"),
                !lines.trim().is_empty() && lines.lines().all(good),
                lines,
            );
        }
    }
    Ok(())
}

/// Whether a thread has this user, no more than these capabilities in any set, and can't gain more.
fn is_confined(line: &str, uid: &str, most: u64) -> bool {
    let field = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix(':'));
    let sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
    let within = |set: &&str| {
        field(set).and_then(|mask| u64::from_str_radix(mask, 16).ok()).is_some_and(|mask| mask & !most == 0)
    };
    field("Uid") == Some(uid) && field("NoNewPrivs") == Some("1") && sets.iter().all(within)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_capability_too_many_is_seen() {
        let line = |bounding: &str| {
            format!(
                "Name:x Uid:990 Gid:990 CapInh:0 CapPrm:1000 CapEff:1000 CapBnd:{bounding} CapAmb:1000 NoNewPrivs:1 Seccomp:2 "
            )
        };
        assert!(is_confined(&line("1000"), "990", NET_ADMIN));
        assert!(!is_confined(&line("1001"), "990", NET_ADMIN));
        assert!(!is_confined(&line("1000"), "0", NET_ADMIN));
        assert!(!is_confined(&line("1000"), "990", 0));
        assert!(!is_confined("", "990", 0));
    }
}
