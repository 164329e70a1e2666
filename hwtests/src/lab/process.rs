//! A program on a host that goes on running, with its log.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::error::{Context, Error, Result};

/// How often something is looked at that gives no event.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A running program. It and what it started in its process group end with this handle.
#[derive(Debug)]
pub struct Process {
    host: String,
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(crate) fn start(host: &str, name: &str, mut command: Command, log: &Path) -> Result<Self> {
        if let Some(dir) = log.parent() {
            fs::create_dir_all(dir).during(|| format!("can't make {}", dir.display()))?;
        }
        let file = File::create(log).during(|| format!("can't make {}", log.display()))?;
        let second = file.try_clone().during(|| format!("can't share {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file).stderr(second).process_group(0);
        let child = command.spawn().map_err(|source| Error::Start {
            host: host.to_owned(),
            command: name.to_owned(),
            source,
        })?;
        Ok(Self { host: host.to_owned(), name: name.to_owned(), child, log: log.to_owned() })
    }

    /// What it has written so far, both streams.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until its log holds `text`. An end of the program before that is an error.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let ended = self.ended()?;
            if self.log().contains(text) {
                return Ok(());
            }
            if let Some(status) = ended {
                return Err(self.failed(status));
            }
            if Instant::now() > deadline {
                let what = format!("{} to say {text:?} (it said: {})", self.name, last_line(&self.log()));
                return Err(Error::Overdue { host: self.host.clone(), what, limit });
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                let what = format!("the end of {}", self.name);
                return Err(Error::Overdue { host: self.host.clone(), what, limit });
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.ended(), Ok(None))
    }

    /// Sends a signal to it and what it started.
    pub fn signal(&self, signal: Signal) {
        // It may have ended by itself.
        let _ = killpg(self.group(), signal);
    }

    /// Its process id as this machine numbers it. On a booted host that is the entering process, whose child it is.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().during(|| format!("can't wait for {}", self.name))
    }

    fn failed(&self, status: ExitStatus) -> Error {
        Error::Failed {
            host: self.host.clone(),
            command: self.name.clone(),
            status: status.to_string(),
            said: last_line(&self.log()),
        }
    }

    fn group(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

fn last_line(text: &str) -> String {
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned()
}
