//! The relay processes: starting them, talking to them, taking them up again, replacing those that die.
//!
//! control keeps a duplicate of every listening socket, so that no port closes when a relay dies.

mod adopt;
mod channel;
mod error;
mod listener;
mod rendezvous;
mod renew;
mod report;
mod start;
mod supervise;

pub(crate) use channel::Relay;
pub(crate) use error::RelayError;
pub(crate) use listener::{BindError, Listener};
pub use start::{Program, Started, Starter, starter};
pub(crate) use supervise::{Supervisor, Wanted};
