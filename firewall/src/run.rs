//! Running the host's own tools: by absolute path, with a clean environment, a deadline, and a bound on what they say.

use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Where the host's tools are looked for; never in the caller's PATH.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
/// How much a tool may say; a ruleset of 100,000 rules is below it.
const LONGEST_OUTPUT: u64 = 256 * 1024 * 1024;
/// How long it may take.
const DEADLINE: Duration = Duration::from_secs(15);
/// How much of what it complains about is passed on.
const LONGEST_COMPLAINT: usize = 400;

/// Why a tool gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It can't be started.
    #[error("{program} can't be run: {source}")]
    Start {
        /// The tool.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It took too long, and was ended.
    #[error("{program} took more than {} s and was ended", DEADLINE.as_secs())]
    Late {
        /// The tool.
        program: PathBuf,
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

/// Where a tool of the host is.
pub fn find(name: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

/// Runs a tool, gives it `input`, and returns what it printed.
pub fn run(program: &Path, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, RunError> {
    let failed = |source| RunError::Start { program: program.to_owned(), source };
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let (Some(mut stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(failed(io::ErrorKind::BrokenPipe.into()));
    };
    let said = reader(stdout);
    let complained = reader(stderr);
    let input = input.to_vec();
    // A tool that ends without reading all of it says why on its standard error.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));

    let deadline = Instant::now() + DEADLINE;
    let left = || deadline.saturating_duration_since(Instant::now());
    let output = said.recv_timeout(left()).and_then(|said| Ok((said, complained.recv_timeout(left())?)));
    let Ok((said, complained)) = output else {
        // Failing to end it leaves nothing that could be done better.
        let _ = child.kill();
        let _ = child.wait();
        return Err(RunError::Late { program: program.to_owned() });
    };
    let status = child.wait().map_err(failed)?;
    let _ = writer.join();
    if status.success() {
        return Ok(said);
    }
    let complaint = if complained.is_empty() { &said } else { &complained };
    Err(RunError::Failed { program: program.to_owned(), code: status.code(), complaint: one_line(complaint) })
}

fn reader(stream: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is still worth passing on.
        let _ = stream.take(LONGEST_OUTPUT).read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    receiver
}

/// What a tool complained about, as one line without control characters.
pub fn one_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.chars().all(|c| c == '^'));
    let line = lines.collect::<Vec<_>>().join("; ");
    line.chars().filter(|c| !c.is_control()).take(LONGEST_COMPLAINT).collect()
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
    fn input_goes_in_and_output_comes_out() {
        assert_eq!(run(Path::new("/bin/cat"), &[], b"words").unwrap(), b"words");
    }
}
