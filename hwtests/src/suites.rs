//! What is shown in the lab.

mod appliance;
mod balancer;
mod firewall;
mod install;
mod outpost;
mod parties;
pub mod picture;
mod ports;
mod selftest;
mod snapshot;

use crate::lab::Suite;

/// All suites, in the order in which they are told.
pub fn all() -> Vec<Suite> {
    vec![selftest::suite(), ports::suite(), install::suite(), firewall::suite(), balancer::suite()]
}
