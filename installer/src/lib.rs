//! The installer of Zone Proxy: the appliance's menu, its verbs, and the helper that acts for them as root.
//!
//! Menu and verbs run as user zone-admin and do nothing by themselves: `call` hands each request to the
//! `helper` through sudo(8), whose verbs are few and fixed. The menu is a pure state machine
//! ([`menu::machine`]) behind a thin terminal.

mod call;
pub mod cli;
pub mod helper;
pub mod login;
pub mod menu;
pub mod packages;
pub mod paths;
pub mod protocol;
mod settings;
mod signals;
mod text;
mod trusted_file;
pub mod version;
