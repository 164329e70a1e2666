//! The relay: accepts endpoints on one port and Module Servers on another, and joins their connections.
//!
//! It is the only process that faces the internet, so it holds nothing but sockets. control hands it the
//! listening sockets, the certificates and the policy over a channel (see `zone-channel`); it opens no file
//! and dials nobody.
//!
//! A connection's way: [`listen`] accepts and applies the limits, [`preface`] reads a balancer's PROXY header,
//! [`handshake`] and [`connections`] find out who it is. An endpoint's connection then waits in [`park`], a
//! Module Server's is served by [`caller`]; the [`switchboard`] brings the two together and [`session`] moves
//! the bytes.

pub mod caller;
pub mod connections;
pub mod handshake;
pub mod head_io;
pub mod listen;
mod lock;
pub mod log;
pub mod metrics;
pub mod park;
pub mod preface;
pub mod presence;
pub mod pulse;
pub mod relay;
pub mod rules;
pub mod serve;
pub mod session;
pub mod switchboard;
