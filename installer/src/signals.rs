//! Signals are read from a descriptor, never handled: Ctrl-C is an answer at a prompt, and interrupts nothing else.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What a terminal or an ending login sends.
const SIGNALS: [Signal; 5] =
    [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTSTP, Signal::SIGHUP, Signal::SIGTERM];

/// Holds them back for this process, its threads to come and what it starts.
pub(crate) fn block() -> io::Result<()> {
    Ok(set().thread_block()?)
}

/// The signals that came.
#[derive(Debug)]
pub(crate) struct Signals(SignalFd);

/// What a signal means to a menu.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Ctrl-C, Ctrl-\ or Ctrl-Z.
    Interrupt,
    /// The login ends.
    End,
}

impl Signals {
    /// Blocks them, and reads them from now on.
    pub(crate) fn new() -> io::Result<Self> {
        block()?;
        Ok(Self(SignalFd::with_flags(&set(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// The next one that came, if any did.
    pub(crate) fn next(&self) -> Option<Meaning> {
        let signal = self.0.read_signal().ok().flatten()?;
        let ends = [Signal::SIGHUP, Signal::SIGTERM].iter().any(|end| *end as u32 == signal.ssi_signo);
        Some(if ends { Meaning::End } else { Meaning::Interrupt })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn set() -> SigSet {
    SIGNALS.into_iter().collect()
}
