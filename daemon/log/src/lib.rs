//! Where log records go.
//!
//! An event of `tracing` becomes a [`Record`]: bounded, and escaped wherever it is shown, so that nothing that a
//! peer sends can forge a line. Records wait in a bounded queue for one thread that hands them to a [`Sink`];
//! whoever logs never waits for a disk, a terminal or a network. What does not fit is dropped, counted, and the
//! count is logged.
//!
//! [`start`] is for daemons, [`stderr`] for programs that end soon.

mod escape;
mod line;
mod local;
mod queue;
mod record;
mod start;
#[cfg(feature = "syslog")]
pub mod syslog;

pub use line::{Style, line, text};
pub use local::{Stderr, stderr_is_the_journal};
pub use queue::{MOST_QUEUED, MOST_QUEUED_BYTES, Sink};
pub use record::{
    AUDIT, Field, LONGEST_MESSAGE, LONGEST_NAME, LONGEST_RECORD, LONGEST_TARGET, LONGEST_VALUE, Level,
    MOST_FIELDS, Record, Severity, Source,
};
pub use start::{Log, StartError, start, stderr, submit};
