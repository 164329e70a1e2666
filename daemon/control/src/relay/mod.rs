//! The relay processes: starting them, talking to them, taking them up again, replacing those that die.
//!
//! control keeps a duplicate of every listening socket, so that no port closes when a relay dies.

mod adopt;
mod channel;
mod listener;
mod renew;
mod start;
mod supervise;

use std::time::Duration;

pub use channel::Relay;
pub use listener::{BindError, Listener};
pub use start::{Program, Started, Starter, starter};
pub use supervise::{Supervisor, Wanted};

/// For a relay to say hello after its start, which a service manager may take a while for.
const HELLO: Duration = Duration::from_secs(10);
/// For a relay to carry out what it is told.
const COMMAND: Duration = Duration::from_secs(10);
/// For a relay to exit once it was told to, before it is killed.
const EXIT: Duration = Duration::from_secs(3);

/// Why a relay is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RelayError {
    /// It could not be started at all.
    #[error("the relay {program} can't be started: {error}")]
    Start {
        /// The executable.
        program: String,
        /// Why.
        error: String,
    },
    /// What it needs could not be made ready.
    #[error("the relay's {what} can't be made: {error}")]
    Prepare {
        /// Which part.
        what: &'static str,
        /// Why.
        error: String,
    },
    /// It is there, and says nothing.
    #[error("the relay did not answer '{what}' within {} s", .within.as_secs())]
    Silent {
        /// What it was told.
        what: &'static str,
        /// For how long it was given.
        within: Duration,
    },
    /// It could not do what it was told.
    #[error("the relay failed at {step}: {error}")]
    Failed {
        /// Which part.
        step: String,
        /// Why.
        error: String,
    },
    /// It is gone.
    #[error("the relay ended: {0}")]
    Ended(String),
    /// It is in another state than it should be.
    #[error("the relay answered '{what}' with the state {state}")]
    OutOfStep {
        /// What it was told.
        what: &'static str,
        /// What it said.
        state: &'static str,
    },
}
