//! The relay: accepts endpoints on one port and Module Servers on another, and joins their connections.
//!
//! It is the only process that faces the internet, so it holds nothing but sockets. control hands it the
//! listening sockets, the certificates and the policy over a channel (see `zone-channel`); it opens no file
//! and dials nobody.
//!
//! A connection's way: `accept_loop` takes it, `admission` applies the limits, reads a balancer's PROXY header
//! (`proxy_protocol`) and finds out who it is (`identity`, `connections`). An endpoint's connection then waits
//! in `park`, a Module Server's is served by `routes`: it lists endpoints, watches them (`event_stream`) or
//! asks for a session (`connect`). The `switchboard` brings the two together, `session` begins and ends what
//! `copy` carries. `context` is what all of them share, and `control` is what the relay is told.

mod accept_loop;
mod admission;
mod callers;
mod connect;
mod connection;
mod connections;
mod context;
pub mod control;
mod copy;
mod descriptors;
pub mod end;
mod event_stream;
mod expiry;
#[cfg(test)]
mod fixtures;
mod hand_over;
mod head_io;
mod identity;
mod leg;
mod lifeline;
mod limiters;
mod lock;
pub mod log;
mod mailbox;
mod memory;
mod metrics;
mod milestone;
mod notes;
mod open_sessions;
mod park;
mod presence;
mod proxy_protocol;
mod refusal;
mod rendezvous;
mod routes;
mod rules;
pub mod runtime;
mod serving;
mod session;
mod switchboard;
mod wanted;

pub use copy::TURN_BYTES;
