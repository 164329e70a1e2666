//! What an error of accept(2) means for the loop that accepts.

use std::io;
use std::time::Duration;

use rustix::io::Errno;

/// How long accepting pauses when the process or the system has no descriptor or memory left.
pub const EXHAUSTED_DELAY: Duration = Duration::from_millis(100);

/// What an accept loop does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptError {
    /// The process or the system ran out of descriptors or memory: pause for [`EXHAUSTED_DELAY`] and go on.
    Exhausted,
    /// The socket does not listen any more, as after a shutdown(2) by another process that holds it.
    Closed,
    /// The connection that was next is gone, and the others are not; accept(2) says to go on.
    Gone,
}

impl AcceptError {
    /// Tells which by the error's number.
    pub fn of(error: &io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => Self::Exhausted,
            Some(Errno::INVAL) => Self::Closed,
            _ => Self::Gone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lack_of_descriptors_or_memory_makes_a_loop_pause_and_only_a_closed_socket_ends_it() {
        let of = |errno: Errno| AcceptError::of(&errno.into());
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert_eq!(of(errno), AcceptError::Exhausted);
        }
        assert_eq!(of(Errno::INVAL), AcceptError::Closed);
        for errno in [Errno::CONNABORTED, Errno::PROTO, Errno::NETDOWN, Errno::HOSTUNREACH] {
            assert_eq!(of(errno), AcceptError::Gone);
        }
        assert_eq!(AcceptError::of(&io::Error::other("no number")), AcceptError::Gone);
    }
}
