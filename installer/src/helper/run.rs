//! Runs the host's own tools: by absolute path, with an environment of ours, within a time, with bounded output.

use std::io::{self, Read};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Where tools are looked for, and the `PATH` that they get.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// What is kept of each output, bytes; the rest is read and dropped.
const LONGEST: u64 = 512 * 1024;
/// How often a running tool is looked at.
const BEAT: Duration = Duration::from_millis(20);
/// The longest that is shown of a tool's complaint, characters.
const SHOWN: usize = 300;

/// Why a tool did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    /// It is not there.
    #[error("{0} is not installed: install it with this host's package manager")]
    Missing(&'static str),
    /// It can't be started.
    #[error("{path} can't be started: {source}")]
    Start {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It took too long, and was killed.
    #[error("'{command}' was stopped after {} s: try again, and look at the journal", .after.as_secs())]
    TooLong {
        /// What was run.
        command: String,
        /// After which time.
        after: Duration,
    },
    /// It failed.
    #[error("'{command}' failed ({status}): {complaint}")]
    Failed {
        /// What was run.
        command: String,
        /// How.
        status: ExitStatus,
        /// The end of what it said, one line.
        complaint: String,
    },
}

/// What a tool printed, and how it ended.
#[derive(Debug)]
pub(super) struct Finished {
    /// How it ended.
    pub(super) status: ExitStatus,
    /// Its standard output.
    pub(super) output: String,
    /// Its standard error.
    pub(super) errors: String,
    command: String,
}

impl Finished {
    /// The output, if it ended well.
    pub(super) fn good(self) -> Result<String, RunError> {
        if self.status.success() {
            return Ok(self.output);
        }
        let said = if self.errors.trim().is_empty() { &self.output } else { &self.errors };
        Err(RunError::Failed { complaint: tail(said), command: self.command, status: self.status })
    }
}

/// Where a tool is.
pub(super) fn find(tool: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(tool)).find(|path| path.is_file())
}

/// Runs a tool to its end, whatever that is.
pub(super) fn run(tool: &'static str, arguments: &[&str], within: Duration) -> Result<Finished, RunError> {
    let path = find(tool).ok_or(RunError::Missing(tool))?;
    let mut child = Command::new(&path)
        .args(arguments)
        .env_clear()
        .env("PATH", FOLDERS.join(":"))
        .env("HOME", "/root")
        .env("LC_ALL", "C.UTF-8")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("SYSTEMD_COLORS", "0")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C at the terminal is not meant for it, and it must be possible to end it with all it started.
        .process_group(0)
        .spawn()
        .map_err(|source| RunError::Start { path: path.clone(), source })?;
    let command = [&[tool], arguments].concat().join(" ");
    let output = drain(child.stdout.take());
    let errors = drain(child.stderr.take());
    let status = wait(&mut child, within).map_err(|source| RunError::Start { path, source })?;
    let Some(status) = status else {
        return Err(RunError::TooLong { command, after: within });
    };
    Ok(Finished { status, output: output(), errors: errors(), command })
}

/// Its end; `None` if it had to be killed.
fn wait(child: &mut Child, within: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            if let Ok(pid) = i32::try_from(child.id()) {
                // It may have ended at this moment, which is just as well.
                let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
            }
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(BEAT);
    }
}

/// Reads an output to its end aside, so that the tool never waits for a reader.
fn drain(stream: Option<impl Read + Send + 'static>) -> impl FnOnce() -> String {
    let reader: Option<JoinHandle<Vec<u8>>> = stream.map(|mut stream| {
        thread::spawn(move || {
            let mut kept = Vec::new();
            // What can't be read is not shown; how the tool ended decides.
            let _ = stream.by_ref().take(LONGEST).read_to_end(&mut kept);
            let _ = io::copy(&mut stream, &mut io::sink());
            kept
        })
    });
    move || {
        let kept = reader.and_then(|reader| reader.join().ok()).unwrap_or_default();
        String::from_utf8_lossy(&kept).into_owned()
    }
}

/// The end of what a tool said, as one line without control characters.
pub(super) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let joined = lines[lines.len().saturating_sub(4)..].join("; ");
    let plain: Vec<char> = joined.chars().filter(|c| !c.is_control()).collect();
    if plain.is_empty() {
        return "it said nothing".to_owned();
    }
    plain[plain.len().saturating_sub(SHOWN)..].iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_that_takes_too_long_is_ended_with_all_that_it_started() {
        let begin = Instant::now();
        let error = run("sh", &["-c", "sleep 60 & sleep 60"], Duration::from_millis(200)).unwrap_err();
        assert!(matches!(error, RunError::TooLong { .. }), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_flood_of_output_is_read_and_not_held() {
        let flood = ["-c", "head -c 20000000 /dev/zero"];
        let finished = run("sh", &flood, Duration::from_secs(60)).unwrap();
        assert!(finished.status.success());
        assert_eq!(finished.output.len() as u64, LONGEST);
    }

    #[test]
    fn a_failure_shows_the_end_of_the_complaint_in_one_line() {
        let failing = ["-c", "printf 'a\\nb\\033[2J\\n' >&2; exit 3"];
        let error = run("sh", &failing, Duration::from_secs(10)).unwrap().good().unwrap_err().to_string();
        assert!(error.ends_with("a; b[2J"), "{error}");
    }

    #[test]
    fn a_tool_gets_no_environment_but_ours() {
        let output = run("env", &[], Duration::from_secs(10)).unwrap().good().unwrap();
        assert!(output.lines().all(|line| {
            ["PATH=", "HOME=", "LC_ALL=", "DEBIAN_FRONTEND=", "SYSTEMD_COLORS="]
                .iter()
                .any(|own| line.starts_with(own))
        }));
    }
}
