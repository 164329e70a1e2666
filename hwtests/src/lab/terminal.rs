//! A program at a terminal: keystrokes go in, and what a person would read comes out.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::command::MAX_OUTPUT_BYTES;
use super::error::{Context, Error, Result};
use super::process::POLL_INTERVAL;

const SIZE: Winsize = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };

/// A program at a terminal of 80 columns and 24 rows. It ends with this handle.
pub struct Terminal {
    host: String,
    child: Child,
    master: File,
    read: Arc<(Mutex<Transcript>, Condvar)>,
    /// How far [`Terminal::expect`] has come in the plain text.
    seen: usize,
}

#[derive(Default)]
struct Transcript {
    bytes: Vec<u8>,
    closed: bool,
}

impl Terminal {
    /// Starts a ready command of this machine at a new terminal, which it controls.
    pub(crate) fn start(host: &str, command: &Command) -> Result<Self> {
        let OpenptyResult { master, slave } =
            openpty(Some(&SIZE), None).during(|| "can't make a terminal".to_owned())?;
        let share = || slave.try_clone().during(|| "can't share a terminal".to_owned());
        // setsid(1) makes the terminal the session's own, so that Ctrl-C becomes a signal.
        let mut session = Command::new("setsid");
        session.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        session.stdin(share()?).stdout(share()?).stderr(share()?);
        let child = session.spawn().map_err(|source| Error::Start {
            host: host.to_owned(),
            command: command.get_program().to_string_lossy().into_owned(),
            source,
        })?;
        drop((session, slave));
        let master = File::from(master);
        let mut reader = master.try_clone().during(|| "can't share a terminal".to_owned())?;
        let read = Arc::new((Mutex::new(Transcript::default()), Condvar::new()));
        let shared = Arc::clone(&read);
        thread::spawn(move || {
            let mut buffer = vec![0; 16 * 1024];
            // The end of the last program at it reads as EIO.
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                let mut transcript = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
                let room = MAX_OUTPUT_BYTES.saturating_sub(transcript.bytes.len()).min(length);
                transcript.bytes.extend_from_slice(&buffer[..room]);
                shared.1.notify_all();
            }
            shared.0.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
            shared.1.notify_all();
        });
        Ok(Self { host: host.to_owned(), child, master, read, seen: 0 })
    }

    /// Types keys; `\r` is the Enter key, `\u{3}` Ctrl-C, `\u{4}` end of file.
    pub fn send(&mut self, keys: &str) -> Result<()> {
        self.send_bytes(keys.as_bytes())
    }

    /// Types any bytes.
    pub fn send_bytes(&mut self, keys: &[u8]) -> Result<()> {
        self.master.write_all(keys).during(|| format!("{}: can't type at the terminal", self.host))
    }

    /// Waits until the program has written `text` since the last match, and returns what came up to its end.
    pub fn expect(&mut self, text: &str, limit: Duration) -> Result<String> {
        self.expect_any(&[text], limit).map(|(_, seen)| seen)
    }

    /// Waits for the first of some texts, and returns which it was and what came up to its end.
    pub fn expect_any(&mut self, texts: &[&str], limit: Duration) -> Result<(usize, String)> {
        let deadline = Instant::now() + limit;
        let mut transcript = self.read.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let plain = plain(&transcript.bytes);
            let new = plain.get(self.seen..).unwrap_or_default();
            let found = texts
                .iter()
                .enumerate()
                .filter_map(|(index, text)| Some((new.find(text)? + text.len(), index)))
                .min();
            if let Some((end, index)) = found {
                let matched = new[..end].to_owned();
                self.seen += end;
                return Ok((index, matched));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if transcript.closed || left.is_zero() {
                let why = if transcript.closed { "the program ended" } else { "it took too long" };
                return Err(Error::other(format!(
                    "{}: waited at the terminal for {texts:?}, and {why}; it shows: {}",
                    self.host,
                    last_lines(new, 6)
                )));
            }
            transcript = self.read.1.wait_timeout(transcript, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// All that was written so far, without colours and cursor movements.
    pub fn text(&self) -> String {
        plain(&self.read.0.lock().unwrap_or_else(PoisonError::into_inner).bytes)
    }

    /// Waits for the program's end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) =
                self.child.try_wait().during(|| format!("{}: can't wait for a program", self.host))?
            {
                return Ok(status);
            }
            if Instant::now() > deadline {
                let what = format!("the end of a program at a terminal ({})", last_lines(&self.text(), 3));
                return Err(Error::Overdue { host: self.host.clone(), what, limit });
            }
            thread::sleep(POLL_INTERVAL);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // setsid(1) passes no signal on; closing the terminal hangs up what runs at it.
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join(" | ")
}

/// Text without escape sequences (ECMA-48: CSI, OSC and two-character ones) and carriage returns.
pub fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(one) = chars.next() {
        match one {
            '\u{1b}' => match chars.next() {
                Some('[') => {
                    chars.by_ref().find(|c| ('\u{40}'..='\u{7e}').contains(c));
                }
                Some(']') => {
                    chars.by_ref().find(|c| *c == '\u{7}' || *c == '\\');
                }
                Some('(' | ')') => {
                    chars.next();
                }
                _ => {}
            },
            '\r' | '\u{7}' | '\u{f}' | '\u{e}' => {}
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

    #[test]
    fn escape_sequences_are_no_text() {
        assert_eq!(plain(b"\x1b[1;31mred\x1b[0m\r\n\x1b]0;title\x07\x1b(Bend"), "red\nend");
    }

    #[test]
    fn a_program_is_answered_at_its_terminal() {
        let mut command = Command::new("sh");
        command.args(["-c", "stty size; printf 'name? '; read name; echo hello $name; exit 4"]);
        let mut terminal = Terminal::start("here", &command).expect("a terminal");
        terminal.expect("24 80", ANSWER_TIMEOUT).expect("its size");
        terminal.expect("name? ", ANSWER_TIMEOUT).expect("a prompt");
        terminal.send("you\r").expect("typed");
        terminal.expect("hello you", ANSWER_TIMEOUT).expect("a greeting");
        assert_eq!(terminal.wait(ANSWER_TIMEOUT).expect("its end").code(), Some(4));
        assert!(terminal.expect("more", ANSWER_TIMEOUT).is_err());
    }

    #[test]
    fn control_c_is_a_signal() {
        let mut command = Command::new("sh");
        command.args(["-c", "trap 'echo caught; exit' INT; echo ready; while :; do sleep 0.1; done"]);
        let mut terminal = Terminal::start("here", &command).expect("a terminal");
        terminal.expect("ready", ANSWER_TIMEOUT).expect("it runs");
        terminal.send("\u{3}").expect("typed");
        terminal.expect("caught", ANSWER_TIMEOUT).expect("the signal");
    }
}
