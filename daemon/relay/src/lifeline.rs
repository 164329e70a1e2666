//! The lifeline: a pipe whose other end is open for as long as the service manager means to have a control.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat};
use tokio::net::unix::pipe;

/// The reading end.
#[derive(Debug)]
pub(crate) struct Lifeline(pipe::Receiver);

impl Lifeline {
    /// Fails where the descriptor is no pipe. It looks by fstat(2): what the runtime itself would do here takes a path, and
    /// a confined process makes no such call.
    pub(crate) fn new(reader: OwnedFd) -> io::Result<Self> {
        if !FileType::from_raw_mode(fstat(&reader)?.st_mode).is_fifo() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        fcntl_setfl(&reader, fcntl_getfl(&reader)? | OFlags::NONBLOCK)?;
        pipe::Receiver::from_owned_fd_unchecked(reader).map(Self)
    }

    /// Waits for its end of file. Can be cancelled.
    pub(crate) async fn ended(&self) {
        let mut space = [0; 16];
        loop {
            let read = match self.0.readable().await {
                Ok(()) => self.0.try_read(&mut space),
                Err(error) => Err(error),
            };
            match read {
                // Nobody writes to it.
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => return,
            }
        }
    }
}
