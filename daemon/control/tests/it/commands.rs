//! The commands as an admin types them.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use zone_protocol::provisioning::{Payload, Status};

use crate::harness::own_address;

/// A configuration file with directories and an address of its own.
pub(crate) struct Host {
    directory: TempDir,
}

impl Host {
    pub(crate) fn new(more: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let at = directory.path().display();
        // Root becomes an ordinary user, who must find the way.
        fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
        let text = format!(
            "user = \"nobody\"\nstate_dir = \"{at}/state\"\nruntime_dir = \"{at}/run\"\n[control]\nlisten = [\"{}\"]\n{more}",
            own_address()
        );
        fs::write(directory.path().join("zone-proxy.toml"), text).unwrap();
        Self { directory }
    }

    /// A file or folder of its own.
    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn file(&self) -> std::path::PathBuf {
        self.directory.path().join("zone-proxy.toml")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zone-proxy"));
        command.args(arguments).arg("--config").arg(self.file());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The daemon, once it says that it has started.
    pub(crate) fn daemon(&self) -> Daemon {
        let mut child = self.command(&["run"]).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let started = log.find(|line| line.as_ref().is_ok_and(|line| line.contains("zone-proxy 0.")));
        assert!(started.is_some(), "the daemon starts");
        // Whoever stops reading would stop the daemon at its next line.
        std::thread::spawn(move || log.for_each(drop));
        Daemon(child)
    }
}

pub(crate) struct Daemon(Child);

impl Daemon {
    /// Stops it as a supervisor does, and waits for its end.
    pub(crate) fn terminate(mut self) {
        let pid = Pid::from_raw(self.0.id().cast_signed());
        kill(pid, Signal::SIGTERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn state_file(host: &Host) -> std::path::PathBuf {
    host.directory.path().join("state/current/state.json")
}

#[test]
fn check_config_prints_ok_or_every_error() {
    let good = Host::new("");
    let output = good.run(&["check-config"]);
    assert!(output.status.success());
    assert_eq!(text(&output.stdout), "ok\n");

    let large = Host::new("[limits]\nconnections = 60000\n");
    let output = large.run(&["check-config"]);
    let advice = text(&output.stdout);
    assert!(output.status.success() && advice.starts_with("ok\n"), "{advice}");
    assert!(advice.contains("\n[Service]\nMemoryMax=7G\n") && advice.contains("memory.conf"), "{advice}");

    let bad = Host::new("[limits]\nsesions = 1\nwaiting = 0\n");
    let output = bad.run(&["check-config"]);
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    assert!(errors.contains("unknown key 'limits.sesions': did you mean 'limits.sessions'?"), "{errors}");
    assert!(errors.contains("limits.waiting: must be at least 1"), "{errors}");
}

/// The firewall's file is root's, so that what is missing there is only said; at a start, too, for whoever upgrades.
#[test]
fn check_config_says_what_the_firewall_holds_back_of_the_log() {
    let host = Host::new("[log]\nto = \"syslog\"\n[log.syslog]\nhost = \"10.0.0.5\"\nport = 6514\n");
    let check = || {
        let output = host.run(&["check-config"]);
        assert!(output.status.success(), "{output:?}");
        text(&output.stdout)
    };
    assert_eq!(check(), "ok\n", "no rule of ours holds anything back");
    let root = host.file().with_file_name("firewall.toml");
    fs::write(&root, "[control]\nopen = true\n").unwrap();
    let told = check();
    assert!(
        told.starts_with(
            "ok\nnote: the host's firewall drops what goes to the syslog server 10.0.0.5:6514/tcp"
        ),
        "{told}"
    );
    assert!(
        told.contains("add \"10.0.0.5:6514/tcp\" to output.allow in ") && told.lines().count() == 2,
        "{told}"
    );
    let mut daemon = host.command(&["run"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(daemon.stderr.take().unwrap()).lines();
    let warned = log.find(|line| {
        line.as_ref().is_ok_and(|line| line.contains("add \"10.0.0.5:6514/tcp\" to output.allow"))
    });
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert!(warned.is_some(), "the log says why it does not get out");
    fs::write(&root, "[output]\nallow = [\"10.0.0.5:6514/tcp\"]\n").unwrap();
    assert_eq!(check(), "ok\n");
}

#[test]
fn a_reload_waits_for_its_result_and_tells_the_errors() {
    let host = Host::new("");
    let _daemon = host.daemon();
    let good = fs::read_to_string(host.file()).unwrap();
    assert!(host.run(&["reload"]).status.success());
    fs::write(host.file(), format!("{good}\n[limits]\nsesions = 1\n")).unwrap();
    // Whoever asks reads the file too, to know where the daemon is.
    let output = host.run(&["reload"]);
    assert!(!output.status.success() && text(&output.stderr).contains("limits.sesions"), "{output:?}");
    fs::write(host.file(), good).unwrap();
    assert!(host.run(&["reload"]).status.success());
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Says loudly that a test takes root, also in the list of what was skipped.
fn may_drop(test: &str) -> bool {
    if !is_root() {
        eprintln!("SKIPPED: {test}: it takes root");
        if let Some(path) = std::env::var_os("ZONE_SKIP_LOG") {
            use std::io::Write as _;
            let file = fs::OpenOptions::new().create(true).append(true).open(path);
            file.and_then(|mut file| writeln!(file, "{test}: it takes root")).unwrap();
        }
    }
    is_root()
}

#[test]
fn root_becomes_the_configured_user_gives_up_everything_and_owns_its_directories_as_that_user() {
    if !may_drop("root_becomes_the_configured_user_gives_up_everything_and_owns_its_directories_as_that_user")
    {
        return;
    }
    let host = Host::new("");
    let _daemon = host.daemon();
    let status: Status = serde_json::from_slice(&host.run(&["status", "--json"]).stdout).unwrap();
    let control = &status.processes[0];
    assert_ne!(control.uid, 0);
    assert_eq!((control.capabilities.as_str(), control.no_new_privs), ("0000000000000000", true));
    for (name, mode) in [("state", 0o40700), ("run", 0o40700), ("state/current/state.json", 0o100_600)] {
        let about = fs::metadata(host.path(name)).unwrap();
        assert_eq!((about.uid(), about.mode()), (control.uid, mode), "{name}");
    }
    let shown = text(&host.run(&["status"]).stdout);
    let line = format!("control pid {} user {}, no capabilities, no_new_privs", control.pid, control.uid);
    assert!(shown.contains(&line), "{shown}");
    let kernel = fs::read_to_string(format!("/proc/{}/status", control.pid)).unwrap();
    assert!(kernel.contains("CapBnd:\t0000000000000000"), "{kernel}");
}

#[test]
fn a_user_that_is_missing_or_root_is_refused_in_one_line_with_what_to_do() {
    if !may_drop("a_user_that_is_missing_or_root_is_refused_in_one_line_with_what_to_do") {
        return;
    }
    let host = Host::new("");
    let file = fs::read_to_string(host.file()).unwrap();
    for (user, words) in [("no-such-user", "systemd-sysusers"), ("root", "no ordinary user")] {
        fs::write(host.file(), file.replace("\"nobody\"", &format!("\"{user}\""))).unwrap();
        let output = host.run(&["run"]);
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.contains(words), "{said}");
        assert_eq!(said.trim().lines().count(), 1, "{said}");
        assert!(!host.path("state").exists(), "nothing was made for {user}");
    }
}

#[test]
fn a_state_directory_of_root_is_named_with_the_command_that_mends_it() {
    if !may_drop("a_state_directory_of_root_is_named_with_the_command_that_mends_it") {
        return;
    }
    let host = Host::new("");
    fs::create_dir(host.path("state")).unwrap();
    let output = host.run(&["run"]);
    let command = format!("`chown -R nobody: {}`", host.path("state").display());
    assert!(text(&output.stderr).contains(&command), "{}", text(&output.stderr));
    std::os::unix::fs::chown(host.path("state"), Some(1), Some(1)).unwrap();
    let output = host.run(&["run"]);
    assert!(text(&output.stderr).contains("belongs to user 1"), "{}", text(&output.stderr));
}

#[test]
fn a_fresh_proxy_shows_its_payload_and_a_new_token_replaces_the_old_one() {
    let host = Host::new("");
    let daemon = host.daemon();
    let payload: Payload = serde_json::from_slice(&host.run(&["show", "payload"]).stdout).unwrap();
    assert_eq!((payload.version, payload.port), (1, 17488));
    let new: Payload = serde_json::from_slice(&host.run(&["token", "new"]).stdout).unwrap();
    assert_eq!(new.token.pin(), payload.token.pin());
    assert_ne!(new.token, payload.token);
    let status: Status = serde_json::from_slice(&host.run(&["status", "--json"]).stdout).unwrap();
    assert_eq!(status.state, "unprovisioned");
    assert!(text(&host.run(&["status"]).stdout).contains("unprovisioned"));
    drop(daemon);
    let output = host.run(&["show", "payload"]);
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("is it running?"), "{}", text(&output.stderr));
}

#[test]
fn a_token_survives_a_kill_of_the_daemon() {
    let host = Host::new("");
    let daemon = host.daemon();
    let before: Payload = serde_json::from_slice(&host.run(&["show", "payload"]).stdout).unwrap();
    drop(daemon);
    let _daemon = host.daemon();
    let after: Payload = serde_json::from_slice(&host.run(&["show", "payload"]).stdout).unwrap();
    assert_eq!(before.token, after.token);
}

#[test]
fn a_second_daemon_is_refused_with_the_process_id_of_the_first() {
    let host = Host::new("");
    let daemon = host.daemon();
    let output = host.run(&["run"]);
    assert!(!output.status.success());
    let error = text(&output.stderr);
    assert!(error.contains(&format!("in use by process {}", daemon.0.id())), "{error}");
}

#[test]
fn a_truncated_state_is_named_with_what_to_do_and_reset_mends_it() {
    let host = Host::new("");
    drop(host.daemon());
    let file = state_file(&host);
    fs::write(&file, "{\"version\": 1, \"ki").unwrap();
    let output = host.run(&["run"]);
    assert!(!output.status.success());
    let error = text(&output.stderr);
    assert!(error.contains("state.json") && error.contains("zone-proxy reset"), "{error}");

    let output = host.command(&["reset"]).stdin(Stdio::null()).output().unwrap();
    assert!(text(&output.stderr).contains("nothing was done"));
    let output = host.run(&["reset", "--yes"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let _daemon = host.daemon();
    assert!(host.run(&["show", "payload"]).status.success());
}

#[test]
fn a_state_directory_that_can_not_be_written_is_named_at_the_start() {
    let host = Host::new("");
    fs::write(host.directory.path().join("state"), "a file where the directory belongs").unwrap();
    let output = host.run(&["run"]);
    assert!(!output.status.success());
    let error = text(&output.stderr);
    assert!(
        error.contains(Path::new("state").to_str().unwrap()) && error.contains("can't create"),
        "{error}"
    );
}
