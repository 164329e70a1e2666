//! The lab: hosts, NICs and links in network namespaces and booted Debian roots, and the suites that run in them.
//!
//! README.md beside this crate says how a suite is written.

pub mod lab;
pub mod suites;
