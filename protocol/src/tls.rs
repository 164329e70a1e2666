//! TLS as every port speaks it: policy, certificates by role, tickets.

pub mod certificate;
pub mod config;
mod error;
pub mod policy;
pub mod refusal;
pub mod tickets;
pub mod verifier;

pub use error::TlsError;

#[cfg(test)]
mod tests;
