//! What a case puts on record: steps, commands, checks, and how it ended.

use std::time::Duration;

/// Something that was done or seen.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A step; what belongs to it follows.
    Step {
        /// Its heading in the report, in words.
        title: String,
        /// How long it took.
        time: Duration,
        /// Why it failed, if it did.
        error: Option<String>,
    },
    /// A command.
    Command {
        /// The host that it ran on.
        host: String,
        /// As it would be typed.
        shown: String,
        /// Its exit code.
        code: i32,
        /// Both its streams.
        said: String,
        /// How long it took.
        time: Duration,
    },
    /// A check.
    Check {
        /// The claim that is checked, as a sentence.
        sentence: String,
        /// Whether it was.
        held: bool,
        /// The evidence.
        seen: String,
    },
    /// Anything worth reading.
    Note(String),
}

impl Entry {
    /// Whether it is a check that failed.
    pub fn is_failed(&self) -> bool {
        matches!(self, Self::Check { held: false, .. })
    }
}

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It went to its end and each check held.
    Passed,
    /// A check or a step failed.
    Failed(String),
    /// Something that it needs was not there.
    NotRun(String),
}
