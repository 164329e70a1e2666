//! What may change the answer: commits to the rules, and the host's addresses and interfaces.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

use rustix::time::Timespec;
use zone_ruleset::{Generation, ReadError, Subscription};

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR` (rtnetlink.h).
const LINKS_AND_ADDRESSES: u32 = 0x1 | 0x10 | 0x100;
/// How many bytes of notices are taken at once.
const NOTICE_BYTES: usize = 64 * 1024;
/// The most processes that are remembered as having changed rules.
const MAX_PROCESSES: usize = 4;

/// Changes are not told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// Those of the rules.
    #[error("changes of the rules are not told: {0}")]
    Rules(#[from] ReadError),
    /// Those of the network.
    #[error("changes of addresses are not told: {0}")]
    Network(Errno),
}

/// Both subscriptions, and what of their news is older than the last judgement.
pub(super) struct Sources {
    rules: Subscription,
    network: OwnedFd,
    /// The generation of the rules that were judged last.
    judged: Option<u32>,
    /// Who has changed rules since.
    by: BTreeSet<String>,
}

impl Sources {
    /// Subscribes. What changes from now on is told.
    pub(super) fn open() -> Result<Self, SourceError> {
        let network = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            // NETLINK_ROUTE is protocol 0.
            None,
        );
        let network = network.map_err(SourceError::Network)?;
        rustix::net::bind(&network, &SocketAddrNetlink::new(0, LINKS_AND_ADDRESSES))
            .map_err(SourceError::Network)?;
        Ok(Self { rules: Subscription::open()?, network, judged: None, by: BTreeSet::new() })
    }

    /// What becomes readable when there is something to [`Self::drain`].
    pub(super) fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.rules.as_fd(), self.network.as_fd()]
    }

    /// Takes all news, and says whether something has changed since the last judgement. Where the kernel had to drop news,
    /// something may have.
    pub(super) fn drain(&mut self) -> Result<bool, SourceError> {
        let changes = self.rules.drain()?;
        let mut changed = changes.lost;
        for commit in changes.commits {
            if self.judged.is_some_and(|judged| !is_later(commit.number, judged)) {
                continue;
            }
            changed = true;
            if self.by.len() < MAX_PROCESSES {
                self.by.extend(commit.process.map(|(pid, name)| format!("{name}[{pid}]")));
            }
        }
        Ok(self.drain_network()? || changed)
    }

    /// Says that rules of this generation were judged: news of it and of those before, our own changes among them, are
    /// old. Returns who had changed them since the judgement before, in words.
    pub(super) fn judged(&mut self, generation: &Generation) -> String {
        self.judged = Some(generation.number);
        std::mem::take(&mut self.by).into_iter().collect::<Vec<_>>().join(", ")
    }

    fn drain_network(&self) -> Result<bool, SourceError> {
        let mut notice = vec![0; NOTICE_BYTES];
        let mut changed = false;
        loop {
            match rustix::net::recv(&self.network, &mut notice[..], RecvFlags::empty()) {
                Ok(_) | Err(Errno::NOBUFS) => changed = true,
                Err(Errno::AGAIN) => return Ok(changed),
                Err(Errno::INTR) => {}
                Err(error) => return Err(SourceError::Network(error)),
            }
        }
    }
}

/// Whether a generation is later than another; the kernel's number begins anew after 2^32.
fn is_later(number: u32, other: u32) -> bool {
    number.wrapping_sub(other).cast_signed() > 0
}

/// Sleeps until one of these is readable or the time has come; for ever, if there is none. It may wake for nothing.
pub(super) fn sleep(fds: &[BorrowedFd<'_>], until: Option<Instant>) {
    let mut fds: Vec<_> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    let timeout = until.map(|at| {
        // One that is rounded down would wake before it is time.
        let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        }
    });
    // Interrupted or not, whoever sleeps looks for itself afterwards.
    let _ = poll(&mut fds, timeout.as_ref());
}

/// Something that another thread can wake a poll(2) with.
pub(super) struct Wakeup(OwnedFd);

impl Wakeup {
    /// A wakeup that nobody has called.
    pub(super) fn new() -> io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Wakes whoever polls it.
    pub(super) fn call(&self) {
        // It fails only where it was rung 2^64 times already, and then it rings.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Whether it was rung since the last time.
    pub(super) fn was_called(&self) -> bool {
        rustix::io::read(&self.0, &mut [0; 8]).is_ok()
    }
}

impl AsFd for Wakeup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_are_in_order_also_where_their_number_begins_anew() {
        assert!(is_later(8, 7) && !is_later(7, 7) && !is_later(6, 7));
        assert!(is_later(1, u32::MAX) && !is_later(u32::MAX, 1));
    }

    #[test]
    fn a_bell_was_called_once_however_often_it_was_rung() {
        let wakeup = Wakeup::new().unwrap();
        assert!(!wakeup.was_called());
        wakeup.call();
        wakeup.call();
        assert!(wakeup.was_called() && !wakeup.was_called());
    }
}
