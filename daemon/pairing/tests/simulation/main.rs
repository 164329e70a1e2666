//! A world of random endpoints and callers drives a machine, carries its actions out and checks its
//! promises after every step.

mod checks;
mod world;

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use world::World;

/// Every reason, error and kind of action, so that no promise is kept for want of a chance to
/// break it.
const EVERYTHING: [&str; 29] = [
    "Assign",
    "Changed",
    "Cloned",
    "Fail answer_timeout",
    "Fail draining",
    "Join",
    "Joined",
    "Left",
    "Ping",
    "Want",
    "answer_timeout",
    "caller_gone",
    "draining",
    "endpoint_away",
    "endpoint_failed",
    "endpoint_silent",
    "evicted",
    "no_park_in_time",
    "parks_lost",
    "ping_timeout",
    "protocol",
    "refused",
    "refused_by_endpoint",
    "revoked",
    "silent",
    "too_many_endpoints",
    "too_many_sessions",
    "too_many_waiting",
    "unknown_endpoint",
];

/// R-32, and every rule of pairing
#[test]
fn the_machine_keeps_its_promises_in_random_worlds() {
    let mut seen = BTreeSet::new();
    for seed in 0..300 {
        seen.extend(live_through(seed).seen);
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), EVERYTHING, "the worlds are too small");
}

#[test]
fn the_same_events_lead_to_the_same_actions() {
    for seed in 0..10 {
        assert_eq!(live_through(seed).trace, live_through(seed).trace, "seed {seed}");
    }
}

fn live_through(seed: u64) -> World {
    let mut world = World::new(seed);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        world.run();
        world.end();
    }));
    if let Err(failure) = outcome {
        eprintln!("seed {seed}, limits {:?}", world.machine.limits());
        world.trace.iter().for_each(|line| eprintln!("{line}"));
        resume_unwind(failure);
    }
    world
}
