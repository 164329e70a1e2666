//! Runs a tool of the host, such as nft(8) or systemctl(1), so that nothing that the tool does can hurt its caller.
//!
//! A [`Tool`] is found by name in fixed folders and never in the caller's `PATH`, gets an environment of its own, reads
//! its input from memory or from `/dev/null`, and has a deadline, at which it is killed with all that it has started.
//! What is kept of its output is bounded. [`Complaint`] turns what it printed into one line for a person.
//!
//! ```
//! use std::time::Duration;
//! use zone_tool::{Complaint, Excess, Tool, find};
//!
//! let sort = find("sort").expect("every host has it");
//! let output = Tool::new(sort)
//!     .args(["--reverse"])
//!     .input(b"a\nb\n")
//!     .timeout(Duration::from_secs(10))
//!     .max_output_bytes(1024, Excess::Discard)
//!     .run()?;
//! assert!(output.status.success());
//! assert_eq!(output.stdout, b"b\na\n");
//!
//! let output = Tool::new(find("ls").expect("every host has it")).args(["/nowhere"]).run()?;
//! assert!(!output.status.success());
//! assert!(Complaint::End.of(&output.stderr).contains("/nowhere"));
//! # Ok::<(), zone_tool::ToolError>(())
//! ```

mod complaint;
mod output;
mod tool;

pub use complaint::Complaint;
pub use output::Excess;
pub use tool::{Tool, ToolError, find};
