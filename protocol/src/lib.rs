//! What every party of a zone agrees on: port numbers, TLS policy, identities, the provisioning token and
//! documents, request heads and the words in which a refusal is given.
//!
//! This crate does no I/O. The proxy and both peers are built on it, and a peer in another language is
//! written from `docs/protocol.md`, which describes the same things in prose.

pub mod expiry;
pub mod features;
pub mod fields;
pub mod head;
pub mod identity;
pub mod instance;
#[cfg(feature = "tls")]
pub mod merge;
pub mod park_end;
pub mod ports;
pub mod problem;
pub mod proof;
pub mod provisioning;
pub mod proxy_header;
pub mod proxy_status;
pub mod timestamp;
#[cfg(feature = "tls")]
pub mod tls;
pub mod token;
pub mod trust;

/// The value of `Upgrade` that turns a request on 17486 into a park: HTTP with its roles reversed, version 1.
pub const PARK_UPGRADE: &str = "ptth/1";
