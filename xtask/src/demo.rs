//! `cargo xtask demo`: the product at work on one machine, shown to somebody who has never seen it.
//!
//! Two processes: this one makes the directory, waits, and removes every trace whatever happens; the other plays the
//! steps as an ordinary user in surroundings of its own.

mod keep;
mod plan;
mod ssh;
mod story;
mod surroundings;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use nix::unistd::mkdtemp;

pub(crate) use self::keep::stop;
use self::plan::{END_TIMEOUT, Plan, Port};
use crate::children::{self, Ended, Signals};
use crate::report::{Context, Result, Row, headline, say, seconds, table};
use crate::{parts, tools, workspace};

/// Gets what is needed, builds, plays the demo, cleans up and sums up.
pub(crate) fn run(keep: bool, no_build: bool) -> Result<ExitCode> {
    tools::ensure(tools::DEMO)?;
    let sshd = parts::openssh_server()?;
    if !no_build {
        headline("Build");
        workspace::build_programs()?;
    }
    let signals = Signals::hold()?;
    children::adopt_orphans()?;
    let begin = Instant::now();
    let net = free_net()?;
    let plan = Plan { dir: make_directory()?, net };
    let played = equip(&plan, &sshd).and_then(|()| watch(&plan, keep, &signals));
    let mut rows = read_rows(&plan);
    if played.as_ref().is_ok_and(|how| matches!(how, Played::Kept)) {
        say(&format!("\n{}", table(&rows)));
        keep::explain(&plan);
        say("demo: ok");
        return Ok(ExitCode::SUCCESS);
    }
    let clean = sweep(&plan, played.is_err());
    rows.extend(clean.as_ref().ok().cloned());
    say(&format!("\n{}", table(&rows)));
    say(&format!("All in {}.", seconds(begin.elapsed())));
    let (verdict, code) = match (played, clean) {
        (Ok(Played::Through | Played::Kept), Ok(_)) => ("demo: ok".to_owned(), 0),
        (Ok(Played::Stopped), Ok(_)) => ("demo: stopped, nothing is left behind".to_owned(), 130),
        (Err(failure), _) => {
            let logs = kept_logs();
            (format!("demo: FAILED at step {failure} (logs are in {})", logs.display()), 1)
        }
        (_, Err(failure)) => (format!("demo: FAILED at step \"Nothing is left behind\": {failure}"), 1),
    };
    say(&verdict);
    Ok(ExitCode::from(code))
}

/// Plays the steps. `run` starts this as a process of its own.
pub(crate) fn play(dir: PathBuf, net: u8, keep: bool) -> Result<ExitCode> {
    nix::unistd::setsid().or_fail(|| "can't start a session".to_owned())?;
    children::adopt_orphans()?;
    let plan = Plan { dir, net };
    keep::follow_parent(&plan);
    let login = surroundings::enter(&plan.dir)?;
    if let Err(failure) = story::tell(&plan, &login, keep) {
        children::end_all(END_TIMEOUT);
        fs::write(plan.failure(), failure.to_string()).or_fail(|| "can't report a failure".to_owned())?;
        return Ok(ExitCode::FAILURE);
    }
    if keep {
        keep::stay(&plan)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// How the steps ended, if not by a failure.
enum Played {
    Through,
    Kept,
    Stopped,
}

fn make_directory() -> Result<PathBuf> {
    let target = workspace::target();
    fs::create_dir_all(&target).or_fail(|| format!("can't make {}", target.display()))?;
    // A socket's path holds 107 bytes, and the longest below the directory has some 40.
    let base = if target.as_os_str().len() < 60 { target } else { std::env::temp_dir() };
    mkdtemp(&base.join("demo-XXXXXX")).or_fail(|| format!("can't make a directory in {}", base.display()))
}

/// The first 127.88.N.x on which every port is free, so that several demos can run at once.
fn free_net() -> Result<u8> {
    (0..=u8::MAX)
        .find(|net| Plan { dir: PathBuf::new(), net: *net }.all_ports().iter().all(|port| port.is_free()))
        .ok_or_else(|| format!("a program holds port {} on every address; end it", plan::PROVISIONING).into())
}

/// Copies the programs to where an ordinary user can run them.
fn equip(plan: &Plan, sshd: &Path) -> Result<()> {
    for dir in [plan.dir.join("bin"), plan.logs(), plan.dir.join("home")] {
        fs::create_dir(&dir).or_fail(|| format!("can't make {}", dir.display()))?;
    }
    let release = workspace::target().join("release");
    for program in workspace::PROGRAMS {
        let from = release.join(program);
        fs::copy(&from, plan.program(program)).or_fail(|| format!("can't copy {}", from.display()))?;
    }
    children::succeed(Command::new("cp").arg("-R").arg(sshd).arg(plan.dir.join("openssh-server")))
}

fn watch(plan: &Plan, keep: bool, signals: &Signals) -> Result<Played> {
    let mut command = children::worker();
    command.arg("demo-play").arg("--dir").arg(&plan.dir).args(["--net", &plan.net.to_string()]);
    if keep {
        command.arg("--keep");
    }
    let term = std::env::var_os("TERM").unwrap_or_default();
    command.env_clear().env("PATH", tools::PATH).env("LANG", "C.UTF-8").env("TERM", term);
    let mut child =
        command.current_dir(&plan.dir).spawn().or_fail(|| "can't start the demo's process".to_owned())?;
    match signals.watch(&mut child, || plan.kept().exists())? {
        Ended::Reached => Ok(Played::Kept),
        Ended::Asked(signal) => {
            say(&format!("\nStopped by {signal}; cleaning up."));
            Ok(Played::Stopped)
        }
        Ended::Exited(status) if status.success() => Ok(Played::Through),
        Ended::Exited(status) => {
            let told = fs::read_to_string(plan.failure());
            Err(told
                .unwrap_or_else(|_| format!("\"Get ready\": the demo's process ended early, {status}"))
                .into())
        }
    }
}

fn read_rows(plan: &Plan) -> Vec<Row> {
    let text = fs::read_to_string(plan.rows()).unwrap_or_default();
    text.lines().filter_map(Row::from_line).collect()
}

/// Removes every trace and looks whether that worked.
fn sweep(plan: &Plan, keep_logs: bool) -> Result<Row> {
    let begin = Instant::now();
    children::end_all(END_TIMEOUT);
    if keep_logs {
        save_logs(plan)?;
    }
    fs::remove_dir_all(&plan.dir).or_fail(|| format!("can't remove {}", plan.dir.display()))?;
    let left = children::descendants(nix::unistd::Pid::this());
    if !left.is_empty() {
        let names: Vec<_> = left.into_iter().map(|(pid, name)| format!("{name} ({pid})")).collect();
        return Err(format!("still running: {}", names.join(", ")).into());
    }
    let open: Vec<_> = plan.all_ports().iter().filter(|port| port.listens()).map(Port::to_string).collect();
    if !open.is_empty() {
        return Err(format!("still listening: {}", open.join(", ")).into());
    }
    Ok(Row {
        step: "Nothing is left behind".into(),
        seen: "no process, no port, no file".into(),
        time: begin.elapsed(),
    })
}

fn kept_logs() -> PathBuf {
    workspace::target().join("demo-logs")
}

/// Moves the logs to where they stay, and shows how each of them ends.
fn save_logs(plan: &Plan) -> Result<()> {
    let kept = kept_logs();
    let _ = fs::remove_dir_all(&kept);
    fs::create_dir_all(&kept).or_fail(|| format!("can't make {}", kept.display()))?;
    let Ok(logs) = fs::read_dir(plan.logs()) else { return Ok(()) };
    for log in logs.flatten() {
        let text = fs::read(log.path()).or_fail(|| format!("can't read {}", log.path().display()))?;
        fs::write(kept.join(log.file_name()), &text)
            .or_fail(|| format!("can't write to {}", kept.display()))?;
        let text = String::from_utf8_lossy(&text);
        let last: Vec<_> = text.lines().rev().take(8).collect();
        if !last.is_empty() {
            headline(&format!("How {} ends", log.file_name().to_string_lossy()));
            last.iter().rev().for_each(|line| say(&format!("   {line}")));
        }
    }
    Ok(())
}
