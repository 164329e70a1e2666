//! An authority of the zone is replaced while everything runs: the real programs, and sessions that move data all the time.

mod busy;
mod crash;
mod orderly;
mod proxies_away;
mod stolen;
