//! Two live instances under one endpoint id.

use super::*;

fn cloned(endpoint: &str, older: InstanceId, newer: InstanceId) -> Action {
    Action::Cloned { endpoint: name(endpoint), older, newer }
}

#[test]
fn a_second_instance_is_told_once() {
    let mut bench = Bench::new();
    assert_eq!(bench.park_of(1, "a", 10), NOTHING);
    assert_eq!(bench.park_of(2, "a", 20), [cloned("a", 10, 20)]);
    assert_eq!(bench.park_of(3, "a", 20), NOTHING);
    assert_eq!(bench.park_of(4, "a", 10), NOTHING);
    assert_eq!(bench.machine.endpoint("a").unwrap().instances, 2);
}

#[test]
fn a_third_instance_is_told_again() {
    let mut bench = Bench::new();
    bench.park_of(1, "a", 10);
    bench.park_of(2, "a", 20);
    assert_eq!(bench.park_of(3, "a", 30), [cloned("a", 20, 30)]);
}

#[test]
fn an_instance_that_comes_after_the_other_has_left_is_no_clone() {
    let mut bench = Bench::new();
    bench.park_of(1, "a", 10);
    bench.gone(1);
    assert_eq!(bench.park_of(2, "a", 20), NOTHING);
    assert_eq!(bench.machine.endpoint("a").unwrap().instances, 1);
}

#[test]
fn an_instance_that_only_has_sessions_left_is_no_clone() {
    let mut bench = Bench::new();
    bench.session(1, 1, "a");
    assert_eq!(bench.park_of(2, "a", 20), NOTHING);
}

#[test]
fn an_instance_that_returns_beside_its_successor_is_a_clone() {
    let mut bench = Bench::new();
    bench.park_of(1, "a", 10);
    bench.gone(1);
    bench.park_of(2, "a", 20);
    assert_eq!(bench.park_of(3, "a", 10), [cloned("a", 10, 20)]);
    assert_eq!(bench.call(1, "a"), [assign(2, 1)]);
}

#[test]
fn the_newest_instances_parks_are_used_first() {
    let mut bench = Bench::new();
    bench.park_of(1, "a", 10);
    bench.at(1).park_of(2, "a", 20);
    bench.at(2).park_of(3, "a", 10);
    assert_eq!(bench.call(1, "a"), [assign(2, 1)]);
    assert_eq!(bench.call(2, "a"), [assign(3, 2)]);
}

#[test]
fn the_older_instances_parks_are_evicted_first() {
    let mut bench = Bench::with(|limits| limits.parks_per_endpoint = 2);
    bench.park_of(1, "a", 10);
    bench.park_of(2, "a", 20);
    bench.at(1);
    assert_eq!(bench.park_of(3, "a", 10), [close(1, CloseReason::Evicted)]);
    assert_eq!(bench.park_of(4, "a", 20), [close(3, CloseReason::Evicted)]);
}

#[test]
fn an_endpoint_that_restarts_over_and_over_does_not_pile_up_instances() {
    let mut bench = Bench::new();
    bench.park_of(0, "a", 0);
    for restart in 1..1000 {
        bench.park_of(restart, "a", restart.into());
        bench.gone(restart);
    }
    let entry = bench.machine.registry.endpoint("a").unwrap();
    assert!((1..1000).filter(|instance| entry.instances.rank(*instance).is_some()).count() < 10);
    assert!(entry.instances.rank(0).is_some());
}

#[test]
fn an_instance_can_be_revoked_by_itself() {
    let mut bench = Bench::new();
    bench.session(1, 1, "a");
    bench.park_of(2, "a", 20);
    bench.call(2, "a");
    bench.park_of(3, "a", 20);
    bench.park_of(4, "a", 1);
    assert_eq!(
        bench.send(Event::RevokeInstance { endpoint: name("a"), instance: 20 }),
        [close(3, CloseReason::Revoked), close(2, CloseReason::Revoked), assign(4, 2)]
    );
    assert!(bench.state(1).is_some());
}
