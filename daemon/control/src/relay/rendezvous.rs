//! Where a restarted control finds the relays of the one before: a socket in the runtime directory for each generation.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use nix::unistd::geteuid;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::channel::{Hello, Relay};
use super::error::RelayError;

/// For a relay to answer at its rendezvous.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

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

/// Every rendezvous in the runtime directory, with its generation.
pub(super) fn all_below(runtime_dir: &Path) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(runtime_dir).into_iter().flatten().filter_map(Result::ok);
    entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let generation = name.to_str()?.strip_prefix("relay-")?.strip_suffix(".sock")?.parse().ok()?;
            Some((generation, entry.path()))
        })
        .collect()
}

/// Connects, and takes in what the relay says of itself; `None` where nobody listens any more.
pub(super) async fn connect(path: &Path) -> Result<Option<(Rc<Relay>, Hello)>, RelayError> {
    let silent = RelayError::Silent { what: "hello", within: ANSWER_TIMEOUT };
    let stream = match timeout(ANSWER_TIMEOUT, UnixStream::connect(path)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(_)) => return Ok(None),
        Err(_) => return Err(silent),
    };
    // The kernel names whoever made the listener: an earlier control.
    let uid = stream
        .peer_cred()
        .map(|peer| peer.uid())
        .map_err(|error| RelayError::Prepare { what: "peer's user", error: error.to_string() })?;
    if uid != geteuid().as_raw() && uid != 0 {
        return Err(RelayError::Failed {
            step: "rendezvous".into(),
            error: format!("it belongs to user {uid}"),
        });
    }
    let channel: OwnedFd = match stream.into_std() {
        Ok(stream) => stream.into(),
        Err(error) => {
            return Err(RelayError::Prepare { what: "channel", error: error.to_string() });
        }
    };
    Relay::after_hello(channel, None, ANSWER_TIMEOUT).await.map(Some)
}
