//! The terminal: bounded lines in, text out, signals as events. The terminal itself edits the line that is typed.

use std::io;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read, write};
use rustix::time::Timespec;

use super::machine::Event;
use crate::signals::{Meaning, Signals};

/// The longest answer, bytes.
const MAX_LINE_BYTES: usize = 512;
/// What is read or written at once, bytes.
const PIECE_BYTES: usize = 512;

/// Standard input and output.
pub(super) struct Terminal {
    signals: Signals,
    idle: Duration,
    /// What was read and is no whole line yet, or more than one.
    unread: Vec<u8>,
    /// A line is being dropped that is too long.
    dropping: bool,
}

impl Terminal {
    /// Takes over signals; `idle` is the time without input after which [`Event::Idle`] comes.
    pub(super) fn new(idle: Duration) -> io::Result<Self> {
        Ok(Self { signals: Signals::new()?, idle, unread: Vec::new(), dropping: false })
    }

    /// Waits for the next event.
    pub(super) fn next(&mut self) -> io::Result<Event> {
        let mut deadline = Instant::now() + self.idle;
        loop {
            if let Some(event) = self.line() {
                return Ok(event);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let input = io::stdin();
            let mut waiting = [PollFd::new(&self.signals, PollFlags::IN), PollFd::new(&input, PollFlags::IN)];
            match poll(&mut waiting, Some(&timeout(left))) {
                Ok(0) => return Ok(Event::Idle),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let typed = !waiting[1].revents().is_empty();
            match self.signals.next() {
                Some(Meaning::End) => return Ok(Event::End),
                Some(Meaning::Interrupt) => {
                    // What was typed before it was not meant.
                    self.unread.clear();
                    return Ok(Event::Interrupt);
                }
                None => {}
            }
            if typed {
                let mut piece = [0; PIECE_BYTES];
                match read(&input, &mut piece) {
                    Ok(0) | Err(Errno::IO) => return Ok(Event::End),
                    Ok(length) => self.unread.extend_from_slice(&piece[..length]),
                    Err(Errno::INTR | Errno::AGAIN) => {}
                    Err(error) => return Err(error.into()),
                }
                deadline = Instant::now() + self.idle;
            }
        }
    }

    /// Forgets the signals that came while something was being done: they were for that.
    pub(super) fn forget_signals(&self) -> Option<Event> {
        let mut ends = false;
        while let Some(meaning) = self.signals.next() {
            ends |= meaning == Meaning::End;
        }
        ends.then_some(Event::End)
    }

    /// Writes text; an error where nobody takes it for as long as nobody may be silent.
    pub(super) fn write(&self, text: &str) -> io::Result<()> {
        let output = io::stdout();
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let mut waiting = [PollFd::new(&output, PollFlags::OUT)];
            match poll(&mut waiting, Some(&timeout(self.idle))) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            match write(&output, &rest[..rest.len().min(PIECE_BYTES)]) {
                Ok(length) => rest = &rest[length..],
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The next whole line of what was read.
    fn line(&mut self) -> Option<Event> {
        let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') else {
            if self.dropping || self.unread.len() > MAX_LINE_BYTES {
                self.dropping = true;
                self.unread.clear();
            }
            return None;
        };
        let mut line: Vec<u8> = self.unread.drain(..=end).collect();
        if std::mem::take(&mut self.dropping) || line.len() > MAX_LINE_BYTES {
            return Some(Event::TooLong);
        }
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Some(Event::Line(String::from_utf8_lossy(&line).into_owned()))
    }
}

fn timeout(time: Duration) -> Timespec {
    // Longer ones than the kernel takes are as good as none.
    Timespec::try_from(time).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 })
}
