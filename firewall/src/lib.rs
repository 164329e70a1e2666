//! The host's firewall: which rules there should be, which there are, and how the ones become the others.
//!
//! Three parties have rules on a host: this program, in a table of its own; other nftables users, whose chains
//! may drop what ours lets through (an `accept` ends one base chain, a `drop` is final); and firewalld, which
//! keeps its own account. `table` builds ours, `placement` finds where a rule of ours must stand among those of others, `firewalld`
//! speaks to the third. `plan` compares and decides, and `reach` says what is kept shut all the same; they read and write
//! nothing. `host` carries out.
//!
//! `broker` is the only process of the product that may touch nftables.

mod access;
mod broker;
pub mod cli;
mod config;
mod desired;
mod explain;
mod export;
mod firewalld;
mod host;
mod listening;
mod nft;
mod notes;
mod placement;
mod plan;
mod reach;
mod record;
mod run;
mod slave_name;
mod statement;
mod table;
mod tagged;
