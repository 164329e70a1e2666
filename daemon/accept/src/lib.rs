//! What comes before a peer is known, for every port of the daemon: accepting without end, limits on connections,
//! places for those that have not authenticated, and the TLS handshake with its deadline.
//!
//! It decides nothing about who may come: that is the caller's, with what the handshake shows.

mod accept_error;
mod connection_limit;
mod descriptor_limit;
mod handshake;
mod unauthenticated;

pub use accept_error::{AcceptError, EXHAUSTED_DELAY};
pub use connection_limit::{Limiter, Permit, source_of};
pub use descriptor_limit::raise_descriptor_limit;
pub use handshake::{HandshakeError, HandshakeTurns, handshake};
pub use unauthenticated::{GRACE, Unauthenticated, UnauthenticatedLimit};
