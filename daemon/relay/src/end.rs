//! `zone-relay end`: kills a relay that does not end by itself, for a control that may not signal the relays' user.
//!
//! The service manager starts it as that user for a connection of control, which is its standard input. It takes one pidfd,
//! kills the process behind it if that is one of its own user, answers a line, and ends. It holds nothing that a relay has
//! not: whoever is of this user can do the same.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use std::{fs, io};

use rustix::io::Errno;
use rustix::process::{Signal, geteuid, pidfd_send_signal};
use zone_channel::end::{ENDED, RequestError, receive};
use zone_privileges::Facts;

/// For the request to come, and for its answer to be taken.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why nothing was ended.
#[derive(Debug, thiserror::Error)]
pub enum EndError {
    /// The request is none.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The descriptor is something else.
    #[error("the descriptor is no pidfd of a process on this host")]
    NoPidfd,
    /// It would end itself.
    #[error("process {0} is this helper")]
    Own(u32),
    /// The process belongs to somebody else.
    #[error("process {pid} belongs to user {uid}, and this helper ends those of user {own} alone")]
    OtherUser {
        /// The process.
        pid: u32,
        /// Its user.
        uid: u32,
        /// The helper's user.
        own: u32,
    },
    /// The kernel said no.
    #[error("process {pid} can't be killed: {errno}")]
    Signal {
        /// The process.
        pid: u32,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The answer was not taken.
    #[error("the answer can't be given: {0}")]
    Answer(#[from] io::Error),
}

/// Serves one request on this connection.
pub fn run(connection: OwnedFd) -> Result<(), EndError> {
    let mut stream = UnixStream::from(connection);
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(EXCHANGE_TIMEOUT))?;
    stream.set_write_timeout(Some(EXCHANGE_TIMEOUT))?;
    let ended = receive(&stream).map_err(EndError::from).and_then(|pidfd| end(&pidfd));
    let answer = ended.as_ref().map_or_else(|error| format!("refused: {error}\n"), |()| ENDED.to_owned());
    stream.write_all(answer.as_bytes())?;
    ended
}

fn end(pidfd: &OwnedFd) -> Result<(), EndError> {
    let Some(pid) = process_behind(pidfd)? else { return Ok(()) };
    if pid == std::process::id() {
        return Err(EndError::Own(pid));
    }
    let (own, shown) = (geteuid().as_raw(), fs::read_to_string(format!("/proc/{pid}/status")));
    // Where the process is hidden, the kernel compares users itself.
    if let Some(Facts { uid, .. }) = shown.ok().as_deref().and_then(Facts::read)
        && uid != own
    {
        return Err(EndError::OtherUser { pid, uid, own });
    }
    match pidfd_send_signal(pidfd.as_fd(), Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(EndError::Signal { pid, errno }),
    }
}

/// The number of the process behind a pidfd, by proc(5); `None` once it is gone.
fn process_behind(pidfd: &OwnedFd) -> Result<Option<u32>, EndError> {
    let shown = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).unwrap_or_default();
    let number = shown.lines().find_map(|line| line.strip_prefix("Pid:")).ok_or(EndError::NoPidfd)?;
    match number.trim().parse::<i64>() {
        // It is of another namespace.
        Err(_) | Ok(0) => Err(EndError::NoPidfd),
        Ok(number) => Ok(u32::try_from(number).ok()),
    }
}
