//! Running the host's own tools, each with the same deadline and the same bound on what it says.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zone_tool::{Complaint, Excess, Tool, ToolError};

/// How much a tool may say; a ruleset of 100,000 rules is below it, and one that is cut off is of no use.
const MAX_OUTPUT_BYTES: u64 = 256 * 1024 * 1024;
/// How long a tool may take.
const TOOL_TIMEOUT: Duration = Duration::from_secs(15);

/// A tool gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// It can't be started.
    #[error("{program} can't be run: {source}")]
    Start {
        /// The tool.
        program: PathBuf,
        /// What the system says about it.
        source: io::Error,
    },
    /// It took too long, and was ended.
    #[error("{program} took more than {} s and was ended", TOOL_TIMEOUT.as_secs())]
    TimedOut {
        /// The tool.
        program: PathBuf,
    },
    /// It was ended by a signal.
    #[error("{program} crashed (signal {signal}){}{complaint}", if complaint.is_empty() { "" } else { ": " })]
    Crashed {
        /// The tool.
        program: PathBuf,
        /// The signal's number, signal(7).
        signal: i32,
        /// What it complained about before, in one line.
        complaint: String,
    },
    /// It said no.
    #[error("{program}: {complaint}")]
    Failed {
        /// The tool.
        program: PathBuf,
        /// Its exit code, if it ended by itself.
        code: Option<i32>,
        /// What it complained about, in one line.
        complaint: String,
    },
}

/// Runs a tool, gives it `input`, and returns what it printed.
pub(crate) fn run(program: &Path, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, RunError> {
    let tool = Tool::new(program)
        .args(arguments)
        .input(input)
        .timeout(TOOL_TIMEOUT)
        .max_output_bytes(MAX_OUTPUT_BYTES, Excess::Close);
    let output = tool.run().map_err(|error| match error {
        ToolError::Start { path, source } => RunError::Start { program: path, source },
        ToolError::TimedOut { path, .. } => RunError::TimedOut { program: path },
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    let (program, complaint) = (program.to_owned(), Complaint::Beginning.of(said));
    Err(match output.status.signal() {
        Some(signal) => RunError::Crashed { program, signal, complaint },
        None => RunError::Failed { program, code: output.status.code(), complaint },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_passed_on_in_one_line() {
        let error =
            run(Path::new("/bin/sh"), &["-c", "echo one >&2; echo two >&2; exit 3"], b"").unwrap_err();
        assert_eq!(error.to_string(), "/bin/sh: one; two");
    }

    #[test]
    fn a_tool_that_crashes_is_told_from_one_that_says_no() {
        let error = run(Path::new("/bin/sh"), &["-c", "echo odd >&2; kill -ABRT $$"], b"").unwrap_err();
        assert_eq!(error.to_string(), "/bin/sh crashed (signal 6): odd");
    }

    #[test]
    fn input_goes_in_and_output_comes_out() {
        assert_eq!(run(Path::new("/bin/cat"), &[], b"words").unwrap(), b"words");
    }

    #[test]
    fn a_tool_that_can_not_be_run_is_named() {
        let error = run(Path::new("/usr/sbin/no-such-tool"), &[], b"").unwrap_err().to_string();
        assert!(error.starts_with("/usr/sbin/no-such-tool can't be run: "), "{error}");
    }
}
