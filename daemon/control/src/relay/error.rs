//! Why a relay is of no use.

use std::time::Duration;

/// Why a relay is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RelayError {
    /// It could not be started at all.
    #[error("the relay {program} can't be started: {error}")]
    Start {
        /// The executable.
        program: String,
        /// What the system said.
        error: String,
    },
    /// What it needs could not be made ready.
    #[error("the relay's {what} can't be made: {error}")]
    Prepare {
        /// The part that was to be made.
        what: &'static str,
        /// What the system said.
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
        /// The step, as the relay calls it.
        step: String,
        /// The relay's own words.
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
        /// The state that it said it is in.
        state: &'static str,
    },
}

/// Relays that still go by earlier rules: they took none of the new ones, and could not be ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub(crate) struct NotInForce(pub(super) Vec<String>);
