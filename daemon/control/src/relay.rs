//! The relay processes: starting them, talking to them, taking them up again, replacing those that die.
//!
//! control keeps a duplicate of every listening socket, so that no port closes when a relay dies. It does not trust a relay:
//! what a relay says is bounded and never taken for control's word, and one that does not do as it is told is ended.

mod absent;
mod adopt;
mod channel;
mod end;
mod error;
mod exchange;
mod exposition;
mod hand_over;
mod intake;
mod life;
mod listener;
mod notes;
mod process;
mod remembered;
mod rendezvous;
mod renew;
mod report;
mod session_file;
mod sessions;
mod start;
mod supervise;
mod watchdog;

pub(crate) use channel::Relay;
pub(crate) use end::Ender;
pub(crate) use error::{NotInForce, RelayError};
pub(crate) use listener::{BindError, Listener};
pub(crate) use process::status;
pub(crate) use start::program;
pub use start::{Program, Started, Starter, starter};
pub(crate) use supervise::{Supervisor, Wanted};
