//! A tool, from its start to its end.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::output::{Excess, reader};

/// Where tools are looked for, and the `PATH` that they get; never the caller's.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// How long a tool may take unless its caller says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);
/// What is kept of each output unless the caller says otherwise.
const DEFAULT_MAX_OUTPUT_BYTES: u64 = 512 * 1024;
/// How often a tool that has closed its outputs, and is about to end, is looked at.
const EXIT_CHECK_INTERVAL: Duration = Duration::from_millis(2);

/// A tool of the host that is about to be run.
#[derive(Debug, Clone)]
#[must_use = "it does nothing until it is run"]
pub struct Tool {
    path: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    input: Option<Vec<u8>>,
    timeout: Duration,
    max_output_bytes: u64,
    excess: Excess,
}

/// A tool did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It can't be started, or waited for.
    #[error("{path} can't be started: {source}")]
    Start {
        /// The tool that was to be run.
        path: PathBuf,
        /// What the system says about it.
        source: io::Error,
    },
    /// It was still running, or something that it started still held its output, when its time was over. All of it
    /// was killed.
    #[error("{path} took more than {} s and was killed", .timeout.as_secs())]
    TimedOut {
        /// The tool that was run.
        path: PathBuf,
        /// The time that it had.
        timeout: Duration,
    },
}

/// The absolute path of a tool, if this host has it.
pub fn find(name: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

impl Tool {
    /// A tool by its absolute path, as [`find`] returns it: without arguments or input, with 15 s to run, and with
    /// 512 KiB of each of its outputs kept and the rest discarded.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            input: None,
            timeout: DEFAULT_TIMEOUT,
            max_output_bytes: DEFAULT_MAX_OUTPUT_BYTES,
            excess: Excess::Discard,
        }
    }

    /// Adds arguments.
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Adds a variable to its environment, which otherwise holds `PATH` and `LC_ALL` and nothing else.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Gives it something to read; without that its standard input is `/dev/null`.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// Sets the time until it must have ended, and all must have closed its outputs.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets what is kept of standard output, and of standard error, and what happens to more than that.
    pub fn max_output_bytes(mut self, max_bytes: u64, excess: Excess) -> Self {
        self.max_output_bytes = max_bytes;
        self.excess = excess;
        self
    }

    /// Runs it to its end, whatever that is: a tool that failed is no error here. Blocks, at most for its timeout.
    pub fn run(self) -> Result<Output, ToolError> {
        let deadline = Instant::now() + self.timeout;
        let cant_start = |source| ToolError::Start { path: self.path.clone(), source };
        let mut child = self.command().spawn().map_err(cant_start)?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(cant_start(io::ErrorKind::BrokenPipe.into()));
        };
        let stdout = reader(stdout, self.max_output_bytes, self.excess);
        let stderr = reader(stderr, self.max_output_bytes, self.excess);
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), self.input) {
            // A tool that ends without reading all of it says why on its standard error.
            thread::spawn(move || drop(stdin.write_all(&input)));
        }
        // The tool is waited for last: until then its process id, and so its group's, is nobody else's.
        let outputs = || -> Result<_, RecvTimeoutError> {
            Ok((stdout.recv_timeout(left(deadline))?, stderr.recv_timeout(left(deadline))?))
        };
        let ended =
            match outputs() {
                Ok((stdout, stderr)) => exit(&mut child, deadline)
                    .map_err(cant_start)?
                    .map(|status| Output { status, stdout, stderr }),
                Err(_) => None,
            };
        if let Some(output) = ended {
            return Ok(output);
        }
        kill(&mut child).map_err(cant_start)?;
        Err(ToolError::TimedOut { path: self.path.clone(), timeout: self.timeout })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command
            .args(&self.arguments)
            .env_clear()
            .env("PATH", FOLDERS.join(":"))
            .env("LC_ALL", "C.UTF-8")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C at the terminal is not meant for it, and it must be possible to end it with all it started.
            .process_group(0);
        command
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// How the tool ended; `None` if it had not by the deadline.
fn exit(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(EXIT_CHECK_INTERVAL);
    }
}

/// Ends the tool with everything in its process group.
fn kill(child: &mut Child) -> io::Result<()> {
    if let Ok(pid) = i32::try_from(child.id()) {
        // It may have ended at this moment, which is just as well.
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
    child.wait().map(drop)
}
