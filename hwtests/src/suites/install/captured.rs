//! A relay and control under their packaged units, taken over by somebody who has them make any system call; and the helper
//! by which control makes a relay end.

use std::time::Duration;

use super::hands::Hands;
use super::story::CONTROL;
use super::topology::topology_with;
use crate::lab::cleanup::PROGRAMS;
use crate::lab::{Case, Cmd, Need, Output, Result, Scene};
use crate::suites::appliance::{Format, pids, prepare};
use crate::suites::parties::{SHARED, START_TIMEOUT, init_zone, module, provision};

/// For every attempt, each with a fresh process.
const CAPTURE_TIMEOUT: Duration = Duration::from_secs(540);
/// For a revocation, which waits for a relay that does not follow.
const REVOKE_TIMEOUT: Duration = Duration::from_secs(90);
/// The helper's socket.
const HELPER: &str = "/run/zone-proxy/relay-end.sock";

pub(super) fn cases() -> Vec<Case> {
    let topology = || topology_with(|proxy| proxy.share(PROGRAMS, SHARED));
    let cases = vec![
        Case::new(
            "whoever takes the packaged relay over reaches nothing by any system call",
            topology(),
            |scene| captured(scene, "relay", "203.0.113.10"),
        )
        .shows(&["R-1"]),
        Case::new(
            "whoever takes the packaged control over reaches Unix sockets and nothing else",
            topology(),
            |scene| captured(scene, "control", CONTROL.listen),
        )
        .shows(&["R-1"]),
        Case::new(
            "a relay that does not follow is ended by the helper, which ends nothing else",
            topology(),
            helper,
        ),
    ];
    cases.into_iter().map(|case| case.needs(&[Need::Program("zone-captured")])).collect()
}

/// A provisioned appliance.
fn appliance(scene: &mut Scene<'_>) -> Result<()> {
    let admin = prepare(scene, Format::Deb, "admin")?;
    let payload = Hands::Verbs.install(scene, &admin, "0.1.0-1", &CONTROL)?;
    init_zone(scene, "module")?;
    let control = scene.host("proxy")?.ipv4("inside")?;
    provision(scene, "module", &payload, control, &["--listen", "0.0.0.0", "::1"])?;
    let landlock = scene.must("proxy", &Cmd::sh("zone-proxy status | grep -o 'landlock: .*'"))?.stdout;
    scene.check("both processes say what came of landlock", landlock.lines().count() == 2, &landlock);
    if !landlock.contains("restricted") {
        scene.note("landlock can't be used in this root: what it closes is judged by the system tests alone");
    }
    Ok(())
}

fn captured(scene: &mut Scene<'_>, process: &str, address: &str) -> Result<()> {
    appliance(scene)?;
    let program = format!("{SHARED}/zone-captured");
    let output = scene.run("proxy", &Cmd::new(program).args([process, address]).limit(CAPTURE_TIMEOUT))?;
    scene.check(format!("every attempt with {process} comes to what it should"), output.ok(), output.text());
    Ok(())
}

/// What a user of the appliance gets from the helper, with a pidfd of a process or none.
fn ask(scene: &mut Scene<'_>, user: &str, process: &str) -> Result<Output> {
    let words = ["end", HELPER, process];
    let words = words.into_iter().filter(|word| !word.is_empty());
    scene.run(
        "proxy",
        &Cmd::new(format!("{SHARED}/zone-captured")).args(words).user(user).limit(START_TIMEOUT),
    )
}

fn helper(scene: &mut Scene<'_>) -> Result<()> {
    appliance(scene)?;
    let relays = pids(scene, "zone-relay")?;
    scene.check("one relay serves", relays.len() == 1, format!("{relays:?}"));
    let relay = relays.first().copied().unwrap_or_default().to_string();
    let control = pids(scene, "zone-proxy")?.first().copied().unwrap_or_default().to_string();
    scene.step("whom the helper refuses", |scene| {
        let wrong = [
            ("a pidfd of control", "zone-proxy", control.as_str(), "refused: process"),
            ("a pidfd of process 1", "zone-proxy", "1", "refused: process 1 "),
            ("no pidfd", "zone-proxy", "", "refused: a request brings one pidfd, and this one brought 0"),
            ("a stranger", "daemon", relay.as_str(), "not asked: Permission denied"),
            ("the broker's user", "zone-firewall", relay.as_str(), "not asked: Permission denied"),
            ("the relays' own user", "zone-relay", relay.as_str(), "not asked: Permission denied"),
        ];
        for (what, user, process, words) in wrong {
            let output = ask(scene, user, process)?;
            scene.check(
                format!("{what} ends nothing, and is told why"),
                output.stdout.starts_with(words),
                output.text(),
            );
        }
        // The helper is a zone-relay itself, and may not have ended yet.
        scene.until(START_TIMEOUT, || pids(scene, "zone-relay").is_ok_and(|now| now == relays));
        let now = pids(scene, "zone-relay")?;
        scene.check("the relay is the same process", now == relays, format!("{relays:?} then {now:?}"));
        let now = pids(scene, "zone-proxy")?;
        scene.check(
            "so is control",
            now.first().is_some_and(|pid| pid.to_string() == control),
            format!("{now:?}"),
        );
        Ok(())
    })?;
    scene.step("a relay that stands still while somebody is revoked", |scene| {
        let issue = module(
            scene,
            "module",
            &["issue", "endpoint", "lost", "--out", "lost", "--proxy", "203.0.113.10:17486"],
        )?;
        scene.must("module", &issue)?;
        let before = starts_of_the_helper(scene)?;
        scene.must("proxy", &Cmd::new("kill").args(["-STOP", &relay]))?;
        let revoke = module(scene, "module", &["revoke", "endpoint", "lost"])?.limit(REVOKE_TIMEOUT);
        let output = scene.run("module", &revoke)?;
        scene.check("the revocation is in force when the command says so", output.ok(), output.text());
        let replaced = scene.until(START_TIMEOUT, || {
            pids(scene, "zone-relay").is_ok_and(|now| now.len() == 1 && now != relays)
        });
        let now = pids(scene, "zone-relay")?;
        scene.check(
            "the relay is gone, and another one serves",
            replaced,
            format!("{relays:?} then {now:?}"),
        );
        let after = starts_of_the_helper(scene)?;
        scene.check(
            "the helper was started for it",
            after > before,
            format!("{before} starts, then {after}"),
        );
        let status = Cmd::new("zone-proxy").arg("status");
        let host = scene.host("proxy")?;
        scene.until(START_TIMEOUT, || host.run(&status).is_ok_and(|shown| !shown.stdout.contains("warning")));
        let status = scene.must("proxy", &status)?.stdout;
        scene.check("status has nothing to warn of then", !status.contains("warning"), status);
        Ok(())
    })
}

/// How often the service manager has started the helper.
fn starts_of_the_helper(scene: &mut Scene<'_>) -> Result<usize> {
    let journal = Cmd::new("journalctl").args(["-u", "zone-relay-end@*", "--no-pager", "-o", "cat"]);
    let journal = scene.must("proxy", &journal)?.stdout;
    Ok(journal.lines().filter(|line| line.starts_with("Started")).count())
}
