//! What a process tells the service manager that started it (sd_notify(3)); nothing where none did.
//!
//! The words are those of the crate sd-notify; the socket is our own, for it opens one for each message.
//! The socket is opened once and kept, so that a process which may open none later can go on talking.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use sd_notify::NotifyState;

/// For the manager to take a message.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest status line.
const MAX_STATUS_CHARS: usize = 256;

/// The service manager of this process, if there is one.
#[derive(Debug, Default)]
pub struct ServiceManager {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// By the environment: `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub fn from_environment() -> io::Result<Self> {
        let variable = |name| std::env::var(name).ok();
        let Some(path) = variable("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
            return Ok(Self::default());
        };
        let address = match path.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&path)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        let own = std::process::id().to_string();
        let watchdog = watchdog(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"), &own);
        Ok(Self { socket: Some(socket), watchdog })
    }

    /// Whether there is one.
    pub fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// The socket by which it is told. Its peer is the manager; sendmsg(2) could have it send to anybody.
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// How long it waits for a sign of life before it kills this process; feed it twice as often.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// This process serves.
    pub fn ready(&self) {
        self.notify(&NotifyState::Ready, None);
    }

    /// This process is about to end.
    pub fn stopping(&self) {
        self.notify(&NotifyState::Stopping, None);
    }

    /// This process makes progress. To be said upon proof only.
    pub fn alive(&self) {
        self.notify(&NotifyState::Watchdog, None);
    }

    /// What it is doing, in one line.
    pub fn status(&self, line: &str) {
        let line: String = line.chars().filter(|c| !c.is_control()).take(MAX_STATUS_CHARS).collect();
        self.notify(&NotifyState::Status(&line), None);
    }

    /// Gives it a descriptor to keep until this service is stopped, and to hand to the next process.
    pub fn keep(&self, name: &str, descriptor: impl AsFd) {
        self.notify(&NotifyState::Custom(&format!("FDSTORE=1\nFDNAME={name}")), Some(descriptor.as_fd()));
    }

    fn notify(&self, state: &NotifyState<'_>, descriptor: Option<BorrowedFd<'_>>) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = send(socket, &state.to_string(), descriptor) {
            tracing::warn!(%error, "the service manager can't be told: {state}");
        }
    }
}

/// Without a descriptor it is send(2): a confined process may use no other call on this socket.
fn send(socket: &UnixDatagram, message: &str, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let Some(descriptor) = descriptor else {
        return socket.send(message.as_bytes()).map(drop);
    };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    sendmsg(socket, &[IoSlice::new(message.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn watchdog(usec: Option<String>, pid: Option<String>, own: &str) -> Option<Duration> {
    if pid.is_some_and(|pid| pid != own) {
        return None;
    }
    usec?.parse().ok().filter(|usec| *usec > 0).map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_arrives_and_a_status_is_one_bounded_line() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let manager = ServiceManager { socket: Some(ours), watchdog: None };
        manager.status(&format!("two\nlines{}", "ä".repeat(MAX_STATUS_CHARS)));
        manager.ready();
        let mut space = [0; 2048];
        let length = theirs.recv(&mut space).unwrap();
        let status = std::str::from_utf8(&space[..length]).unwrap();
        assert!(status.starts_with("STATUS=twolines"), "{status}");
        assert_eq!(status.chars().count(), "STATUS=".len() + MAX_STATUS_CHARS);
        let length = theirs.recv(&mut space).unwrap();
        assert_eq!(&space[..length], b"READY=1");
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_ours_to_feed() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(watchdog(some("3000000"), None, "7"), Some(Duration::from_secs(3)));
        assert_eq!(watchdog(some("3000000"), some("7"), "7"), Some(Duration::from_secs(3)));
        assert_eq!(watchdog(some("3000000"), some("8"), "7"), None);
        assert_eq!(watchdog(some("0"), None, "7"), None);
        assert_eq!(watchdog(some("soon"), None, "7"), None);
        assert_eq!(watchdog(None, None, "7"), None);
    }
}
