//! The broker, which alone may change the firewall: whom it hears, what it grants, and that it may die at any moment.

use std::time::Duration;

use super::hands::Hands;
use super::story::{CONTROL, answers};
use super::topology::topology;
use crate::lab::{Case, Cmd, Output, Result, Scene};
use crate::suites::appliance::{Format, prepare};
use crate::suites::parties::{init_zone, module, provision};

/// How long something may take that should be quick.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Sends standard input to the broker's socket and prints the answer.
const ASK: &str =
    "use IO::Socket::UNIX; my $broker = IO::Socket::UNIX->new(Peer => '/run/zone-firewall.sock') or die $!;
    print $broker <STDIN>; $broker->shutdown(1); print <$broker>;";

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "the broker hears only whom it should, and opens only what root allows",
            topology(),
            strangers,
        )
        .shows(&["R-16"]),
        Case::new("a broker that is killed in the middle leaves no half-open port", topology(), killed)
            .shows(&["R-15"]),
    ]
}

fn ask(scene: &mut Scene<'_>, user: &str, request: &str) -> Result<Output> {
    let cmd = Cmd::new("perl").args(["-e", ASK]).user(user).input(request).limit(ANSWER_TIMEOUT);
    scene.run("proxy", &cmd)
}

fn strangers(scene: &mut Scene<'_>) -> Result<()> {
    let admin = prepare(scene, Format::Deb, "admin")?;
    let payload = Hands::Verbs.install(scene, &admin, "0.1.0-1", &CONTROL)?;
    init_zone(scene, "module")?;
    let control = scene.host("proxy")?.ipv4("inside")?;
    provision(scene, "module", &payload, control, &["--listen", "0.0.0.0"])?;
    let rules = |scene: &mut Scene<'_>| -> Result<String> {
        Ok(scene.must("proxy", &Cmd::new("nft").args(["list", "ruleset"]))?.stdout)
    };
    let close = "{\"set-relay-ports\":[]}\n";
    let port = |port: u16| {
        format!(
            "{{\"set-relay-ports\":[{{\"purpose\":\"endpoint\",\"port\":{port},\"listen\":[\"0.0.0.0\"],\"networks\":[]}}]}}\n"
        )
    };
    let (ssh, high) = (port(22), port(17486));
    let attempts: [(&str, &str, &str); 7] = [
        ("a stranger's wish", "daemon", close),
        ("the relay's wish", "zone-relay", close),
        ("zone-admin's wish", "zone-admin", close),
        ("a stranger's question", "daemon", "\"verify\"\n"),
        ("a port below 1024", "zone-proxy", &ssh),
        ("words that are no request", "zone-proxy", "GET / HTTP/1.1\r\n\r\n"),
        ("a request without an end", "zone-proxy", "{\"set-relay-ports\":["),
    ];
    let before = rules(scene)?;
    for (what, user, request) in attempts {
        let output = ask(scene, user, request)?;
        let refused = output.stdout.contains("refused") && output.stdout.trim().lines().count() == 1;
        scene.check(format!("{what} is refused in one line"), refused, output.text());
    }
    let long = "[".repeat(10 * 1024 * 1024);
    let output = ask(scene, "zone-proxy", &long)?;
    scene.check("10 MB of garbage get no port", !output.stdout.contains("done"), output.text());
    scene.step("root narrows the ceiling", |scene| {
        scene.must("proxy", &Cmd::sh("sed -i 's/1024-65535/20000-65535/' /etc/zone-proxy/firewall.toml"))?;
        let output = ask(scene, "zone-proxy", &high)?;
        scene.check(
            "a port outside it is refused, by the file's name",
            output.stdout.contains("refused") && output.stdout.contains("firewall.toml"),
            output.text(),
        );
        Ok(())
    })?;
    let after = rules(scene)?;
    scene.check_equal(
        "nothing of all that changed the rules",
        &crate::suites::snapshot::ruleset(&before),
        &crate::suites::snapshot::ruleset(&after),
    );
    let journal = scene.must(
        "proxy",
        &Cmd::new("journalctl").args(["-u", "zone-firewall.service", "--no-pager", "-o", "cat"]),
    )?;
    let told = journal.stdout.lines().filter(|line| line.contains("refused")).count();
    scene.check("each refusal is in the journal", told >= 6, journal.stdout);
    Ok(())
}

fn killed(scene: &mut Scene<'_>) -> Result<()> {
    let admin = prepare(scene, Format::Deb, "admin")?;
    let mut hands = Hands::Verbs;
    let payload = hands.install(scene, &admin, "0.1.0-1", &CONTROL)?;
    init_zone(scene, "module")?;
    let control = scene.host("proxy")?.ipv4("inside")?.to_string();
    let words = ["provision", "--name", "proxy1", "--address", &control, "--listen", "0.0.0.0"];
    let command = module(scene, "module", &words)?.input(payload).limit(Duration::from_secs(90));
    // It is killed as soon as it is there, again and again.
    let killer = Cmd::sh("while :; do pkill -9 -x zone-firewall && echo killed; done");
    let mut killing = scene.spawn("proxy", "killer", &killer)?;
    let output = scene.run("module", &command)?;
    let killed = killing.wait_for("killed", ANSWER_TIMEOUT).is_ok();
    drop(killing);
    scene.must("proxy", &Cmd::sh("pkill -x -f 'sh -c while.*' || true"))?;
    scene.check("the broker was killed meanwhile", killed, "by SIGKILL");
    scene.check(
        "provisioning is refused, in words that name the firewall",
        !output.ok() && output.text().to_lowercase().contains("firewall"),
        output.text(),
    );
    answers(scene, "after the refusal", &[17488], &[])?;
    let output = scene.run("module", &command)?;
    scene.check("the same payload provisions it with a broker that lives", output.ok(), output.text());
    answers(scene, "afterwards", &[17486, 17487, 17488], &[17486, 17487])?;
    let verdict = hands.firewall(scene, &admin)?;
    scene.check("the live firewall is as it should be", verdict.contains("as they should be"), verdict);
    Ok(())
}
