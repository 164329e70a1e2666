//! The control process of Zone Proxy: it owns port 17488 and the durable state, and starts, watches and
//! replaces the relays that carry sessions. It dials nobody on the network,
//! but a syslog server if the admin of the host names one.
//!
//! Everything runs on one thread, and the state's files are written synchronously on it.

mod admin;
mod bootstrap;
pub mod cli;
pub mod config;
pub mod confine;
mod connection_limit;
pub mod daemon;
mod firewall;
mod host;
mod journal;
mod keys;
mod lifeline;
pub mod log;
mod metrics;
mod offer;
mod outgoing;
mod policy;
mod privileges;
pub mod relay;
mod reload;
mod reset;
pub mod run;
mod server;
mod socket_file;
pub mod state;
pub mod status;
mod tasks;
mod tls;
pub mod transaction;
mod upkeep;
mod watchdog;
