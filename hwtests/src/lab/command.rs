//! Commands for hosts, and running them with a deadline and a bounded memory.

use std::fmt;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::error::{Error, Result};

/// How long a command may take unless it says otherwise.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of a command's output is kept, bytes per stream.
pub const MAX_OUTPUT_BYTES: usize = 4 * 1024 * 1024;
/// How long a pipe may stay open after its command, in the hands of what the command left running.
const PIPE_TIMEOUT: Duration = Duration::from_millis(300);

/// A command for a host.
#[derive(Debug, Clone)]
pub struct Cmd {
    pub(crate) program: String,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) input: Vec<u8>,
    pub(crate) user: Option<String>,
    pub(crate) limit: Duration,
}

impl Cmd {
    /// A program, looked for on the host's usual path.
    pub fn new(program: impl Into<String>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            input: Vec::new(),
            user: None,
            limit: COMMAND_TIMEOUT,
        }
    }

    /// A line for `sh -c`.
    pub fn sh(line: impl Into<String>) -> Self {
        Self::new("sh").arg("-c").arg(line)
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable. The environment is otherwise `PATH`, `HOME`, `LANG` and `TERM`.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// What it reads from standard input, which is empty otherwise.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// The host's user that it runs as; root otherwise.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// How long it may take.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Program and arguments, with the environment and the user that were asked for.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if let Some(user) = &self.user {
            words.extend(["setpriv", "--reuid", user, "--regid", user, "--init-groups"].map(str::to_owned));
        }
        if !self.env.is_empty() {
            words.push("env".to_owned());
            words.extend(self.env.iter().map(|(name, value)| format!("{name}={value}")));
        }
        words.push(self.program.clone());
        words.extend(self.args.iter().cloned());
        words
    }
}

impl fmt::Display for Cmd {
    /// As it would be typed into a shell.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = std::iter::once(&self.program).chain(&self.args).map(|word| quote(word));
        f.write_str(&words.collect::<Vec<_>>().join(" "))
    }
}

fn quote(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,@%+".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// What a command did.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it wrote to standard output, bad UTF-8 replaced.
    pub stdout: String,
    /// What it wrote to standard error, bad UTF-8 replaced.
    pub stderr: String,
    /// How long it took.
    pub time: Duration,
}

impl Output {
    /// Whether it ended with 0.
    pub fn ok(&self) -> bool {
        self.status.success()
    }

    /// Its exit code; `128 + signal` where a signal ended it, as shells have it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Both streams, standard output first.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Runs a ready command of this machine. `host` and `shown` are for messages.
pub(crate) fn run(
    host: &str,
    shown: &str,
    mut command: Command,
    input: &[u8],
    limit: Duration,
) -> Result<Output> {
    let begin = Instant::now();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(|source| Error::Start {
        host: host.to_owned(),
        command: shown.to_owned(),
        source,
    })?;
    let group = Pid::from_raw(child.id().cast_signed());
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    if let Some(mut pipe) = child.stdin.take() {
        let input = input.to_vec();
        // A command that doesn't read all of its input is none of our business.
        thread::spawn(move || pipe.write_all(&input));
    }
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait()));
    let overdue = || Error::Overdue { host: host.to_owned(), what: format!("`{shown}`"), limit };
    let Ok(status) = ended.recv_timeout(limit) else {
        // It may have ended in between.
        let _ = killpg(group, Signal::SIGKILL);
        return Err(overdue());
    };
    let status =
        status.map_err(|source| Error::System { what: format!("can't wait for {shown}"), source })?;
    let text = |pipe: Collected| pipe.text();
    Ok(Output { status, stdout: text(stdout), stderr: text(stderr), time: begin.elapsed() })
}

/// A pipe that is being read to its end.
struct Collected {
    pieces: mpsc::Receiver<Vec<u8>>,
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> Collected {
    let (sender, pieces) = mpsc::channel();
    thread::spawn(move || {
        let Some(mut pipe) = pipe else { return };
        let (mut kept, mut buffer) = (0, vec![0; 64 * 1024]);
        while let Ok(length @ 1..) = pipe.read(&mut buffer) {
            let room = MAX_OUTPUT_BYTES.saturating_sub(kept).min(length);
            kept += room;
            if room > 0 && sender.send(buffer[..room].to_vec()).is_err() {
                return;
            }
        }
    });
    Collected { pieces }
}

impl Collected {
    fn text(self) -> String {
        let mut all = Vec::new();
        let deadline = Instant::now() + PIPE_TIMEOUT;
        while let Ok(piece) = self.pieces.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            all.extend(piece);
        }
        String::from_utf8_lossy(&all).into_owned()
    }
}

/// Runs a command of this machine that must succeed.
pub(crate) fn succeed(shown: &str, command: Command, input: &[u8], limit: Duration) -> Result<Output> {
    let output = run("this machine", shown, command, input, limit)?;
    must("this machine", shown, output)
}

/// Makes an exit status other than 0 an error.
pub(crate) fn must(host: &str, shown: &str, output: Output) -> Result<Output> {
    if output.ok() {
        return Ok(output);
    }
    let text = output.text();
    let said: Vec<_> = text.lines().rev().filter(|line| !line.trim().is_empty()).take(3).collect();
    Err(Error::Failed {
        host: host.to_owned(),
        command: shown.to_owned(),
        status: output.status.to_string(),
        said: said.into_iter().rev().collect::<Vec<_>>().join(" | "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(line: &str) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(line);
        command
    }

    #[test]
    fn a_command_is_shown_as_it_would_be_typed() {
        let cmd = Cmd::sh("echo 'a b'").arg("");
        assert_eq!(cmd.to_string(), r"sh -c 'echo '\''a b'\''' ''");
    }

    #[test]
    fn both_streams_and_the_status_are_kept() {
        let output =
            run("here", "it", sh("cat; echo bad >&2; exit 3"), b"good", COMMAND_TIMEOUT).expect("it ran");
        assert_eq!((output.code(), output.text().as_str()), (3, "goodbad\n"));
    }

    #[test]
    fn a_silent_command_is_overdue_and_ended() {
        let error =
            run("here", "sleep", sh("sleep 60"), b"", Duration::from_millis(50)).expect_err("too long");
        assert_eq!(error.to_string(), "here: `sleep` took longer than 0.05 s");
    }

    #[test]
    fn what_a_command_leaves_running_does_not_hold_it_up() {
        let begin = Instant::now();
        let output = run("here", "it", sh("echo done; sleep 20 &"), b"", COMMAND_TIMEOUT).expect("it ran");
        assert_eq!(output.stdout, "done\n");
        assert!(begin.elapsed() < Duration::from_secs(10));
    }
}
