//! The whole way of an appliance: preflight, install, provision, sessions, reboot, upgrade, reset, remove.

use std::net::SocketAddr;
use std::time::Duration;

use super::hands::{Control, Hands, Menu, json};
use crate::lab::{Expected, Result, Scene, Terminal};
use crate::suites::appliance::{Admin, Format, prepare};
use crate::suites::outpost::Outpost;
use crate::suites::parties::{init_zone, provision, wait_parked};
use crate::suites::snapshot::Snapshot;

/// How long a keystroke may take through the proxy and back, or a parked endpoint to come back.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// 17488 on the inner NIC only, for the inside only.
pub(super) const CONTROL: Control = Control { listen: "10.20.0.10", networks: "10.20.0.0/24" };

/// All of it.
pub(super) fn whole(scene: &mut Scene<'_>, format: Format, menu: bool) -> Result<()> {
    if format == Format::Rpm {
        scene.note(
            "NO RPM DISTRIBUTION WAS AT HAND: the rpm is installed by rpm(8) with --nodeps in a Debian root.",
        );
    }
    let admin = prepare(scene, format, "admin")?;
    let before = Snapshot::of(scene, "proxy")?;
    let mut hands = if menu { Hands::Menu(Menu::open(scene, &admin)?) } else { Hands::Verbs };

    let payload = scene.step("preflight and installation", |scene| install(scene, &mut hands, &admin))?;
    let outpost = scene.step("provisioning and a first session", |scene| first_session(scene, &payload))?;
    scene.step("nothing is wrong now", |scene| all_is_well(scene, &mut hands, &admin, "0.1.0-1"))?;
    scene.step("a reboot", |scene| {
        scene.host("proxy")?.reboot()?;
        hands.log_in_again(scene, &admin)?;
        serves(scene, &outpost, "after a reboot")?;
        all_is_well(scene, &mut hands, &admin, "0.1.0-1")
    })?;
    scene.step("an upgrade", |scene| upgrade(scene, &mut hands, &admin, &outpost))?;
    scene.step("a reset", |scene| reset(scene, &mut hands, &admin))?;
    scene.step("removal", |scene| {
        let said = hands.remove(scene, &admin)?;
        scene.check("removal says that nothing is left", said.contains("nothing of it is left"), said);
        before.check(scene, "proxy", "after removal")
    })?;
    hands.leave()
}

fn install(scene: &mut Scene<'_>, hands: &mut Hands, admin: &Admin) -> Result<String> {
    let verdicts = hands.preflight(scene, admin)?;
    scene.check("preflight finds the host ready", verdicts.contains("This host is ready"), verdicts);
    let shown = hands.install(scene, admin, "0.1.0-1", &CONTROL)?;
    let payload = json(&shown);
    scene.check("installation shows the payload", payload.is_ok(), shown);
    let payload = payload?;
    let again = hands.payload(scene, admin)?;
    scene.check(
        "the payload can be shown again",
        again.contains("\"token\""),
        "the same JSON; it holds a secret",
    );
    answers(scene, "once installed", &[17488], &[])?;
    Ok(payload)
}

fn first_session(scene: &mut Scene<'_>, payload: &str) -> Result<Outpost> {
    init_zone(scene, "module")?;
    let control = scene.host("proxy")?.ipv4("inside")?;
    let settings = ["--listen", "0.0.0.0", "--allow-module-servers", "10.20.0.0/24"];
    provision(scene, "module", payload, control, &settings)?;
    answers(scene, "once provisioned", &[17486, 17487, 17488], &[17486])?;
    let outpost = Outpost::start(scene, "module", "outpost", "203.0.113.10:17486")?;
    serves(scene, &outpost, "once provisioned")?;
    Ok(outpost)
}

/// An endpoint is parked, and ssh goes through the proxy to it.
fn serves(scene: &mut Scene<'_>, outpost: &Outpost, when: &str) -> Result<()> {
    wait_parked(scene, "module", "outpost")?;
    let ssh = outpost.ssh(&[]).arg("echo \"on $(cat /root/name)\"").limit(ANSWER_TIMEOUT);
    let output = scene.run("module", &ssh)?;
    scene.check(
        format!("{when}, ssh through the proxy reaches the endpoint"),
        output.ok() && output.stdout.trim() == "on outpost",
        output.text(),
    );
    Ok(())
}

fn all_is_well(scene: &mut Scene<'_>, hands: &mut Hands, admin: &Admin, version: &str) -> Result<()> {
    let status = hands.status(scene, admin)?;
    let good = status.contains(version) && status.contains("provisioned") && !status.contains("inactive");
    scene.check(format!("status says that {version} is provisioned and every unit is active"), good, status);
    let firewall = hands.firewall(scene, admin)?;
    let good = firewall.contains("as they should be");
    scene.check("the live firewall is as it should be", good, firewall);
    Ok(())
}

fn upgrade(scene: &mut Scene<'_>, hands: &mut Hands, admin: &Admin, outpost: &Outpost) -> Result<()> {
    let mut session = open_session(scene, outpost)?;
    let said = hands.upgrade(scene, admin, "0.1.0-2")?;
    scene.check("the upgrade names the new version", said.contains("0.1.0-2"), said);
    still_serves(scene, &mut session, "the session that was open before the upgrade goes on after it");
    answers(scene, "after the upgrade", &[17486, 17487, 17488], &[17486])?;
    serves(scene, outpost, "after the upgrade")?;
    all_is_well(scene, hands, admin, "0.1.0-2")
}

/// An ssh session through the proxy that sends back what is typed.
pub(super) fn open_session(scene: &mut Scene<'_>, outpost: &Outpost) -> Result<Terminal> {
    let ssh = outpost.ssh(&["-tt"]).arg("while read -r line; do echo \"heard $line\"; done");
    let mut session = scene.terminal("module", &ssh)?;
    session.send("one\r")?;
    session.expect("heard one", ANSWER_TIMEOUT)?;
    Ok(session)
}

/// Checks that such a session still does.
pub(super) fn still_serves(scene: &mut Scene<'_>, session: &mut Terminal, sentence: &str) -> bool {
    let heard = session.send("two\r").and_then(|()| session.expect("heard two", ANSWER_TIMEOUT));
    let seen = heard.as_ref().map_or_else(ToString::to_string, Clone::clone);
    scene.check(sentence, heard.is_ok(), seen)
}

fn reset(scene: &mut Scene<'_>, hands: &mut Hands, admin: &Admin) -> Result<()> {
    let said = hands.reset(scene, admin)?;
    scene.check("the reset says so", said.contains("belongs to no zone") || said.contains("new token"), said);
    answers(scene, "after the reset", &[17488], &[])?;
    let payload = hands.payload(scene, admin)?;
    scene.check("there is a new token", payload.contains("\"token\""), "JSON; it holds a secret");
    Ok(())
}

/// Checks what answers from the inside at the inner NIC, and from the internet at the outer one.
pub(super) fn answers(scene: &mut Scene<'_>, when: &str, inside: &[u16], outside: &[u16]) -> Result<()> {
    let proxy = scene.host("proxy")?;
    let views = [("module", proxy.ipv4("inside")?, inside), ("internet", proxy.ipv4("outside")?, outside)];
    for (from, ip, open) in views {
        let expected: Vec<_> = [17486, 17487, 17488]
            .into_iter()
            .map(|port| {
                let state = if open.contains(&port) { Expected::Open } else { Expected::Closed };
                (SocketAddr::new(ip, port), state)
            })
            .collect();
        let names: Vec<_> = open.iter().map(u16::to_string).collect();
        let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        scene.check_ports(&format!("{when}, {from} reaches {names}, and no more"), from, &expected)?;
    }
    Ok(())
}
