//! The durable state: cut, garbled, on a full or a read-only disk, or in use by somebody else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use zone_tests::control::Client;
use zone_tests::host::Host;
use zone_tests::process::{fail, run, succeed};
use zone_tests::skip;
use zone_tests::zone::Zone;

use super::Snapshot;

#[test]
fn a_state_that_was_cut_or_garbled_is_named_and_never_guessed_at() {
    let mut host = Host::start("");
    let zone = Zone::with(&host);
    host.control.kill();
    let current = fs::canonicalize(host.state().join("current")).expect("a state");
    let start = || fail(&mut host.cli(&["run"]), b"");
    let advice = "restore the state directory from a backup, or start over with `zone-proxy reset`";
    for name in ["state.json", "rsa.key", "ec.key", "rsa.crt", "ec.crt", "control-rsa.key", "control-ec.crt"]
    {
        let file = current.join(name);
        let whole = fs::read(&file).expect("a file of the state");
        let cut = &whole[..whole.len() / 2];
        let garbled: Vec<u8> = whole.iter().map(|byte| byte ^ 0x55).collect();
        for wrong in [cut, garbled.as_slice(), b""] {
            fs::write(&file, wrong).expect("written");
            let told = start();
            let shown = name.split('.').next().expect("a stem");
            assert!(told.contains(&format!("/{shown}.")), "{name}: {told}");
            assert!(told.contains(advice) || told.contains("can't read"), "{name}: {told}");
            assert_eq!(told.trim().lines().count(), 1, "{told}");
            assert!(!told.contains("PRIVATE KEY"), "{told}");
        }
        fs::remove_file(&file).expect("removed");
        assert!(start().contains(advice), "{name} is missing");
        fs::create_dir(&file).expect("a folder in its place");
        assert!(start().contains(&format!("can't read {}", file.display())), "{name} can't be read");
        fs::remove_dir(&file).expect("removed");
        fs::write(&file, whole).expect("written");
    }
    fs::write(host.state().join("clock"), "yesterday").expect("written");
    let told = start();
    assert!(told.contains("/clock: not a time as RFC 3339 writes it") && told.contains(advice), "{told}");
    fs::remove_file(host.state().join("clock")).expect("removed");

    host.restart();
    assert_eq!(host.status()["state"], "provisioned", "whole again, it is the same member");
    succeed(&mut zone.cli(&["status", "p1"]), b"");
}

#[test]
fn a_reset_mends_a_state_that_can_not_be_read() {
    let mut host = Host::start("");
    let zone = Zone::with(&host);
    host.control.kill();
    fs::write(host.state().join("current/state.json"), "{").expect("written");
    fail(&mut host.cli(&["run"]), b"");
    let told = succeed(&mut host.cli(&["reset", "--yes"]), b"");
    assert!(told.contains("belongs to no zone"), "{told}");
    host.restart();
    assert_eq!(host.status()["state"], "unprovisioned");
    succeed(&mut zone.cli(&["unprovision", "p1", "--forget"]), b"");
    zone.provision(&host);
}

#[test]
fn a_second_daemon_on_the_same_state_is_refused_with_the_process_of_the_first() {
    let mut host = Host::start("");
    let before = Snapshot::of(&host);
    let told = fail(&mut host.cli(&["run"]), b"");
    let words = format!(
        "{} is in use by process {}: stop that one first",
        host.state().display(),
        host.control.pid()
    );
    assert!(told.contains(&words), "{told}");
    assert_eq!(Snapshot::of(&host), before);
    assert!(host.control.runs());
    host.control.kill();
    host.restart();
    assert_eq!(host.status()["state"], "unprovisioned", "a lock does not outlive its holder");
}

#[test]
fn a_full_disk_fails_the_step_that_stores_and_nothing_changes() {
    let Some(disk) = Disk::start("a_full_disk_fails_the_step_that_stores_and_nothing_changes") else {
        return;
    };
    let (host, zone) = (&disk.host, Zone::init());
    let (before, payload) = (Snapshot::of(host), host.payload());
    let full = |told: &str| {
        assert!(told.contains("(step: store state; everything was undone)"), "{told}");
        assert!(told.contains("No space left on device"), "{told}");
        assert!(told.contains("free some space there"), "{told}");
    };

    disk.fill();
    full(&fail(&mut zone.provision_command(host), payload.as_bytes()));
    host.logs(&["audit", "change=\"provision\"", "step=\"store state\"", "failed, undone"]);
    assert_eq!(Snapshot::of(host), before);
    let told = fail(&mut host.cli(&["token", "new"]), b"");
    assert!(told.contains("free some space there"), "{told}");
    assert_eq!(Snapshot::of(host), before, "the token that was shown is still the one");

    disk.free();
    succeed(&mut zone.provision_command(host), payload.as_bytes());
    let member = Snapshot::of(host);
    disk.fill();
    let told = fail(&mut zone.cli(&["revoke", "endpoint", "e9"]), b"");
    full(&told);
    full(&fail(&mut zone.cli(&["rotate", "p1"]), b""));
    full(&fail(&mut zone.cli(&["provision", "--name", "p1", "--again", "--endpoint-port", "20486"]), b""));
    full(&fail(&mut zone.cli(&["unprovision", "p1"]), b""));
    Client::member(host, &zone).ask("DELETE", "/v1/provisioning", &[], b"").problem(507, "store-failed");
    assert_eq!(Snapshot::of(host), member);
    disk.free();
    succeed(&mut zone.cli(&["trust", "push"]), b"");
    assert_eq!(host.status()["trust_version"], 2);
    assert!(host.metric(&zone, "zone_proxy_changes_total{kind=\"unprovision\",result=\"store state\"}") > 0);
}

#[test]
fn a_state_directory_that_became_read_only_fails_the_step_that_stores_and_nothing_changes() {
    let name = "a_state_directory_that_became_read_only_fails_the_step_that_stores_and_nothing_changes";
    let Some(disk) = Disk::start(name) else { return };
    let (host, zone) = (&disk.host, Zone::init());
    let (before, payload) = (Snapshot::of(host), host.payload());
    disk.protect();
    let told = fail(&mut zone.provision_command(host), payload.as_bytes());
    assert!(told.contains("(step: store state; everything was undone)"), "{told}");
    assert!(told.contains("the state directory must be on a writable file system"), "{told}");
    assert_eq!(Snapshot::of(host), before);
    disk.unprotect();
    succeed(&mut zone.provision_command(host), payload.as_bytes());
    disk.protect();
    Client::member(host, &zone).ask("DELETE", "/v1/provisioning", &[], b"").problem(500, "store-failed");
    disk.unprotect();
    assert_eq!(host.status()["state"], "provisioned");
}

#[test]
fn a_daemon_that_can_not_write_its_state_does_not_start_and_says_why() {
    let name = "a_daemon_that_can_not_write_its_state_does_not_start_and_says_why";
    if !may_mount(name) {
        return;
    }
    let mut host = Host::start("");
    host.control.kill();
    let state = host.state();
    let start = |mount: &str| {
        let mut command = host.cli(&["run"]);
        on_its_own_mount(&mut command, &state, mount);
        fail(&mut command, b"")
    };
    let told = start("mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\"");
    assert!(told.contains("Read-only file system"), "{told}");
    assert!(told.contains("the state directory must be on a writable file system"), "{told}");
    let told = start("mount -t tmpfs -o size=4k,mode=700,uid=nobody none \"$0\"");
    assert!(told.contains("No space left on device"), "{told}");
    assert!(told.contains("free some space there"), "{told}");
    host.restart();
    assert_eq!(host.status()["state"], "unprovisioned");
}

/// A host whose state directory is a small disk of its own, in a mount namespace that ends with it.
struct Disk {
    host: Host,
}

impl Disk {
    fn start(test: &str) -> Option<Self> {
        may_mount(test).then(|| {
            let host = Host::start_by("", |command| {
                let config = PathBuf::from(command.get_args().last().expect("--config FILE"));
                let state = config.with_file_name("state");
                on_its_own_mount(
                    command,
                    &state,
                    "mount -t tmpfs -o size=512k,mode=700,uid=nobody none \"$0\"",
                );
                command
            });
            Self { host }
        })
    }

    /// The directory as its daemon sees it.
    fn path(&self) -> PathBuf {
        let state = self.host.state();
        let inside = state.strip_prefix("/").expect("an absolute path");
        Path::new(&format!("/proc/{}/root", self.host.control.pid())).join(inside)
    }

    fn fill(&self) {
        let block = vec![0; 4096];
        let mut file = fs::File::create(self.path().join("filler")).expect("a file");
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.path().join("filler")).expect("removed");
    }

    /// Lays a read-only view over the directory. What is open keeps the disk itself from becoming read-only.
    fn protect(&self) {
        self.mount(r#"mount --bind "$0" "$0" && mount -o remount,bind,ro "$0""#);
    }

    fn unprotect(&self) {
        self.mount(r#"umount "$0""#);
    }

    fn mount(&self, script: &str) {
        let pid = self.host.control.pid().to_string();
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid, "--mount", "sh", "-c", script]);
        succeed(command.arg(self.host.state()), b"");
    }
}

/// Changes a command so that it runs after `mount` has changed the directory `$0`, for itself alone.
fn on_its_own_mount(command: &mut Command, directory: &Path, mount: &str) {
    let program = command.get_program().to_owned();
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    *command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &format!("mkdir -p \"$0\" && {mount} && exec \"$@\"")]);
    command.arg(directory).arg(program).args(arguments);
}

fn may_mount(test: &str) -> bool {
    let may = run(Command::new("unshare").args(["--mount", "true"]), b"").status.success();
    if !may {
        skip(test, "a mount namespace takes root");
    }
    may
}
