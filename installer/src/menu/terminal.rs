//! The terminal: bounded lines in, text out, signals as events. The terminal itself edits the line that is typed.

use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{read, write};

use super::machine::Event;
use crate::signals::{Meaning, Signals};

/// The longest answer, bytes.
const LONGEST: usize = 512;
/// What is read or written at once, bytes.
const PIECE: usize = 512;

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
            let mut waiting = [
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(input.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut waiting, timeout(left)) {
                Ok(0) => return Ok(Event::Idle),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let typed = waiting[1].any().unwrap_or(false);
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
                let mut piece = [0; PIECE];
                match read(input.as_fd(), &mut piece) {
                    Ok(0) | Err(Errno::EIO) => return Ok(Event::End),
                    Ok(length) => self.unread.extend_from_slice(&piece[..length]),
                    Err(Errno::EINTR | Errno::EAGAIN) => {}
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
            let mut waiting = [PollFd::new(output.as_fd(), PollFlags::POLLOUT)];
            match poll(&mut waiting, timeout(self.idle)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            }
            match write(output.as_fd(), &rest[..rest.len().min(PIECE)]) {
                Ok(length) => rest = &rest[length..],
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The next whole line of what was read.
    fn line(&mut self) -> Option<Event> {
        let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') else {
            if self.dropping || self.unread.len() > LONGEST {
                self.dropping = true;
                self.unread.clear();
            }
            return None;
        };
        let mut line: Vec<u8> = self.unread.drain(..=end).collect();
        if std::mem::take(&mut self.dropping) || line.len() > LONGEST {
            return Some(Event::TooLong);
        }
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Some(Event::Line(String::from_utf8_lossy(&line).into_owned()))
    }
}

fn timeout(time: Duration) -> PollTimeout {
    // Rounded up, so that it is over when poll(2) says so.
    let milliseconds = time.as_millis().saturating_add(1);
    PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
}
