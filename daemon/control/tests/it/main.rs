//! The control process over real TLS, with relays that a test plays itself; and its commands as real processes.

mod authority;
mod client;
mod commands;
mod control_identity;
mod firewall;
mod harness;
mod limits;
mod processes;
mod provisioning;
mod refusals;
mod relays;
mod trust;
