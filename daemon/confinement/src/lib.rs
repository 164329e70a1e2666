//! What a process gives up for good before it meets anybody: files (landlock(7)), and all system calls but those that
//! its work takes (seccomp(2)).
//!
//! What is forbidden stays so for every thread and every child, whatever becomes of the program. A service manager's
//! sandbox is around it, and not in place of it: a process that is started by hand is confined as well.
//!
//! The order matters. Files first, on the only thread: [`deny_files`] binds the thread that calls it and those that it
//! starts. Calls last, once every thread runs and all that is set up lazily is set up: [`restrict_calls`] binds all of them.

mod attacks;
mod calls;
mod files;
mod relay;
mod rule;

pub use calls::{ConfinementError, FILTERS, restrict_calls};
pub use files::{Files, deny_files};
pub use relay::relay;
pub use rule::{Calls, Rule};
