//! The whole product, seen from outside: the real programs, real clients, and everything that can go wrong.

mod authority;
mod bad_input;
mod captured;
mod clients;
mod control_identity;
mod crash;
mod firewall;
mod hostile_relay;
mod hygiene;
mod load;
mod log;
mod peers_stay_up;
mod processes;
mod provisioning;
mod revocations;
mod second_address;
mod state_changes;
mod tls;
mod versions;
