//! A process of the proxy that somebody has taken over, who has it make any system call: what they reach.
//!
//! A real one, serving, is stopped by ptrace(2), and one of its threads after the other tries what an attacker would try, with
//! the sockets that it has and with new ones. What came of it is a table, and each line of it is right or wrong.
//!
//! For tests only, and for x86-64: root on a host that is there to be tried on.

mod attempts;
mod control;
mod injection;
mod play;
mod sockets;
mod surroundings;
mod system;

pub use attempts::{Attempt, Captured, Right};
pub use control::{SYSLOG, control};
pub use injection::{Called, Injection, Stopped};
pub use play::{Scene, Target, datagram, listens, play, threads};
pub use sockets::{SERVICE_MANAGER, SOCKETS_AT_HAND, SOCKETS_OF_ITS_OWN};
pub use surroundings::{Surroundings, User};
pub use system::{FILES_AND_PROGRAMS, KERNEL, PROCESSES};

/// What somebody tries who has taken a relay over.
pub fn relay() -> Vec<Attempt> {
    [SOCKETS_OF_ITS_OWN, SOCKETS_AT_HAND, FILES_AND_PROGRAMS, PROCESSES, KERNEL].concat()
}
