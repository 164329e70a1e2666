//! `zone-installer-helper`: the only part of the installer that is root.
//!
//! It is started by sudo(8) for user zone-admin, or by root. It knows a fixed list of verbs, validates every
//! argument itself, reads nothing from its environment but who called sudo, and does one change at a time. What it
//! starts gets an environment of ours and an absolute path.

mod audit;
mod configuration;
mod facts;
mod install;
mod manager;
mod preflight;
mod proxy;
mod remove;
mod run;
mod settings;
mod units;
mod upgrade;

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::{Mode, umask};
use nix::unistd::geteuid;

use self::audit::Audit;
use self::manager::{Installed, Manager};
use crate::packages::{Format, PACKAGE};
use crate::paths::Paths;
use crate::protocol::{Failure, LONGEST_REQUEST, Message, Reply, Request, Status};
use crate::settings::Settings;
use crate::signals;
use crate::version::Version;

/// For the request to arrive.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest line of the log that is passed on, characters.
const LONGEST_LINE: usize = 1000;

/// What every operation works on.
struct Host {
    paths: Paths,
    settings: Settings,
    manager: Manager,
}

impl Host {
    fn open() -> Result<Self, Failure> {
        let paths = Paths::default();
        let settings = Settings::read(&paths).map_err(untouched)?;
        let manager = Manager::find(&settings).map_err(untouched)?;
        Ok(Self { paths, settings, manager })
    }

    /// The installed version; a failure if there is none.
    fn installed(&self) -> Result<Version, Failure> {
        match self.manager.installed().map_err(untouched)? {
            Installed::Yes(version) => Ok(version),
            Installed::No => {
                Err(untouched("zone-proxy is not installed: 'zone-installer list' shows what there is"))
            }
            Installed::Half => Err(untouched(
                "an earlier installation broke off: 'zone-installer remove', then install again",
            )),
        }
    }
}

/// The helper: one verb as its argument, one request on standard input.
pub fn main() -> ExitCode {
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
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
pub fn package_format(settings: &Settings) -> Result<Format, String> {
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
        let read = BufReader::new(io::stdin().lock().take(LONGEST_REQUEST)).read_until(b'\n', &mut line);
        // Nobody waits for it any more where it took too long.
        let _ = sender.send(read.map(|_| line));
    });
    let line = receiver
        .recv_timeout(PATIENCE)
        .map_err(|_| format!("no request came on standard input within {} s", PATIENCE.as_secs()))?
        .map_err(|error| format!("standard input can't be read: {error}"))?;
    if line.last() == Some(&b'\n') {
        return Ok(line);
    }
    Err(format!("standard input holds no whole line of at most {LONGEST_REQUEST} bytes"))
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
        Request::Logs { lines } => logs(lines),
        Request::Settings {} => settings::show(&host),
        Request::Configure { control } => settings::configure(&host, &control),
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
        "--unit=zone-firewall.service",
        "--unit=zone-firewall-restore.service",
    ];
    let output = run::run("journalctl", &shown, Duration::from_secs(30)).and_then(run::Finished::good);
    let plain = |line: &str| -> String {
        line.chars().map(|c| if c.is_control() { '?' } else { c }).take(LONGEST_LINE).collect()
    };
    Ok(Reply::Logs(output.map_err(untouched)?.lines().map(plain).collect()))
}

/// One change at a time; the kernel lets go of it when this process ends, however it ends.
fn lock(paths: &Paths) -> Result<Flock<File>, Failure> {
    let path = paths.lock.display();
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&paths.lock)
        .map_err(|error| untouched(format!("{path} can't be opened: {error}")))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        Errno::EWOULDBLOCK => untouched("another change is under way: wait for its end, then try again"),
        error => untouched(format!("{path} can't be locked: {error}")),
    })
}

fn progress(line: impl Into<String>) {
    say(&Message::Progress(line.into()));
}

fn say(message: &Message) {
    if let Ok(mut line) = serde_json::to_vec(message) {
        line.push(b'\n');
        // Whoever asked may be gone; the change goes on to its end.
        let _ = io::stdout().lock().write_all(&line).and_then(|()| io::stdout().flush());
    }
}

/// A failure before anything was changed.
#[allow(clippy::needless_pass_by_value, reason = "stands in map_err, which hands over the error")]
fn untouched(why: impl ToString) -> Failure {
    Failure::untouched(why.to_string())
}
