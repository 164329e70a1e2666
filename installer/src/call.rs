//! Asks the helper.

use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use nix::unistd::geteuid;

use crate::protocol::{Failure, LONGEST_MESSAGE, Message, Reply, Request};

/// The helper.
const HELPER: &str = "/usr/libexec/zone-installer/zone-installer-helper";
/// sudo(8).
const SUDO: &str = "/usr/bin/sudo";
/// What is kept of a complaint, bytes.
const LONGEST_COMPLAINT: u64 = 4096;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The helper says why.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// It can't be started at all.
    #[error("{program} can't be started: {source}: reinstall the package zone-installer")]
    Start {
        /// Which program.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// sudo or the helper refused the request as such.
    #[error("{0}")]
    Refused(String),
    /// It ended without a result.
    #[error(
        "the helper broke off ({0}): 'zone-installer status' shows how far it came; the journal says more"
    )]
    BrokeOff(ExitStatus),
}

/// Has a request carried out, and shows its progress. Blocks until it is done or undone.
pub fn call(request: &Request, mut progress: impl FnMut(&str)) -> Result<Reply, CallError> {
    let direct = geteuid().is_root();
    let program = if direct { HELPER } else { SUDO };
    let start = |source| CallError::Start { program, source };
    let mut command = Command::new(program);
    if !direct {
        command.args(["-n", HELPER]);
    }
    let mut child = command
        .arg(request.verb())
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(start)?;
    let mut line = serde_json::to_vec(request).map_err(|error| start(error.into()))?;
    line.push(b'\n');
    if let Some(mut input) = child.stdin.take() {
        // Where it refuses without reading, its complaint says why.
        let _ = input.write_all(&line);
    }
    let complaint = child.stderr.take().map(|mut errors| {
        thread::spawn(move || {
            let mut kept = Vec::new();
            let _ = errors.by_ref().take(LONGEST_COMPLAINT).read_to_end(&mut kept);
            let _ = io::copy(&mut errors, &mut io::sink());
            String::from_utf8_lossy(&kept).into_owned()
        })
    });
    let mut outcome = None;
    if let Some(output) = child.stdout.take() {
        let mut reader = BufReader::new(output);
        while let Some(message) = next(&mut reader) {
            match message {
                Message::Progress(line) => progress(&line),
                Message::Done(reply) => outcome = Some(Ok(*reply)),
                Message::Failed(failure) => outcome = Some(Err(CallError::Failed(failure))),
            }
        }
    }
    let status = child.wait().map_err(start)?;
    if let Some(outcome) = outcome {
        return outcome;
    }
    let complaint = complaint.and_then(|reader| reader.join().ok()).unwrap_or_default();
    let said: Vec<&str> = complaint.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match said.last() {
        Some(said) if said.starts_with("sudo:") => Err(CallError::Refused(format!(
            "{said}: run this as zone-admin or root, and see that /etc/sudoers.d/zone-installer is in place"
        ))),
        Some(said) => Err(CallError::Refused(crate::text::plain(said))),
        None => Err(CallError::BrokeOff(status)),
    }
}

/// The next message; `None` at the end, and for what is none.
fn next(reader: &mut impl BufRead) -> Option<Message> {
    let mut line = Vec::new();
    reader.by_ref().take(LONGEST_MESSAGE as u64).read_until(b'\n', &mut line).ok()?;
    serde_json::from_slice(&line).ok()
}
