//! Hosts in which nothing boots: a network namespace, with or without files of its own.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::command::{Cmd, Output, run};
use super::description::{Host, Nic};
use super::error::{Context, Error, Result};
use super::files::{Overlay, inside};
use super::network::Namespace;
use super::process::Process;
use super::target::{Probe, Target};
use super::terminal::Terminal;

/// What every program on a host is given.
pub(crate) const ENVIRONMENT: [&str; 4] = [
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LANG=C.UTF-8",
    "TERM=xterm",
];

/// A host that is a network namespace. With an overlay it has files of its own.
pub(crate) struct Netns {
    host: Host,
    namespace: Arc<Namespace>,
    files: Option<Arc<Overlay>>,
    /// On this machine: for logs, and for what is put on a host without files of its own.
    dir: PathBuf,
}

impl Netns {
    pub(crate) fn new(
        host: &Host,
        namespace: Arc<Namespace>,
        files: Option<Arc<Overlay>>,
        dir: &Path,
    ) -> Result<Self> {
        let own = dir.join("files");
        fs::create_dir_all(&own).during(|| format!("can't make {}", own.display()))?;
        Ok(Self { host: host.clone(), namespace, files, dir: dir.to_owned() })
    }

    fn command(&self, cmd: &Cmd) -> Command {
        let mut command = self.namespace.enter();
        if let Some(files) = &self.files {
            command.arg(format!("--root={}", files.path().display()));
        }
        // nsenter's own --wd is looked up outside of the root.
        command.args(["--", "env", "-i", "-C"]).arg(self.dir()).args(ENVIRONMENT).args(cmd.words());
        command
    }

    fn path_here(&self, path: &str) -> Result<PathBuf> {
        match &self.files {
            Some(files) => Ok(inside(files.path(), path)),
            None if Path::new(path).starts_with(self.dir()) => Ok(path.into()),
            None => Err(Error::description(format!(
                "{path} is no file of host {}, which only has {}",
                self.host.name,
                self.dir().display()
            ))),
        }
    }
}

impl Target for Netns {
    fn name(&self) -> &str {
        &self.host.name
    }

    fn nics(&self) -> &[Nic] {
        &self.host.nics
    }

    fn dir(&self) -> PathBuf {
        if self.files.is_some() { "/root".into() } else { self.dir.join("files") }
    }

    fn run(&self, cmd: &Cmd) -> Result<Output> {
        run(self.name(), &cmd.to_string(), self.command(cmd), &cmd.input, cmd.limit)
    }

    fn spawn(&self, name: &str, cmd: &Cmd) -> Result<Process> {
        Process::start(self.name(), name, self.command(cmd), &self.dir.join(format!("log/{name}")))
    }

    fn terminal(&self, cmd: &Cmd) -> Result<Terminal> {
        Terminal::start(self.name(), &self.command(cmd))
    }

    fn put(&self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        put(&self.path_here(path)?, bytes, mode)
    }

    fn get(&self, path: &str) -> Result<Vec<u8>> {
        let place = self.path_here(path)?;
        fs::read(&place).during(|| format!("{}: can't read {path}", self.name()))
    }

    fn reboot(&self) -> Result<()> {
        Err(Error::description(format!("host {} does not boot", self.name())))
    }

    fn wait_booted(&self, _limit: Duration) -> Result<String> {
        Ok("running".to_owned())
    }

    fn probe(&self, to: SocketAddr, limit: Duration) -> Probe {
        self.namespace.probe(to, limit)
    }
}

/// Writes a file of this machine, with its directories.
pub(crate) fn put(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let what = || format!("can't write {}", path.display());
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).during(what)?;
    }
    fs::write(path, bytes).during(what)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).during(what)
}
