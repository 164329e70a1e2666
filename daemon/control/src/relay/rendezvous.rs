//! Where a restarted control finds the relays of the one before: a socket in the runtime directory for each generation.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use rustix::net::sockopt::socket_peercred;
use socket2::{Domain, SockAddr, Socket, Type};
use zone_channel::show_senders;

use super::error::RelayError;
use crate::socket_file::SocketFile;

/// The rendezvous of a generation.
pub(super) fn path(runtime_dir: &Path, generation: u64) -> PathBuf {
    runtime_dir.join(format!("relay-{generation}.sock"))
}

/// Makes the socket of a generation, for its relay to listen on. Nobody but control's own user and root can connect.
pub(super) fn bind(runtime_dir: &Path, generation: u64) -> io::Result<OwnedFd> {
    let path = path(runtime_dir, generation);
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener.into())
}

/// Connects; `None` where nobody listens any more. Whoever is there may say nothing for a while: the connection waits in
/// its queue.
pub(super) fn connect(path: &Path) -> Result<Option<OwnedFd>, RelayError> {
    let failed = |error: io::Error| RelayError::Prepare { what: "channel", error: error.to_string() };
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    // A full queue must not make control wait.
    socket.set_nonblocking(true).map_err(failed)?;
    show_senders(&socket).map_err(failed)?;
    let connected = SocketFile::open(path).and_then(|file| socket.connect(&SockAddr::unix(file.path())?));
    match connected {
        Ok(()) => {}
        Err(error) if [io::ErrorKind::ConnectionRefused, io::ErrorKind::NotFound].contains(&error.kind()) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    }
    // The kernel names whoever made the listener: an earlier control.
    let uid = socket_peercred(&socket).map_err(|errno| failed(errno.into()))?.uid.as_raw();
    if uid != geteuid().as_raw() && uid != 0 {
        let error = format!("it belongs to user {uid}");
        return Err(RelayError::Failed { step: "rendezvous".into(), error });
    }
    Ok(Some(socket.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_that_does_not_accept_is_told_from_one_that_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        assert!(connect(&path(directory.path(), 1)).unwrap().is_none(), "it was never there");
        let listener = bind(directory.path(), 1).unwrap();
        let mut waiting = Vec::new();
        // Its queue is full in the end, which is no reason to forget it.
        let full = (0..10_000).find_map(|_| match connect(&path(directory.path(), 1)) {
            Ok(connection) => {
                waiting.push(connection.expect("somebody listens"));
                None
            }
            Err(error) => Some(error),
        });
        assert!(full.is_some(), "{}", waiting.len());
        drop((listener, waiting));
        assert!(connect(&path(directory.path(), 1)).unwrap().is_none());
    }
}
