//! Reaches a name that has several addresses: they race to the end of their handshake (RFC 8305, "Happy Eyeballs").
//!
//! An address that accepts TCP and then says nothing is as dead as one that accepts nothing: a host that hangs, a balancer with
//! nothing behind it. So an attempt has succeeded only at the end of its handshake, and until one has, the next address is tried
//! beside it: at once where an attempt has failed, and [`CONNECTION_ATTEMPT_DELAY`] after the newest one last got on. One deadline
//! holds for the lookup of the names and all attempts together. The first attempt that succeeds wins, and the others are closed.
//!
//! [`Race`] decides that, without I/O or clock. [`reach`] carries it out on tokio's sockets; a program that waits for its sockets
//! by itself drives a [`Race`] with [`look_up`].

mod lookup;
mod place;
mod race;
#[cfg(feature = "tokio")]
mod reach;

pub use lookup::{MAX_LOOKUPS, look_up};
pub use place::Place;
pub use race::{Action, CONNECTION_ATTEMPT_DELAY, End, Event, MAX_ADDRESSES, Race, Time};
#[cfg(feature = "tokio")]
pub use reach::{Failure, Progress, Reached, Trouble, Unreached, reach};
