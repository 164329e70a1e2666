//! The relay: accepts endpoints on one port and Module Servers on another, and joins their connections.
//!
//! It is the only process that faces the internet, so it holds nothing but sockets. control hands it the
//! listening sockets, the certificates and the policy over a channel (see `zone-channel`); it opens no file
//! and dials nobody.
//!
//! A connection's way: [`accept_loop`] accepts and applies the limits, [`proxy_protocol`] reads a balancer's PROXY header,
//! [`identity`] and [`connections`] find out who it is. An endpoint's connection then waits in [`park`], a
//! Module Server's is served by [`routes`]; the [`switchboard`] brings the two together and [`copy`] moves
//! the bytes.

pub mod accept_loop;
pub mod admission;
pub mod connections;
pub mod control;
pub mod copy;
pub mod head_io;
pub mod identity;
mod lock;
pub mod log;
pub mod metrics;
pub mod park;
pub mod presence;
pub mod proxy_protocol;
pub mod routes;
pub mod rules;
pub mod switchboard;
pub mod watchdog;
