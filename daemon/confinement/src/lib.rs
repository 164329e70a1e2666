//! What a process gives up for good before it meets anybody: files (landlock(7)), and all system calls but those that
//! its work takes (seccomp(2)).
//!
//! A relay keeps no file and some forty calls ([`relay()`]); control keeps what it works with ([`control()`]).
//!
//! What is forbidden stays so for every thread and every child, whatever becomes of the program. A service manager's
//! sandbox is around it, and not in place of it: a process that is started by hand is confined as well.
//!
//! The order matters. Files first, on the only thread: [`deny_files`] and [`restrict_files`] bind the thread that calls them
//! and those that it starts. Calls last, once all that is set up lazily is set up: [`restrict_calls`] binds every thread.

mod attacks;
mod calls;
mod control;
mod files;
mod relay;
mod rule;

pub use calls::{ConfinementError, FILTERS, restrict_calls};
pub use control::{Control, control};
pub use files::{Files, Kept, deny_files, restrict_files};
pub use relay::relay;
pub use rule::{Calls, Profile, Rule};
