//! What can go wrong in the oracle itself.

use std::io;

/// A result of the oracle.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why no opinion could be asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program ended with an error.
    #[error("`{command}` failed: {said}")]
    Failed {
        /// The command, without its input.
        command: String,
        /// What it said.
        said: String,
    },
    /// The rules could not be read.
    #[error(transparent)]
    Read(#[from] zone_ruleset::ReadError),
    /// The host's devices could not be read.
    #[error(transparent)]
    Host(#[from] zone_judge::HostError),
    /// Packets were sent that never came to the first hook.
    #[error("{sent} packets were sent and {received} came in within {seconds} s")]
    Lost {
        /// How many were sent.
        sent: u64,
        /// How many came in.
        received: u64,
        /// How long they were waited for.
        seconds: u64,
    },
    /// The kernel's answer is not what it should be.
    #[error("netlink: {0}")]
    Netlink(String),
    /// A thread ended before it had done its work.
    #[error("a thread ended too early: {0}")]
    Thread(String),
}

/// Says what was tried when the system refused it.
pub(crate) trait Context<T> {
    /// The error, with what was tried.
    fn during(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::System { what: what(), source: error.into() })
    }
}
