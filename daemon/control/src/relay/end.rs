//! Making a relay end that does not end by itself: SIGKILL, by its pidfd.
//!
//! A relay that control started has control's user. One that the service manager started has a user of its own, whom
//! control may not signal: then a helper of that user does it, which the manager starts for each connection to a socket
//! (see [`zone_channel::end`]).

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::time::timeout;
use zone_channel::end::{self, MAX_ANSWER_BYTES};

use super::process::Process;
use crate::config::RelayOptions;
use crate::socket_file::SocketFile;

/// For the helper to be started, to do its work and to answer.
pub(super) const HELPER_TIMEOUT: Duration = Duration::from_secs(5);
/// The helper's socket, beside the one that relays are started by, where the configuration does not say.
const HELPER_SOCKET: &str = "relay-end.sock";

/// Why a relay was not made to end.
#[derive(Debug, thiserror::Error)]
pub(super) enum EndError {
    /// There is nothing to hold it by.
    #[error("this kernel has no pidfd (Linux 5.3 has it)")]
    NoHandle,
    /// It is not this user's process.
    #[error("process {pid} belongs to another user: relay.end_socket is needed where relay.socket is set")]
    NotPermitted {
        /// The process.
        pid: u32,
    },
    /// The signal failed.
    #[error("process {pid} can't be signalled: {errno}")]
    Signal {
        /// The process.
        pid: u32,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The helper does not do it.
    #[error("the helper at {socket}: {why}")]
    Helper {
        /// `relay.end_socket`.
        socket: PathBuf,
        /// Its answer, or why there is none.
        why: String,
    },
}

/// How relays are made to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ender {
    /// By this process.
    Direct,
    /// By the helper at this socket.
    Helper(PathBuf),
}

impl Ender {
    /// As the configuration has it.
    pub(crate) fn new(options: &RelayOptions) -> Self {
        if !options.end_socket.as_os_str().is_empty() {
            Self::Helper(options.end_socket.clone())
        } else if !options.socket.as_os_str().is_empty() {
            Self::Helper(options.socket.with_file_name(HELPER_SOCKET))
        } else {
            Self::Direct
        }
    }

    /// Whether relays are services of their own, so that the service manager's watchdog ends one that stands still.
    pub(super) fn is_service_managers(&self) -> bool {
        matches!(self, Self::Helper(_))
    }

    /// Kills a process. Its end is to be waited for.
    pub(super) async fn end(&self, process: &Process) -> Result<(), EndError> {
        if process.has_ended() {
            return Ok(());
        }
        let (pid, handle) = (process.pid(), process.handle().ok_or(EndError::NoHandle)?);
        match (pidfd_send_signal(handle, Signal::KILL), self) {
            (Ok(()) | Err(Errno::SRCH), _) => Ok(()),
            (Err(Errno::PERM), Self::Direct) => Err(EndError::NotPermitted { pid }),
            (Err(Errno::PERM), Self::Helper(socket)) => {
                let failed = |why: String| EndError::Helper { socket: socket.clone(), why };
                let asked = timeout(HELPER_TIMEOUT, ask(socket, process)).await;
                let answer = asked
                    .map_err(|_| failed(format!("no answer within {} s", HELPER_TIMEOUT.as_secs())))?
                    .map_err(|error| failed(error.to_string()))?;
                if answer == end::ENDED { Ok(()) } else { Err(failed(answer.trim().to_owned())) }
            }
            (Err(errno), _) => Err(EndError::Signal { pid, errno }),
        }
    }
}

async fn ask(path: &Path, process: &Process) -> std::io::Result<String> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A manager that accepts nothing must not make control wait.
    socket.set_nonblocking(true)?;
    let file = SocketFile::open(path)?;
    socket.connect(&SockAddr::unix(file.path())?)?;
    let stream = std::os::unix::net::UnixStream::from(std::os::fd::OwnedFd::from(socket));
    if let Some(handle) = process.handle() {
        end::send(&stream, handle)?;
    }
    let mut answer = String::new();
    UnixStream::from_std(stream)?.take(MAX_ANSWER_BYTES).read_to_string(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_helper_is_beside_the_socket_that_starts_relays_unless_the_file_says_otherwise() {
        let options = |socket: &str, end_socket: &str| RelayOptions {
            socket: socket.into(),
            end_socket: end_socket.into(),
            ..RelayOptions::default()
        };
        assert_eq!(Ender::new(&options("", "")), Ender::Direct);
        let beside = Ender::new(&options("/run/zone-proxy/relay.sock", ""));
        assert_eq!(beside, Ender::Helper(Path::new("/run/zone-proxy/relay-end.sock").into()));
        assert_eq!(Ender::new(&options("/a/b", "/c/d")), Ender::Helper("/c/d".into()));
    }
}
