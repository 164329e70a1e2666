//! The host's firewall: which rules there should be, which there are, and how the ones become the others.
//!
//! Three parties have rules on a host: this program, in a table of its own; other nftables users, whose chains
//! may drop what ours lets through (an `accept` ends one base chain, a `drop` is final); and firewalld, which
//! keeps its own account. `table` builds ours, `foreign` reasons about chains of others, `firewalld`
//! speaks to the third. `plan` compares and decides; it reads and writes nothing. `host` carries out.
//!
//! `broker` is the only process of the product that may touch nftables.

mod access;
mod broker;
pub mod cli;
mod config;
mod desired;
mod firewalld;
mod foreign;
mod host;
mod listening;
mod nft;
mod notes;
mod plan;
mod record;
mod ruleset;
mod run;
mod statement;
mod table;
