//! The whole product, seen from outside: the real programs, real clients, and everything that can go wrong.

mod bad_input;
mod clients;
mod crash;
mod hygiene;
mod load;
mod processes;
mod provisioning;
mod tls;
