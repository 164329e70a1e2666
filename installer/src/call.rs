//! Asks the helper.

use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use nix::unistd::geteuid;

use crate::protocol::{
    Failure, Grade, HostState, MAX_MESSAGE_BYTES, Message, Reply, Request, Status, Verdict,
};
use crate::text::plain;
use crate::version::Version;

/// What is said where helper and caller do not fit together.
pub(crate) const UNEXPECTED_REPLY: &str =
    "the helper answered something else: it is of another version; reinstall the package zone-installer";

/// The helper.
const HELPER: &str = "/usr/libexec/zone-installer/zone-installer-helper";
/// sudo(8).
const SUDO: &str = "/usr/bin/sudo";
/// What is kept of a complaint, bytes.
const MAX_COMPLAINT_BYTES: u64 = 4096;

/// Something was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The helper says why.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// It can't be started at all.
    #[error("{program} can't be started: {source}: reinstall the package zone-installer")]
    Start {
        /// The helper, or sudo(8) in front of it.
        program: &'static str,
        /// What the system says about it.
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

impl CallError {
    /// Why something was not done, and how the host is now: lines for a person.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = vec![plain(&self.to_string())];
        if let Self::Failed(failure) = self {
            match &failure.host {
                HostState::Untouched => lines.push("Nothing was changed.".to_owned()),
                HostState::Undone => {
                    lines.push("What had been done was undone: the host is as before.".to_owned());
                }
                HostState::Left(left) => {
                    lines.push("NOT everything could be undone:".to_owned());
                    lines.extend(left.iter().map(|line| plain(&format!("- {line}"))));
                }
            }
        }
        lines
    }
}

/// Asks for the verdicts of preflight; that the helper can't be asked is the first of them.
pub(crate) fn preflight_verdicts() -> Result<Vec<Verdict>, CallError> {
    match call(&Request::Preflight {}, |_| {}) {
        Ok(Reply::Preflight(verdicts)) => Ok(verdicts),
        Ok(_) => Err(CallError::Refused(UNEXPECTED_REPLY.to_owned())),
        Err(error @ (CallError::Start { .. } | CallError::Refused(_))) => Ok(vec![Verdict {
            check: "helper".to_owned(),
            grade: Grade::Fail,
            found: error.to_string(),
            help: String::new(),
        }]),
        Err(error) => Err(error),
    }
}

/// The installed version of the proxy.
pub(crate) fn installed_version() -> Result<Option<Version>, CallError> {
    match call(&Request::Status {}, |_| {})? {
        Reply::Status(status) => Ok(Status { ..*status }.version),
        _ => Ok(None),
    }
}

/// Has a request carried out, and shows its progress. Blocks until it is done or undone.
pub(crate) fn call(request: &Request, mut progress: impl FnMut(&str)) -> Result<Reply, CallError> {
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
            let _ = errors.by_ref().take(MAX_COMPLAINT_BYTES).read_to_end(&mut kept);
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
        Some(said) => Err(CallError::Refused(plain(said))),
        None => Err(CallError::BrokeOff(status)),
    }
}

/// The next message; `None` at the end, and for what is none.
fn next(reader: &mut impl BufRead) -> Option<Message> {
    let mut line = Vec::new();
    reader.by_ref().take(MAX_MESSAGE_BYTES as u64).read_until(b'\n', &mut line).ok()?;
    serde_json::from_slice(&line).ok()
}
