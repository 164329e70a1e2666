//! A zone server: `zone-proxy` with its configuration, its state and its relays.

use std::fs::Permissions;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Process, run, succeed};
use crate::{TEST_TIMEOUT, USER, address, for_others, programs, until};

/// A host with a proxy on it. Dropped, everything on it ends.
#[derive(Debug)]
pub struct Host {
    /// Where its three ports listen.
    pub address: Ipv4Addr,
    /// Its control process.
    pub control: Process,
    programs: PathBuf,
    folder: TempDir,
}

impl Host {
    /// A host with a fresh proxy. `config` is TOML that is appended to the least that a test needs.
    pub fn start(config: &str) -> Self {
        Self::start_by(config, |command| command)
    }

    /// The same, with a say in how the program is started.
    pub fn start_by(config: &str, change: impl Fn(&mut Command) -> &mut Command) -> Self {
        Self::start_of(&programs(), config, change)
    }

    /// The same with the programs in another folder.
    pub fn start_of(programs: &Path, config: &str, change: impl Fn(&mut Command) -> &mut Command) -> Self {
        let (folder, address) = (crate::folder(), address());
        let base = folder.path();
        let text = format!(
            "user = \"{USER}\"\nstate_dir = \"{0}/state\"\nruntime_dir = \"{0}/run\"\n{1}\n",
            base.display(),
            if config.contains("[control]") {
                config.replace("[control]", &format!("[control]\nlisten = [\"{address}\"]"))
            } else {
                format!("{config}\n[control]\nlisten = [\"{address}\"]")
            }
        );
        let config = base.join("zone-proxy.toml");
        std::fs::write(&config, text).expect("the configuration");
        std::fs::set_permissions(&config, Permissions::from_mode(0o644)).expect("our file");
        let control = Process::start(change(&mut Self::command(programs, base)));
        let host = Self { address, control, programs: programs.to_owned(), folder };
        host.is_up();
        host
    }

    fn command(programs: &Path, folder: &Path) -> Command {
        // The relay is looked for beside it.
        for_others(&programs.join("zone-relay"), folder);
        let mut command = Command::new(for_others(&programs.join("zone-proxy"), folder));
        command.arg("run").arg("--config").arg(folder.join("zone-proxy.toml"));
        command
    }

    /// Starts control again, after it has ended or was killed.
    pub fn restart(&mut self) {
        self.restart_by(|command| command);
    }

    /// Installs the programs of another version, and starts control again.
    pub fn install(&mut self, programs: &Path) {
        programs.clone_into(&mut self.programs);
        self.restart();
    }

    /// Starts control again, with a say in how the program is started.
    pub fn restart_by(&mut self, change: impl Fn(&mut Command) -> &mut Command) {
        self.control.kill();
        self.control = Process::start(change(&mut Self::command(&self.programs, self.folder.path())));
        self.is_up();
    }

    /// Waits until 17488 and the admin socket answer.
    pub fn is_up(&self) {
        until(&format!("the daemon is up:\n{}", self.control.said()), || {
            self.answers(17488) && run(&mut self.cli(&["status"]), b"").status.success()
        });
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("zone-proxy.toml")
    }

    /// Its durable state.
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Its sockets.
    pub fn runtime(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// One of its ports.
    pub fn port(&self, port: u16) -> SocketAddr {
        (self.address, port).into()
    }

    /// Whether a TCP connection to a port is accepted.
    pub fn answers(&self, port: u16) -> bool {
        TcpStream::connect_timeout(&self.port(port), TEST_TIMEOUT).is_ok()
    }

    /// `zone-proxy` on this host, with these words before `--config`.
    pub fn cli(&self, words: &[&str]) -> Command {
        let mut command = Command::new(for_others(&self.programs.join("zone-proxy"), self.folder.path()));
        command.args(words).arg("--config").arg(self.config());
        command
    }

    /// What an admin copies to the Module Server.
    pub fn payload(&self) -> String {
        succeed(&mut self.cli(&["show", "payload"]), b"")
    }

    /// The status as JSON.
    pub fn status(&self) -> Value {
        serde_json::from_str(&succeed(&mut self.cli(&["status", "--json"]), b"")).expect("JSON")
    }

    /// The process of the relay that accepts.
    pub fn relay(&self) -> Pid {
        self.relay_now().unwrap_or_else(|| panic!("no relay: {}", self.status()))
    }

    /// The same; `None` while there is none.
    pub fn relay_now(&self) -> Option<Pid> {
        let status = self.status();
        let serving = status["relays"].as_array()?.iter().find(|relay| relay["state"] == "serving")?;
        Some(Pid::from_raw(i32::try_from(serving["pid"].as_i64()?).expect("a process id")))
    }

    /// Waits until the relay's counts are as wanted.
    pub fn counts(&self, what: &str, wanted: impl Fn(&Value) -> bool) {
        until(what, || {
            self.status()["relays"]
                .as_array()
                .is_some_and(|relays| relays.iter().any(|r| wanted(&r["counts"])))
        });
    }

    fn relays(&self) -> Vec<Pid> {
        let cmdline = |entry: &std::fs::DirEntry| std::fs::read(entry.path().join("cmdline")).ok();
        let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
        processes
            .flatten()
            .filter(|entry| cmdline(entry).is_some())
            .filter(|entry| {
                std::fs::read_link(entry.path().join("exe"))
                    .is_ok_and(|program| program.ends_with("zone-relay"))
            })
            .filter(|entry| self.owns(&entry.path()))
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw))
            .collect()
    }

    /// A relay is this host's if it holds a listening socket on the host's address.
    fn owns(&self, process: &Path) -> bool {
        let socket_names = |fd: std::fs::DirEntry| std::fs::read_link(fd.path()).ok();
        let Ok(held) = std::fs::read_dir(process.join("fd")) else { return false };
        let held: Vec<_> = held.flatten().filter_map(socket_names).collect();
        let hex =
            self.address.octets().iter().rev().fold(String::new(), |hex, octet| format!("{hex}{octet:02X}"));
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
        table
            .lines()
            .filter(|line| line.split_whitespace().nth(1).is_some_and(|local| local.starts_with(&hex)))
            .filter_map(|line| line.split_whitespace().nth(9))
            .any(|inode| held.iter().any(|name| name.to_string_lossy() == format!("socket:[{inode}]")))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let relays = self.relays();
        if self.control.runs() {
            self.control.signal(Signal::SIGTERM);
            let deadline = std::time::Instant::now() + Duration::from_secs(5);
            while self.control.runs() && std::time::Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        for relay in relays {
            let _ = kill(relay, Signal::SIGKILL);
        }
    }
}
