//! The rendezvous: a Unix socket at which the next control finds a relay that goes on without one.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::UnixListener;
use zone_channel::{FromRelay, Receiver, Sender, ToRelay};

/// Before the next one is accepted, after one that could not be.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// Both directions of a channel to a control.
pub(crate) type Channel = (Sender<FromRelay>, Receiver<ToRelay>);

/// The listening socket of a relay's rendezvous.
#[derive(Debug)]
pub(crate) struct Rendezvous {
    listener: UnixListener,
    control_uid: u32,
    /// Whether the last attempt failed, which is said once.
    failing: AtomicBool,
}

impl Rendezvous {
    /// Over a socket that listens, for controls of this user and of root.
    pub(crate) fn new(listener: OwnedFd, control_uid: u32) -> io::Result<Self> {
        let listener = StdUnixListener::from(listener);
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        Ok(Self { listener, control_uid, failing: AtomicBool::new(false) })
    }

    /// Waits for a control that may take this relay up. Can be cancelled.
    pub(crate) async fn next_control(&self) -> Channel {
        loop {
            match self.accept().await {
                Ok(channel) => {
                    self.failing.store(false, Ordering::Relaxed);
                    tracing::info!("a control has taken this relay up");
                    return channel;
                }
                Err(error) => {
                    if !self.failing.swap(true, Ordering::Relaxed) {
                        tracing::warn!("a control could not take this relay up, and can try again: {error}");
                    }
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            }
        }
    }

    async fn accept(&self) -> io::Result<Channel> {
        let (stream, _) = self.listener.accept().await?;
        let uid = stream.peer_cred()?.uid();
        if uid != self.control_uid && uid != 0 {
            return Err(io::Error::other(format!("user {uid} may not take this relay up")));
        }
        zone_channel::pair(stream.into_std()?.into())
    }
}
