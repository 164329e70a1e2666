//! What TLS promises on every port, shown with certificates that are made for the purpose.

mod admission;
mod certificate;
mod config;
mod deny_list;
mod expectation;
mod handshake;
mod merge;
mod model;
mod policy;
mod refusal;
mod roles_to_come;
mod tickets;
mod zone;
