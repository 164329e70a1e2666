//! What goes wrong on an appliance is refused or undone, named in one line, and leaves the host as it was.

use std::time::Duration;

use super::hands::{Hands, Menu, json};
use super::story::{CONTROL, answers, open_session, still_serves};
use super::topology::topology;
use crate::lab::{Case, Cmd, Output, Result, Scene};
use crate::suites::appliance::{Admin, DROP, Format, INSTALL_TIMEOUT, KEYS, fill_drop_folder, prepare};
use crate::suites::outpost::Outpost;
use crate::suites::parties::{init_zone, provision, wait_parked};
use crate::suites::snapshot::Snapshot;

/// How long something wrong may take to be noticed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// What is thrown at a prompt, bytes.
const GARBAGE: usize = 10 * 1024 * 1024;
const INSTALL: &str = "install 0.1.0-1 --listen 10.20.0.10 --allow 10.20.0.0/24";

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("a package that is not what was signed is never installed", topology(), packages)
            .shows(&["R-44"]),
        Case::new("a host that is not ready is left alone", topology(), not_ready).shows(&["R-45"]),
        Case::new("an installation that runs out of room is undone", topology(), full_disk).shows(&["R-45"]),
        Case::new(
            "an upgrade to a version that does not serve is undone, and sessions live on",
            topology(),
            bad_upgrade,
        )
        .shows(&["R-45"]),
        Case::new("nothing that is typed or sent to the login gets past the menu", topology(), garbage)
            .shows(&["R-42", "R-43"]),
    ]
}

/// Checks that it was refused in words for a person, and that the host is as it was before.
fn refused(
    scene: &mut Scene<'_>,
    what: &str,
    output: &Output,
    words: &[&str],
    before: &Snapshot,
) -> Result<()> {
    let said = output.stderr.trim();
    let named = words.iter().any(|word| said.to_lowercase().contains(word));
    scene.check(
        format!("{what}: refused with 1, and the line names it"),
        output.code() == 1 && named && !said.contains("panicked"),
        format!("exit code {}\n{said}", output.code()),
    );
    before.check(scene, "proxy", &format!("{what}: afterwards")).map(|_| ())
}

fn packages(scene: &mut Scene<'_>) -> Result<()> {
    let admin = prepare(scene, Format::Deb, "admin")?;
    let deb = format!("{DROP}/zone-proxy_0.1.0-1_amd64.deb");
    let sums = format!("cd {DROP} && sha256sum zone-* > SHA256SUMS");
    let attempts: [(&str, String, &[&str]); 6] = [
        ("an unsigned package", format!("rm {DROP}/SHA256SUMS.minisig"), &["minisig", "sign"]),
        (
            "a tampered package",
            format!("printf x | dd of={deb} bs=1 seek=5000 conv=notrunc status=none"),
            &["is not what was signed"],
        ),
        ("a truncated package", format!("truncate -s 100000 {deb}"), &["is not what was signed"]),
        (
            "a tampered package with new sums",
            format!("printf x | dd of={deb} bs=1 seek=5000 conv=notrunc status=none; {sums}"),
            &["sign"],
        ),
        ("a truncated signature", format!("truncate -s 60 {DROP}/SHA256SUMS.minisig"), &["sign"]),
        (
            "a package that the sums do not name",
            format!("sed -i '/zone-proxy_0.1.0-1_/d' {DROP}/SHA256SUMS"),
            &["sign", "no ", "not"],
        ),
    ];
    for (what, spoil, words) in &attempts {
        scene.step(what, |scene| {
            scene.must("proxy", &Cmd::sh(spoil.as_str()))?;
            let before = Snapshot::of(scene, "proxy")?;
            let output = admin.verb(scene, INSTALL, b"")?;
            refused(scene, what, &output, words, &before)?;
            fill_drop_folder(scene)
        })?;
    }
    let what = "a package signed by somebody else";
    scene.step(what, |scene| {
        sign_anew(scene)?;
        let before = Snapshot::of(scene, "proxy")?;
        let output = admin.verb(scene, INSTALL, b"")?;
        refused(scene, what, &output, &["key", "sign"], &before)
    })
}

/// Sums up and signs the drop folder with a new key, and returns the public one, which nobody trusts yet.
fn sign_anew(scene: &mut Scene<'_>) -> Result<Vec<u8>> {
    let dir = scene.host("admin")?.dir().join("signing").display().to_string();
    scene.must("proxy", &Cmd::sh(format!("cd {DROP} && sha256sum zone-* > SHA256SUMS")))?;
    let sums = scene.host("proxy")?.get(&format!("{DROP}/SHA256SUMS"))?;
    scene.host("admin")?.put(&format!("{dir}/SHA256SUMS"), &sums, 0o644)?;
    let sign = format!(
        "cd {dir} && minisign -G -W -f -p key.pub -s key >/dev/null && minisign -S -m SHA256SUMS -x signature -s key"
    );
    scene.must("admin", &Cmd::sh(sign))?;
    let signature = scene.host("admin")?.get(&format!("{dir}/signature"))?;
    scene.host("proxy")?.put(&format!("{DROP}/SHA256SUMS.minisig"), &signature, 0o644)?;
    scene.host("admin")?.get(&format!("{dir}/key.pub"))
}

/// A package of version 0.1.0-3 whose zone-proxy does nothing but fail.
const BROKEN: &str = r"set -e
cd /root && dpkg-deb -R $1/zone-proxy_0.1.0-1_amd64.deb broken
sed -i 's/^Version: .*/Version: 0.1.0-3/' broken/DEBIAN/control
printf '#!/bin/sh
echo this version is broken >&2
exit 1
' > broken/usr/bin/zone-proxy
dpkg-deb --root-owner-group -b broken $1/zone-proxy_0.1.0-3_amd64.deb && rm -r broken
";

fn bad_upgrade(scene: &mut Scene<'_>) -> Result<()> {
    let admin = prepare(scene, Format::Deb, "admin")?;
    let mut hands = Hands::Verbs;
    let shown = hands.install(scene, &admin, "0.1.0-1", &CONTROL)?;
    init_zone(scene, "module")?;
    let control = scene.host("proxy")?.ipv4("inside")?;
    provision(scene, "module", &json(&shown)?, control, &["--listen", "0.0.0.0"])?;
    let outpost = Outpost::start(scene, "module", "outpost", "203.0.113.10:17486")?;
    wait_parked(scene, "module", "outpost")?;
    let mut session = open_session(scene, &outpost)?;
    scene.must("proxy", &Cmd::sh(BROKEN).args(["sh", DROP]).limit(INSTALL_TIMEOUT))?;
    let key = sign_anew(scene)?;
    scene.host("proxy")?.put(&format!("{KEYS}/lab.pub"), &key, 0o644)?;
    let output = admin.verb(scene, "upgrade 0.1.0-3", b"")?;
    let undone = output.code() == 1 && output.stderr.contains("What had been done was undone");
    scene.check("the upgrade is undone, and says why", undone, output.text());
    let version = admin.must(scene, "show version", b"")?.stdout;
    scene.check("the old version is back", version.contains("zone-proxy 0.1.0-1"), version);
    still_serves(scene, &mut session, "the session that was open goes on");
    answers(scene, "after the way back", &[17486, 17487, 17488], &[17486, 17487])?;
    let ssh = outpost.ssh(&[]).arg("cat /root/name").limit(ANSWER_TIMEOUT);
    let output = scene.run("module", &ssh)?;
    scene.check("a new session opens", output.stdout.trim() == "outpost", output.text());
    let verdict = hands.firewall(scene, &admin)?;
    scene.check("the live firewall is as it should be", verdict.contains("as they should be"), verdict);
    Ok(())
}

fn not_ready(scene: &mut Scene<'_>) -> Result<()> {
    let admin = prepare(scene, Format::Deb, "admin")?;
    for port in [17488_u16, 17486] {
        let what = format!("port {port} is taken");
        scene.step(&what, |scene| {
            // Any program that listens will do.
            let cmd = Cmd::new("/usr/sbin/sshd").args(["-D", "-e", "-p", &port.to_string()]);
            let mut somebody = scene.spawn("proxy", "somebody", &cmd)?;
            somebody.wait_for("Server listening", ANSWER_TIMEOUT)?;
            let before = Snapshot::of(scene, "proxy")?;
            let output = admin.verb(scene, INSTALL, b"")?;
            refused(scene, &what, &output, &[&port.to_string()], &before)
        })?;
    }
    let what = "sshd would serve files past the menu";
    scene.step(what, |scene| {
        // The sshd that runs goes on by what it read when it started.
        let file = "/etc/ssh/sshd_config.d/00-admins.conf";
        scene.host("proxy")?.put(file, b"Match User zone-admin\n    ForceCommand internal-sftp\n", 0o644)?;
        let before = Snapshot::of(scene, "proxy")?;
        let output = admin.verb(scene, INSTALL, b"")?;
        refused(scene, what, &output, &["forcecommand is internal-sftp"], &before)?;
        scene.must("proxy", &Cmd::sh(format!("rm {file}")))?;
        let verdicts = admin.verb(scene, "preflight", b"")?;
        let line = verdicts.stdout.lines().find(|line| line.starts_with("OK") && line.contains("ssh login"));
        scene.check("without that, preflight has nothing against sshd", line.is_some(), verdicts.text());
        Ok(())
    })?;
    let what = "there is no nft";
    scene.step(what, |scene| {
        scene.must("proxy", &Cmd::sh("mv /usr/sbin/nft /usr/sbin/nft.away"))?;
        let output = admin.verb(scene, INSTALL, b"")?;
        let verdicts = admin.verb(scene, "preflight", b"")?;
        scene.must("proxy", &Cmd::sh("mv /usr/sbin/nft.away /usr/sbin/nft"))?;
        let line = verdicts.stdout.lines().find(|line| line.starts_with("FAIL") && line.contains("nft"));
        scene.check("preflight says that nft is missing, and what to do", line.is_some(), verdicts.text());
        let said = output.stderr.to_lowercase();
        scene.check("installation is refused for it", output.code() == 1 && said.contains("nft"), said);
        answers(scene, "without nft", &[], &[])
    })
}

fn full_disk(scene: &mut Scene<'_>) -> Result<()> {
    let admin = prepare(scene, Format::Deb, "admin")?;
    let before = Snapshot::of(scene, "proxy")?;
    // Room that is measured on /usr and /var is there; it is lacking just where the package needs it.
    for (what, dir) in [
        ("no room for programs", "/usr/bin"),
        ("no room for the package's verified copy", "/var/lib/zone-installer"),
    ] {
        scene.step(what, |scene| {
            let fill = format!(
                "mkdir -p /run/small && mount -t tmpfs -o size=3m tmpfs /run/small && mkdir /run/small/upper /run/small/work && \
                 mount -t overlay -o lowerdir={dir},upperdir=/run/small/upper,workdir=/run/small/work overlay {dir}"
            );
            scene.must("proxy", &Cmd::sh(fill))?;
            let output = admin.verb(scene, INSTALL, b"");
            scene.must("proxy", &Cmd::sh(format!("umount -l {dir}; umount -l /run/small; rmdir /run/small")))?;
            refused(scene, what, &output?, &["room", "space", "full"], &before)
        })?;
    }
    let output = admin.verb(scene, INSTALL, b"")?;
    scene.check("with room again, it installs", output.ok(), output.stderr.as_str());
    Ok(())
}

fn garbage(scene: &mut Scene<'_>) -> Result<()> {
    let admin = prepare(scene, Format::Deb, "admin")?;
    let before = Snapshot::of(scene, "proxy")?;
    scene.step("wrong answers at the menu", |scene| wrong_answers(scene, &admin))?;
    scene.step("10 MB of garbage", |scene| {
        let mut bytes: Vec<u8> = (0..GARBAGE).map(|at| u8::try_from(at * 7 % 251).unwrap_or(0)).collect();
        bytes.extend_from_slice(b"\rZ\r");
        let cmd = admin.ssh(&["-tt"]).input(bytes).limit(Duration::from_secs(60));
        // How it ends is the terminal's business; that it ends is ours.
        let ended = scene.host("admin")?.run(&cmd);
        let seen = ended.as_ref().map_or_else(ToString::to_string, |output| format!("{}", output.status));
        scene.check("the login ends", ended.is_ok(), seen);
        let output = admin.verb(scene, "preflight", &vec![b'y'; GARBAGE])?;
        scene.check("a verb reads none of it", output.ok(), output.text());
        let output = admin.verb(scene, "remove", &vec![b'y'; GARBAGE])?;
        scene.check("a confirmation is none", output.code() == 1, output.text());
        Ok(())
    })?;
    scene.step("commands that are no verbs", |scene| {
        let long = format!("install {}", "1".repeat(100_000));
        for words in [
            "id",
            "sh -c id",
            "preflight; id",
            "preflight $(id)",
            "status `id`",
            "preflight | id",
            "-c id",
            "menu",
            &long,
        ] {
            let output = admin.verb(scene, words, b"")?;
            let text = output.text();
            let shown: String = words.chars().take(40).collect();
            scene.check(
                format!("`{shown}` runs nothing"),
                !output.ok() && !text.contains("uid=") && !text.contains("panicked"),
                text,
            );
        }
        Ok(())
    })?;
    for subsystem in ["internal-sftp", "/usr/lib/openssh/sftp-server"] {
        scene.step(&format!("other ways in, with subsystem {subsystem}"), |scene| {
            let serve = format!(
                "cp -p /etc/ssh/sshd_config /run/sshd_config && sed -i 's|^Subsystem.*|Subsystem sftp {subsystem}|' \
                 /etc/ssh/sshd_config && systemctl reload ssh"
            );
            scene.must("proxy", &Cmd::sh(serve))?;
            other_ways(scene, &admin)?;
            let back = "cp -p /run/sshd_config /etc/ssh/sshd_config && rm /run/sshd_config && systemctl reload ssh";
            scene.must("proxy", &Cmd::sh(back)).map(drop)
        })?;
    }
    before.check(scene, "proxy", "after all that").map(|_| ())
}

fn wrong_answers(scene: &mut Scene<'_>, admin: &Admin) -> Result<()> {
    let mut menu = Menu::open(scene, admin)?;
    for keys in ["X\r", "A-A-99\r", "$(id)\r", "\u{1b}[A\u{1b}[B\r", "\u{3}", "\u{1a}", "\u{1c}"] {
        let terminal = menu.terminal();
        terminal.send(keys)?;
        terminal.expect("Z  log out", ANSWER_TIMEOUT)?;
        terminal.expect("> ", ANSWER_TIMEOUT)?;
    }
    // At a question: a wrong version twice, then Ctrl-C.
    let terminal = menu.terminal();
    terminal.send("A-A-2\r")?;
    for keys in ["9.9.9-9\r", &format!("{}\r", "x".repeat(3000)), "\u{3}"] {
        terminal.expect("Version [", ANSWER_TIMEOUT)?;
        terminal.expect("> ", ANSWER_TIMEOUT)?;
        terminal.send(keys)?;
    }
    terminal.expect("Interrupted", ANSWER_TIMEOUT)?;
    terminal.expect("> ", ANSWER_TIMEOUT)?;
    // The removal of nothing, not confirmed.
    terminal.send("A-A-0\r")?;
    terminal.expect("Type yes to go on", ANSWER_TIMEOUT)?;
    terminal.send("YES\r")?;
    terminal.expect("Nothing was done", ANSWER_TIMEOUT)?;
    terminal.expect("> ", ANSWER_TIMEOUT)?;
    terminal.send("\u{4}")?;
    let ended = terminal.wait(ANSWER_TIMEOUT);
    let text = terminal.text();
    scene.check("every wrong answer leads back to the menu", !text.contains("uid="), text);
    scene.check("end of file logs out", ended.is_ok(), format!("{ended:?}"));
    Ok(())
}

fn other_ways(scene: &mut Scene<'_>, admin: &Admin) -> Result<()> {
    let config = admin.config().to_owned();
    let ssh = |words: &[&str]| admin.ssh(words).limit(ANSWER_TIMEOUT);
    let attempts = [
        ("scp", Cmd::new("scp").args(["-F", &config, "/etc/hostname", "proxy:/tmp/scp"])),
        (
            "scp by its old protocol",
            Cmd::new("scp").args(["-O", "-F", &config, "/etc/hostname", "proxy:/tmp/scp"]),
        ),
        ("sftp", Cmd::new("sh").args(["-c", &format!("echo ls / | sftp -b - -F {config} proxy")])),
        ("a copy to the host", Cmd::new("scp").args(["-F", &config, &config, "proxy:/tmp/scp"])),
        ("a forwarded connection", ssh(&["-W", "127.0.0.1:22"])),
        ("a subsystem", ssh(&["-s"]).arg("sftp")),
    ];
    for (what, cmd) in attempts {
        let output = scene.run("admin", &cmd.limit(ANSWER_TIMEOUT))?;
        scene.check(format!("{what} is refused"), !output.ok(), output.text());
    }
    let sudo = "sudo -n -u root id; sudo -n /bin/sh -c id; sudo -n /usr/libexec/zone-installer/zone-installer-helper sh";
    let output = scene.run("proxy", &Cmd::sh(sudo).user("zone-admin"))?;
    scene.check(
        "sudo runs the helper's verbs and nothing else",
        !output.text().contains("uid="),
        output.text(),
    );
    Ok(())
}
