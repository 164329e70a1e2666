//! The process of a relay as the kernel shows it: nothing that the relay says of itself counts.

use std::fs;
use std::future::pending;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use zone_channel::SenderProcess;
use zone_privileges::Facts;
use zone_protocol::provisioning::{Confinement, ProcessStatus};

use super::error::RelayError;

/// Where the start of a process stands behind its name in `/proc/PID/stat` (proc(5), field 22 of all).
const STARTED_FIELD: usize = 19;

/// A process, held by a pidfd, so that its number can't come to mean another one.
#[derive(Debug)]
pub(super) struct Process {
    facts: ProcessFacts,
    /// `None` for this very process (tests play relays), and where the kernel has no pidfd (before Linux 5.3).
    handle: Option<AsyncFd<OwnedFd>>,
}

/// What tells a process from any other one on this host, as long as it is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessFacts {
    /// Its number.
    pub(super) pid: u32,
    /// Its user.
    pub(super) uid: u32,
    /// When it began, in the kernel's ticks since boot; `None` where the kernel does not show it.
    pub(super) started: Option<u64>,
}

impl Process {
    /// The sender of a message on a channel that is open. Its number is looked at before and after it is taken hold of.
    pub(super) fn of_sender(sender: Option<SenderProcess>) -> Result<Self, RelayError> {
        let unknown =
            || RelayError::Failed { step: "hello".into(), error: "the kernel names no sender".into() };
        let SenderProcess { pid, uid } = sender.filter(|sender| sender.pid != 0).ok_or_else(unknown)?;
        let facts = ProcessFacts { pid, uid, started: started(pid) };
        Self::open(facts)?.ok_or_else(|| RelayError::Ended("its process is gone".to_owned()))
    }

    /// The process that these facts were noted of, if it is still there.
    pub(super) fn remembered(facts: ProcessFacts) -> Result<Option<Self>, RelayError> {
        // Without the time of its start it could be another one.
        if facts.started.is_none() { Ok(None) } else { Self::open(facts) }
    }

    fn open(facts: ProcessFacts) -> Result<Option<Self>, RelayError> {
        let number = i32::try_from(facts.pid).ok().and_then(Pid::from_raw);
        let Some(number) = number else { return Ok(None) };
        if facts.pid == std::process::id() {
            return Ok(Some(Self { facts, handle: None }));
        }
        let failed = |error: std::io::Error| RelayError::Prepare { what: "pidfd", error: error.to_string() };
        let handle = match pidfd_open(number, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(Errno::SRCH) => return Ok(None),
            Err(Errno::NOSYS) => return Ok(Some(Self { facts, handle: None })),
            Err(error) => return Err(failed(error.into())),
        };
        if !facts.hold() {
            return Ok(None);
        }
        #[expect(
            deprecated,
            reason = "it is unsound for types that lie about their descriptor, which this one does not"
        )]
        let handle = AsyncFd::<OwnedFd>::with_interest(handle, Interest::READABLE).map_err(failed)?;
        Ok(Some(Self { facts, handle: Some(handle) }))
    }

    /// What tells it from others.
    pub(super) fn facts(&self) -> ProcessFacts {
        self.facts
    }

    /// Its number.
    pub(super) fn pid(&self) -> u32 {
        self.facts.pid
    }

    /// Its pidfd, where there can be one.
    pub(super) fn handle(&self) -> Option<BorrowedFd<'_>> {
        self.handle.as_ref().map(|handle| handle.get_ref().as_fd())
    }

    /// Whether there is nothing to make it end by. A process of control's own is none such.
    pub(super) fn is_endless(&self) -> bool {
        self.handle.is_none() && self.pid() != std::process::id()
    }

    /// Whether it has ended, as far as can be told.
    pub(super) fn has_ended(&self) -> bool {
        let Some(handle) = self.handle() else { return false };
        let mut looked_at = [PollFd::from_borrowed_fd(handle, PollFlags::IN)];
        poll(&mut looked_at, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
    }

    /// Waits for its end; for ever where that can't be told.
    pub(super) async fn ended(&self) {
        let Some(handle) = &self.handle else { return pending().await };
        // A pidfd is readable once the process has ended (pidfd_open(2)), and stays so.
        while !self.has_ended() {
            match handle.readable().await {
                Ok(mut ready) if !self.has_ended() => ready.clear_ready(),
                Ok(_) => return,
                Err(_) => return pending().await,
            }
        }
    }

    /// As `/proc` shows it now; `None` where it shows nothing of it.
    pub(super) fn status(&self) -> Option<ProcessStatus> {
        status("relay", self.pid()).filter(|_| self.facts.hold())
    }
}

impl ProcessFacts {
    /// Whether the number still means the same process, as far as the kernel shows it.
    fn hold(&self) -> bool {
        let same_start = self.started.is_none_or(|noted| started(self.pid) == Some(noted));
        same_start && status("relay", self.pid).is_none_or(|status| status.uid == self.uid)
    }
}

/// When a process began.
fn started(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Its name stands in parentheses, and may hold some.
    text.rsplit_once(')')?.1.split_whitespace().nth(STARTED_FIELD)?.parse().ok()
}

/// A process as `/proc` shows it; `None` where it is gone, or hidden.
pub(crate) fn status(role: &str, pid: u32) -> Option<ProcessStatus> {
    let Facts { uid, capabilities, no_new_privs, seccomp, filters } =
        Facts::read(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)?;
    let confinement = Some(Confinement { seccomp: seccomp.to_string(), filters, landlock: None });
    Some(ProcessStatus { role: role.to_owned(), pid, uid, capabilities, no_new_privs, confinement })
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    use nix::unistd::geteuid;
    use tokio::time::timeout;

    use super::*;

    fn sleeper() -> (Child, SenderProcess) {
        let child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let sender = SenderProcess { pid: child.id(), uid: geteuid().as_raw() };
        (child, sender)
    }

    #[tokio::test]
    async fn the_end_of_a_process_is_told_while_nobody_has_waited_for_it() {
        let (mut child, sender) = sleeper();
        let process = Process::of_sender(Some(sender)).unwrap();
        assert!(!process.has_ended());
        assert!(timeout(Duration::from_millis(50), process.ended()).await.is_err());
        child.kill().unwrap();
        timeout(Duration::from_secs(20), process.ended()).await.unwrap();
        assert!(process.has_ended());
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn a_number_that_means_another_process_by_now_is_not_taken() {
        let (mut child, sender) = sleeper();
        let facts = Process::of_sender(Some(sender)).unwrap().facts();
        assert!(Process::remembered(facts).unwrap().is_some());
        let earlier = ProcessFacts { started: facts.started.map(|ticks| ticks - 1), ..facts };
        assert!(Process::remembered(earlier).unwrap().is_none(), "another process began under this number");
        let unknown = ProcessFacts { started: None, ..facts };
        assert!(Process::remembered(unknown).unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(Process::remembered(facts).unwrap().is_none());
        assert!(matches!(Process::of_sender(Some(sender)), Err(RelayError::Ended(_))));
    }

    #[tokio::test]
    async fn a_sender_that_the_kernel_does_not_name_is_nobody() {
        assert!(Process::of_sender(None).is_err());
        assert!(Process::of_sender(Some(SenderProcess { pid: 0, uid: 0 })).is_err());
    }

    #[test]
    fn a_process_is_reported_as_the_kernel_shows_it() {
        let own = status("control", std::process::id()).unwrap();
        assert_eq!(own.uid, geteuid().as_raw());
        assert_eq!(own.capabilities.len(), 16);
        assert_eq!(status("relay", u32::MAX), None);
    }
}
