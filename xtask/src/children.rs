//! Processes that this one started, directly or not: watched, read from, and all ended.
//!
//! The relay outlives control by design, so ending only direct children would leave it behind. A guard is a child
//! subreaper: whatever is orphaned below it becomes its own child, and nothing below it can get away.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::signal::{self, SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::report::{Context, Result, say};

const GLANCE: Duration = Duration::from_millis(20);

/// Why a guard stopped watching.
pub(crate) enum Ended {
    /// The worker ended by itself.
    Exited(ExitStatus),
    /// A person or the system asked to stop.
    Asked(Signal),
    /// What the guard waited for came true.
    Reached,
}

/// The signals that ask to stop, held back so that a guard can clean up first.
pub(crate) struct Signals(Receiver<Signal>);

impl Signals {
    /// Holds them back from now on. Call it before any thread is started.
    pub(crate) fn hold() -> Result<Self> {
        let set = stop_signals();
        set.thread_block().or_fail(|| "can't block signals".to_owned())?;
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            while let Ok(signal) = set.wait() {
                if sender.send(signal).is_err() {
                    break;
                }
            }
        });
        Ok(Self(receiver))
    }

    /// Undoes what a worker inherited from its guard.
    pub(crate) fn release() -> Result<()> {
        stop_signals().thread_unblock().or_fail(|| "can't unblock signals".to_owned())
    }

    /// Waits for the worker's end, for a signal, or until `reached` says so.
    pub(crate) fn watch(&self, worker: &mut Child, reached: impl Fn() -> bool) -> Result<Ended> {
        loop {
            if let Ok(signal) = self.0.recv_timeout(GLANCE) {
                return Ok(Ended::Asked(signal));
            }
            if let Some(status) = worker.try_wait().or_fail(|| "can't wait for the worker".to_owned())? {
                return Ok(Ended::Exited(status));
            }
            if reached() {
                return Ok(Ended::Reached);
            }
        }
    }
}

fn stop_signals() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT].into_iter().collect()
}

/// Makes this process the parent of everything below it that loses its own.
pub(crate) fn adopt_orphans() -> Result<()> {
    prctl::set_child_subreaper(true).or_fail(|| "can't become a child subreaper".to_owned())
}

/// This program again, as a worker of this process.
pub(crate) fn worker() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg("--guarded");
    command
}

/// Runs this very command as a worker and ends whatever it leaves behind.
pub(crate) fn guard_this_command(grace: Duration) -> Result<ExitCode> {
    let signals = Signals::hold()?;
    adopt_orphans()?;
    let mut command = worker();
    command.args(std::env::args_os().skip(1));
    let mut child = command.spawn().or_fail(|| "can't start the worker".to_owned())?;
    let ended = signals.watch(&mut child, || false)?;
    let grace = if matches!(ended, Ended::Asked(_)) { grace } else { Duration::from_secs(2) };
    end_all(grace);
    match ended {
        Ended::Exited(status) => Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1))),
        Ended::Asked(signal) => {
            say(&format!("stopped by {signal}"));
            Ok(ExitCode::from(130))
        }
        Ended::Reached => Ok(ExitCode::SUCCESS),
    }
}

/// Ends every process below this one, politely until `grace` is over, and returns the names of those that it found.
pub(crate) fn end_all(grace: Duration) -> Vec<String> {
    end_below(Pid::this(), grace)
}

/// Ends every process below `top`, which must be a subreaper, and returns the names of those that it found.
pub(crate) fn end_below(top: Pid, grace: Duration) -> Vec<String> {
    let start = Instant::now();
    let mut found = BTreeMap::new();
    loop {
        reap();
        let living = descendants(top);
        if living.is_empty() || start.elapsed() > grace + Duration::from_secs(10) {
            return found.into_values().collect();
        }
        let late = start.elapsed() > grace;
        for (pid, name) in living {
            if found.insert(pid, name).is_none() || late {
                let signal = if late { Signal::SIGKILL } else { Signal::SIGTERM };
                // It may have ended in between, which is what is wanted.
                let _ = signal::kill(pid, signal);
            }
        }
        thread::sleep(GLANCE);
    }
}

/// Every living process below `top`, with its name.
pub(crate) fn descendants(top: Pid) -> BTreeMap<Pid, String> {
    let all = processes();
    let mut tree = BTreeSet::from([top]);
    loop {
        let before = tree.len();
        tree.extend(
            all.iter()
                .filter(|process| tree.contains(&process.parent))
                .map(|process| process.pid)
                .collect::<Vec<_>>(),
        );
        if tree.len() == before {
            break;
        }
    }
    all.into_iter()
        .filter(|process| process.pid != top && !process.dead && tree.contains(&process.pid))
        .map(|process| (process.pid, process.name))
        .collect()
}

struct Process {
    pid: Pid,
    parent: Pid,
    name: String,
    dead: bool,
}

fn processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit))
        .filter_map(|entry| parse_stat(&fs::read_to_string(entry.path().join("stat")).ok()?))
        .collect()
}

/// Reads `/proc/PID/stat`, whose second field may hold blanks and parentheses.
fn parse_stat(stat: &str) -> Option<Process> {
    let (pid, rest) = stat.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let mut rest = rest.split(' ');
    let dead = matches!(rest.next()?, "Z" | "X");
    let parent = Pid::from_raw(rest.next()?.parse().ok()?);
    Some(Process { pid: Pid::from_raw(pid.parse().ok()?), parent, name: name.to_owned(), dead })
}

/// Takes the exit status of every child that ended.
pub(crate) fn reap() {
    while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive)
    {
    }
}

/// Where a command's standard error goes.
pub(crate) enum Errors {
    /// Among the lines of its standard output.
    Merged,
    /// To a file.
    To(File),
}

/// Runs a command for at most `limit` and hands on each line as it comes.
pub(crate) fn lines(
    mut command: Command,
    errors: Errors,
    limit: Duration,
    mut sink: impl FnMut(&str),
) -> Result<ExitStatus> {
    let name = command.get_program().to_string_lossy().into_owned();
    let (reader, writer) = std::io::pipe().or_fail(|| "can't make a pipe".to_owned())?;
    match errors {
        Errors::Merged => command.stderr(writer.try_clone().or_fail(|| "can't share a pipe".to_owned())?),
        Errors::To(file) => command.stderr(file),
    };
    command.stdout(writer);
    let mut child = command.spawn().or_fail(|| format!("can't start {name}"))?;
    // The command holds the pipe's other end open for as long as it lives.
    drop(command);
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || split_lines(BufReader::new(reader), |line| sender.send(line).is_ok()));
    let deadline = Instant::now() + limit;
    loop {
        match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => sink(&line),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => return Err(overdue(&mut child, &name, limit)),
        }
    }
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().or_fail(|| format!("can't wait for {name}"))? {
            return Ok(status);
        }
        thread::sleep(GLANCE);
    }
    Err(overdue(&mut child, &name, limit))
}

/// Hands on each line until `more` says no. rsync ends its progress lines with a carriage return alone.
fn split_lines(mut reader: impl BufRead, mut more: impl FnMut(String) -> bool) {
    let mut line = Vec::new();
    while let Ok(bytes @ [_, ..]) = reader.fill_buf() {
        let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let taken = end.map_or(bytes.len(), |end| end + 1);
        line.extend_from_slice(&bytes[..end.unwrap_or(taken)]);
        reader.consume(taken);
        if end.is_some() && !more(String::from_utf8_lossy(&std::mem::take(&mut line)).into_owned()) {
            return;
        }
    }
    if !line.is_empty() {
        more(String::from_utf8_lossy(&line).into_owned());
    }
}

/// Copies a pipe to where it would have gone and returns what went through.
pub(crate) fn pass_on(mut pipe: impl Read, mut out: impl Write) -> String {
    let mut all = Vec::new();
    let mut buffer = [0; 8192];
    while let Ok(length @ 1..) = pipe.read(&mut buffer) {
        all.extend_from_slice(&buffer[..length]);
        // Where nobody reads any more, the command still runs to its end.
        let _ = out.write_all(&buffer[..length]).and_then(|()| out.flush());
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// Runs a command that must succeed; its words go to the screen.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().or_fail(|| format!("can't start {name}"))?;
    if status.success() { Ok(()) } else { Err(format!("{name} failed ({status}); it says why above").into()) }
}

/// Runs a command that must succeed and returns what it wrote to standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().or_fail(|| format!("can't start {name}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
    }
}

fn overdue(child: &mut Child, name: &str, limit: Duration) -> crate::report::Failure {
    let _ = child.kill();
    let _ = child.wait();
    format!("{name} did not finish within {} s", limit.as_secs()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_may_hold_anything() {
        let process = parse_stat("42 (a) (b c) S 7 42 42 0").expect("a process");
        assert_eq!((process.pid.as_raw(), process.parent.as_raw()), (42, 7));
        assert_eq!(process.name, "a) (b c");
        assert!(!process.dead);
    }

    #[test]
    fn lines_come_in_order_and_a_silent_command_is_overdue() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; exit 3"]);
        let mut seen = Vec::new();
        let status =
            lines(command, Errors::Merged, Duration::from_secs(10), |line| seen.push(line.to_owned()))
                .expect("it ran");
        assert_eq!((seen, status.code()), (vec!["one".to_owned(), "two".to_owned()], Some(3)));

        let mut seen = Vec::new();
        split_lines(&b"10%\r20%\rdone\nend"[..], |line| {
            seen.push(line);
            true
        });
        assert_eq!(seen, ["10%", "20%", "done", "end"]);

        let mut command = Command::new("sleep");
        command.arg("30");
        assert!(lines(command, Errors::Merged, Duration::from_millis(50), |_| ()).is_err());
    }
}
