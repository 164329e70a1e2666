//! `zone-installer-helper`: the only part of the installer that is root.
//!
//! It is started by sudo(8) for user zone-admin, or by root. It knows a fixed list of verbs, validates every
//! argument itself, reads nothing from its environment but who called sudo, and does one change at a time. What it
//! starts gets an environment of ours and an absolute path.

mod audit;
mod configuration;
mod control_port;
mod facts;
mod host;
mod install;
mod package_manager;
mod preflight;
mod proxy;
mod remove;
mod report;
mod run;
mod ssh;
mod units;
mod upgrade;

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::unistd::geteuid;
use rustix::fs::{FlockOperation, Mode, flock};
use rustix::io::Errno;
use rustix::process::umask;

use self::audit::Audit;
use self::host::Host;
use self::package_manager::{Installed, Manager};
use self::report::{say, untouched};
use crate::packages::{Format, PACKAGE};
use crate::paths::Paths;
use crate::protocol::{Failure, MAX_REQUEST_BYTES, Message, Reply, Request, Status};
use crate::settings::Settings;
use crate::signals;

/// The time for the request to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest line of the log that is passed on, characters.
const MAX_LOG_LINE_CHARS: usize = 1000;

/// The helper: one verb as its argument, one request on standard input.
pub fn main() -> ExitCode {
    umask(Mode::WGRP | Mode::WOTH);
    let request = match request(std::env::args_os().skip(1).collect()) {
        Ok(request) => request,
        Err(why) => {
            eprintln!("zone-installer-helper: {why}");
            return ExitCode::from(2);
        }
    };
    // A change is completed or undone also where the one who asked for it goes away.
    if let Err(error) = signals::block() {
        eprintln!("zone-installer-helper: signals can't be held back: {error}");
        return ExitCode::from(2);
    }
    let audit = Audit::of(&request);
    let outcome = carry_out(request, audit.as_ref());
    if let Some(audit) = &audit {
        audit.outcome(&outcome);
    }
    match outcome {
        Ok(reply) => {
            say(&Message::Done(Box::new(reply)));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            say(&Message::Failed(failure));
            ExitCode::FAILURE
        }
    }
}

/// Which packages this host installs; or why none, one line. Takes no privileges.
pub(crate) fn package_format(settings: &Settings) -> Result<Format, String> {
    Manager::find(settings).map(|manager| manager.format()).map_err(|error| error.to_string())
}

fn request(arguments: Vec<OsString>) -> Result<Request, String> {
    let [verb] = <[OsString; 1]>::try_from(arguments).map_err(|_| usage())?;
    let verb = verb.into_string().map_err(|_| usage())?;
    if !Request::VERBS.contains(&verb.as_str()) {
        return Err(usage());
    }
    if !geteuid().is_root() {
        return Err("this must be root's: run zone-installer as zone-admin or as root".to_owned());
    }
    let line = read_request()?;
    let request: Request =
        serde_json::from_slice(&line).map_err(|error| format!("standard input holds no request: {error}"))?;
    if request.verb() != verb {
        return Err(format!("the request on standard input is not about {verb}"));
    }
    request.wrong().map_or(Ok(request), Err)
}

fn usage() -> String {
    format!(
        "usage: zone-installer-helper VERB, one of {}; the request comes on standard input",
        Request::VERBS.join(", ")
    )
}

/// One line, bounded in length and in time.
fn read_request() -> Result<Vec<u8>, String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut line = Vec::new();
        let read = BufReader::new(io::stdin().lock().take(MAX_REQUEST_BYTES)).read_until(b'\n', &mut line);
        // Nobody waits for it any more where it took too long.
        let _ = sender.send(read.map(|_| line));
    });
    let line = receiver
        .recv_timeout(REQUEST_TIMEOUT)
        .map_err(|_| format!("no request came on standard input within {} s", REQUEST_TIMEOUT.as_secs()))?
        .map_err(|error| format!("standard input can't be read: {error}"))?;
    if line.last() == Some(&b'\n') {
        return Ok(line);
    }
    Err(format!("standard input holds no whole line of at most {MAX_REQUEST_BYTES} bytes"))
}

fn carry_out(request: Request, audit: Option<&Audit>) -> Result<Reply, Failure> {
    if let Request::Preflight {} = request {
        let paths = Paths::default();
        let settings = Settings::read(&paths).map_err(untouched)?;
        return Ok(Reply::Preflight(preflight::judge(&facts::gather(&paths, &settings))));
    }
    let host = Host::open()?;
    let _lock = if request.changes() { Some(lock(&host.paths)?) } else { None };
    if let Some(audit) = audit {
        audit.begin();
    }
    match request {
        Request::Install { version, control } => install::install(&host, &version, &control),
        Request::Upgrade { version } => upgrade::upgrade(&host, &version),
        Request::Remove {} => remove::remove(&host),
        Request::Reset {} => {
            host.installed()?;
            proxy::reset().map_err(untouched)?;
            Ok(Reply::Reset)
        }
        Request::ShowPayload {} => {
            host.installed()?;
            proxy::payload().map_err(untouched).map(Reply::Payload)
        }
        Request::Status {} => status(&host),
        Request::FirewallVerify {} => {
            host.installed()?;
            proxy::firewall_verify().map_err(untouched).map(Reply::Firewall)
        }
        Request::FirewallPlan {} => {
            host.installed()?;
            proxy::firewall_plan().map_err(untouched).map(Reply::Plan)
        }
        Request::FirewallExplain { port, from } => {
            host.installed()?;
            let (reachability, lines) = proxy::firewall_explain(port, from).map_err(untouched)?;
            Ok(Reply::Explained { reachability, lines })
        }
        Request::Logs { lines } => logs(lines),
        Request::Settings {} => control_port::show(&host),
        Request::Configure { control, log } => control_port::configure(&host, &control, log),
        // Answered above, also on hosts without a package manager.
        Request::Preflight {} => Ok(Reply::Preflight(Vec::new())),
    }
}

fn status(host: &Host) -> Result<Reply, Failure> {
    let version = match host.manager.installed().map_err(untouched)? {
        Installed::Yes(version) => version,
        Installed::No => {
            let text = format!("{PACKAGE} is not installed\n");
            return Ok(Reply::Status(Box::new(Status {
                version: None,
                units: Vec::new(),
                proxy: None,
                text,
            })));
        }
        Installed::Half => {
            return Err(host.installed().err().unwrap_or_else(|| untouched("it changed just now")));
        }
    };
    let (proxy, text) = match proxy::status() {
        Ok(status) => (Some(status), proxy::status_text().unwrap_or_else(|error| error.to_string())),
        Err(error) => (None, error.to_string()),
    };
    Ok(Reply::Status(Box::new(Status { version: Some(version), units: units::statuses(), proxy, text })))
}

fn logs(lines: u32) -> Result<Reply, Failure> {
    let lines = lines.to_string();
    let shown = [
        "--no-pager",
        "--quiet",
        "--output=short-iso",
        "--lines",
        &lines,
        "--unit=zone-proxy.service",
        "--unit=zone-relay@*.service",
        "--unit=zone-relay-end@*.service",
        "--unit=zone-firewall.service",
        "--unit=zone-firewall-restore.service",
    ];
    let output = run::run("journalctl", &shown, Duration::from_secs(30)).and_then(run::Finished::good);
    let plain = |line: &str| -> String {
        line.chars().map(|c| if c.is_control() { '?' } else { c }).take(MAX_LOG_LINE_CHARS).collect()
    };
    Ok(Reply::Logs(output.map_err(untouched)?.lines().map(plain).collect()))
}

/// One change at a time; the kernel lets go of it when this process ends, however it ends.
fn lock(paths: &Paths) -> Result<File, Failure> {
    let path = paths.lock.display();
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&paths.lock)
        .map_err(|error| untouched(format!("{path} can't be opened: {error}")))?;
    let locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
    locked.map(|()| file).map_err(|error| match error {
        Errno::WOULDBLOCK => untouched("another change is under way: wait for its end, then try again"),
        error => untouched(format!("{path} can't be locked: {error}")),
    })
}
