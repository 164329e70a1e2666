//! What can go wrong in the lab itself, as one line for a person.

use std::io;
use std::time::Duration;

/// A result of the lab.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a step could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A description that can't be made.
    #[error("the lab's description is wrong: {0}")]
    Description(String),
    /// A program did not even start.
    #[error("{host}: can't start `{}`: {source}", short(command))]
    Start {
        /// The host that it was for.
        host: String,
        /// The command as it would be typed.
        command: String,
        /// What the system said.
        source: io::Error,
    },
    /// A command that had to succeed did not.
    #[error("{host}: `{}` ended with {status}: {said}", short(command))]
    Failed {
        /// The host that it ran on.
        host: String,
        /// The command as it would be typed.
        command: String,
        /// Its exit status in words.
        status: String,
        /// Its last lines.
        said: String,
    },
    /// Something took too long.
    #[error("{host}: {what} took longer than {} s", limit.as_secs_f32())]
    Overdue {
        /// The host that was waited for.
        host: String,
        /// What was waited for.
        what: String,
        /// How long it may take.
        limit: Duration,
    },
    /// The system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Error {
    pub(crate) fn description(what: String) -> Self {
        Self::Description(what)
    }

    /// An error in a suite's own words.
    pub fn other(what: impl Into<String>) -> Self {
        Self::Other(what.into())
    }
}

/// A command as a part of one line.
fn short(command: &str) -> String {
    const MAX_COMMAND_CHARS: usize = 160;
    let line = command.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= MAX_COMMAND_CHARS {
        line
    } else {
        line.chars().take(MAX_COMMAND_CHARS).collect::<String>() + " ..."
    }
}

/// Puts what was tried before the system's own words.
pub trait Context<T> {
    /// Makes an error of the system into one of the lab.
    fn during(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::System { what: what(), source: source.into() })
    }
}
