//! Starting a relay process.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::{Child, Command};

/// The relay beside control's own executable.
const PROGRAM: &str = "zone-relay";
/// What a relay may know of control's environment.
const ENVIRONMENT: [&str; 2] = ["RUST_BACKTRACE", "LANG"];

/// How a relay comes to life, given its end of the channel.
pub trait Starter {
    /// Starts one. `None` where there is no process of its own to wait for.
    fn start(&self, channel: OwnedFd) -> io::Result<Option<Child>>;
    /// What is started, for errors.
    fn name(&self) -> String;
}

/// A relay as a child process, with the channel as its standard input.
#[derive(Debug, Clone)]
pub struct Program(PathBuf);

impl Program {
    /// `path`, or the one beside the own executable where it is empty.
    pub fn new(path: &Path) -> io::Result<Self> {
        if path.as_os_str().is_empty() {
            return Ok(Self(std::env::current_exe()?.with_file_name(PROGRAM)));
        }
        Ok(Self(path.to_owned()))
    }
}

impl Starter for Program {
    fn start(&self, channel: OwnedFd) -> io::Result<Option<Child>> {
        let mut command = Command::new(&self.0);
        command.env_clear().stdin(Stdio::from(channel));
        for name in ENVIRONMENT {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        // A terminal's Ctrl-C is for control alone: it decides what becomes of its relays.
        command.process_group(0);
        command.spawn().map(Some)
    }

    fn name(&self) -> String {
        self.0.display().to_string()
    }
}
