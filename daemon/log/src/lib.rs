//! Where log records go.
//!
//! An event of `tracing` becomes a [`Record`]: bounded, and escaped wherever it is shown, so that nothing that a
//! peer sends can forge a line. Records wait in a bounded queue for one thread that hands them to a [`Sink`];
//! whoever logs never waits for a disk, a terminal or a network. What does not fit is dropped, counted, and the
//! count is logged.
//!
//! [`start`] is for daemons, [`stderr`] for programs that end soon.
//!
//! # Example
//!
//! A program with a sink of its own:
//!
//! ```
//! use std::sync::mpsc;
//! use std::time::Duration;
//! use zone_log::{AUDIT, Level, Record, Sink, Source};
//!
//! struct Lines(mpsc::Sender<String>);
//!
//! impl Sink for Lines {
//!     fn write(&mut self, record: &Record) {
//!         let _ = self.0.send(zone_log::text(record));
//!     }
//! }
//!
//! let (sink, lines) = mpsc::channel();
//! let log = zone_log::start(Source::own("example"), Level::Warn, Box::new(Lines(sink)))?;
//!
//! tracing::info!(target: "example", "not severe enough");
//! tracing::warn!(target: "example", peer = "192.0.2.1\nforged", "a peer is slow");
//! tracing::info!(target: AUDIT, change = "reset", "done");
//!
//! // Whoever logs waits for nothing; a flush waits until the sink has everything.
//! assert!(log.flush(Duration::from_secs(5)));
//! let lines: Vec<_> = lines.try_iter().collect();
//! assert_eq!(lines, [r#"example: a peer is slow peer="192.0.2.1\nforged""#, r#"audit: done change="reset""#]);
//! # Ok::<(), zone_log::StartError>(())
//! ```

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
pub use queue::{MAX_QUEUED_BYTES, Sink};
pub use record::{AUDIT, Field, Level, MAX_NAME_BYTES, Record, Severity, Source};
pub use start::{Log, StartError, start, stderr, submit, when_written};
