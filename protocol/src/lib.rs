//! What every party of a zone agrees on: port numbers, TLS policy, identities, the provisioning token and
//! documents, request heads and the words in which a refusal is given.
//!
//! This crate does no I/O. The proxy and both peers are built on it, and a peer in another language is
//! written from `docs/protocol.md`, which describes the same things in prose.

pub mod head;
pub mod identity;
pub mod instance;
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

/// Names of the header fields that are this protocol's own.
pub mod fields {
    /// Session id (UUIDv7, lower case) in the heads of both legs and in every log line.
    pub const SESSION: &str = "Zone-Session";
    /// `required` or `off`: whether TLS runs end to end inside the session; set by the endpoint in its 200.
    pub const END_TO_END: &str = "Zone-End-To-End";
    /// An [`Instance`](crate::instance::Instance): tells a cloned image from a second park.
    pub const INSTANCE: &str = "Zone-Instance";
    /// The proof of an offer or provisioning request and of its answer, base64url without padding.
    pub const PROOF: &str = "Zone-Proof";
}

/// The value of `Upgrade` that turns a request on 17486 into a park: HTTP with its roles reversed, version 1.
pub const PARK_UPGRADE: &str = "ptth/1";
