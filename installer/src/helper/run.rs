//! Runs the host's own tools, with what the tools of package management need in their environment.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use zone_tool::{Complaint, Excess, Tool, ToolError};

/// What is kept of each output, bytes; the rest is read and dropped.
const MAX_OUTPUT_BYTES: u64 = 512 * 1024;
/// What tools get beside the environment that every tool of the host gets.
const ENVIRONMENT: [(&str, &str); 3] =
    [("HOME", "/root"), ("DEBIAN_FRONTEND", "noninteractive"), ("SYSTEMD_COLORS", "0")];

/// A tool did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    /// It is not there.
    #[error("{0} is not installed: install it with this host's package manager")]
    Missing(&'static str),
    /// It can't be started.
    #[error("{path} can't be started: {source}")]
    Start {
        /// The tool that was to be run.
        path: PathBuf,
        /// What the system says about it.
        source: io::Error,
    },
    /// It took too long, and was killed.
    #[error("'{command}' was stopped after {} s: try again, and look at the journal", .timeout.as_secs())]
    TimedOut {
        /// The tool with its arguments.
        command: String,
        /// The time that it had.
        timeout: Duration,
    },
    /// It failed.
    #[error("'{command}' failed ({status}): {complaint}")]
    Failed {
        /// The tool with its arguments.
        command: String,
        /// How it ended.
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

/// Runs a tool to its end, whatever that is.
pub(super) fn run(tool: &'static str, arguments: &[&str], timeout: Duration) -> Result<Finished, RunError> {
    let path = zone_tool::find(tool).ok_or(RunError::Missing(tool))?;
    let command = [&[tool], arguments].concat().join(" ");
    let tool = ENVIRONMENT.iter().fold(Tool::new(path), |tool, (name, value)| tool.env(*name, *value));
    let output = tool
        .args(arguments)
        .timeout(timeout)
        .max_output_bytes(MAX_OUTPUT_BYTES, Excess::Discard)
        .run()
        .map_err(|error| match error {
            ToolError::Start { path, source } => RunError::Start { path, source },
            ToolError::TimedOut { timeout, .. } => RunError::TimedOut { command: command.clone(), timeout },
        })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (status, output, errors) = (output.status, text(&output.stdout), text(&output.stderr));
    Ok(Finished { status, output, errors, command })
}

/// The end of what a tool said, as one line without control characters.
pub(super) fn tail(text: &str) -> String {
    let complaint = Complaint::End.of(text.as_bytes());
    if complaint.is_empty() { "it said nothing".to_owned() } else { complaint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_that_takes_too_long_is_ended_with_all_that_it_started() {
        let begin = std::time::Instant::now();
        let error = run("sh", &["-c", "sleep 60 & sleep 60"], Duration::from_millis(200)).unwrap_err();
        assert!(matches!(error, RunError::TimedOut { .. }), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_flood_of_output_is_read_and_not_held() {
        let flood = ["-c", "head -c 20000000 /dev/zero"];
        let finished = run("sh", &flood, Duration::from_secs(60)).unwrap();
        assert!(finished.status.success());
        assert_eq!(finished.output.len() as u64, MAX_OUTPUT_BYTES);
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
