//! The control process of Zone Proxy: it owns port 17488 and the durable state, and starts, watches and
//! replaces the relays that carry sessions. It dials nobody on the network,
//! but a syslog server if the admin of the host names one.
//!
//! Everything runs on one thread, and the state's files are written synchronously on it.
#![allow(
    clippy::result_large_err,
    reason = "a problem document is the answer to a handful of requests, not a hot path"
)]

pub mod admin;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod firewall;
pub mod journal;
pub mod keys;
pub mod log;
pub mod metrics;
pub mod privileges;
pub mod relay;
mod reset;
pub mod server;
pub mod service;
pub mod state;
pub mod status;
pub mod transaction;
