//! A machine that drains lets its parks go, and keeps its sessions.

use super::*;

#[test]
fn parks_are_let_go_evenly_over_the_time_given() {
    let mut bench = Bench::with(|limits| limits.ping_after = Duration::from_secs(500));
    for park in 1..=4 {
        bench.park(park, "a");
    }
    assert_eq!(bench.at(10).drain(20), NOTHING);
    for (park, second) in [(1, 15), (2, 20), (3, 25), (4, 30)] {
        assert_eq!(bench.next(), Some(second * 1000));
        bench.at(u64::try_from(second).unwrap());
        assert_eq!(bench.tick(), [close(park, CloseReason::Draining)]);
    }
    assert_eq!(bench.machine.counts().parks.live(), 0);
}

#[test]
fn a_drain_over_no_time_lets_all_parks_go_at_once() {
    let mut bench = Bench::new();
    for park in 1..=3 {
        bench.park(park, "a");
    }
    assert_eq!(bench.drain(0).len(), 3);
}

#[test]
fn a_second_drain_sets_a_new_time() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.park(2, "a");
    bench.drain(1000);
    assert_eq!(bench.at(1).drain(0).len(), 2);
}

#[test]
fn new_calls_and_new_parks_are_refused_while_draining() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.drain(100);
    assert!(bench.machine.is_draining());
    assert_eq!(bench.call(1, "a"), [fail(1, CallError::Draining)]);
    assert_eq!(bench.park(2, "a"), [close(2, CloseReason::Draining)]);
    assert_eq!(bench.park(3, "b"), [close(3, CloseReason::Draining)]);
    assert!(bench.machine.endpoint("b").is_none());
}

#[test]
fn sessions_and_calls_on_their_way_outlast_a_drain() {
    let mut bench = Bench::new();
    bench.session(1, 1, "a");
    bench.park(2, "a");
    bench.call(2, "a");
    bench.take_up(2);
    assert_eq!(bench.drain(0), NOTHING);
    assert_eq!(bench.at(2).accepted(2), [join(2, 2)]);
    assert_eq!(bench.at(9000).tick(), NOTHING);
    assert_eq!(bench.machine.counts().parks.sessions, 2);
}

#[test]
fn a_waiting_call_is_served_by_a_park_that_becomes_idle_during_a_drain() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.at(20).tick();
    bench.call(1, "a");
    bench.drain(100);
    assert_eq!(bench.at(21).pong(1), [assign(1, 1)]);
    bench.take_up(1);
    assert_eq!(bench.accepted(1), [join(1, 1)]);
}

#[test]
fn a_park_that_comes_back_during_a_drain_is_let_go_as_well() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.call(1, "a");
    bench.drain(10);
    assert_eq!(bench.next(), Some(3000), "no park to let go");
    bench.at(2).call_gone(1);
    assert_eq!(bench.next(), Some(10_000));
    assert_eq!(bench.at(10).tick(), [close(1, CloseReason::Draining)]);
}

#[test]
fn a_park_that_comes_back_after_a_drain_is_let_go_at_once() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.call(1, "a");
    bench.drain(1);
    assert_eq!(bench.at(2).call_gone(1), [close(1, CloseReason::Draining)]);
}

#[test]
fn a_waiting_call_gets_a_returned_park_even_after_the_time_of_the_drain() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.call(1, "a");
    bench.call(2, "a");
    bench.drain(0);
    assert_eq!(bench.at(1).call_gone(1), [assign(1, 2)]);
}

#[test]
fn parks_that_end_by_themselves_do_not_upset_the_pace() {
    let mut bench = Bench::with(|limits| limits.ping_after = Duration::from_secs(500));
    for park in 1..=10 {
        bench.park(park, "a");
    }
    bench.drain(100);
    bench.at(10).tick();
    for park in 2..=8 {
        bench.gone(park);
    }
    bench.at(20);
    assert_eq!(bench.tick(), [close(9, CloseReason::Draining)]);
    assert_eq!(bench.next(), Some(100_000));
}

#[test]
fn each_endpoint_is_let_go_once_before_any_is_let_go_twice() {
    let mut bench = Bench::with(|limits| limits.ping_after = Duration::from_secs(500));
    for (park, endpoint) in [(1, "a"), (2, "a"), (3, "b"), (4, "b"), (5, "c")] {
        bench.park(park, endpoint);
    }
    bench.drain(50);
    let order = [1, 3, 5, 2, 4];
    for (park, second) in order.into_iter().zip([10, 20, 30, 40, 50]) {
        assert_eq!(bench.at(second).tick(), [close(park, CloseReason::Draining)]);
    }
}

#[test]
fn an_endpoint_that_is_called_elsewhere_is_let_go_at_once_and_the_others_keep_their_turns() {
    let mut bench = Bench::new();
    for (park, endpoint) in [(1, "a"), (2, "b"), (3, "b"), (4, "c")] {
        bench.park(park, endpoint);
    }
    assert_eq!(bench.release("b"), NOTHING, "it does not drain");
    bench.drain(8);
    let mut gone = bench.at(1).release("b");
    gone.reverse();
    assert_eq!(gone, [close(3, CloseReason::Draining), close(2, CloseReason::Draining)]);
    assert_eq!(bench.release("nobody"), NOTHING);
    assert_eq!(bench.at(8).tick(), [close(1, CloseReason::Draining), close(4, CloseReason::Draining)]);
}

#[test]
fn a_call_that_waits_for_an_endpoint_without_parks_is_told_to_go_elsewhere() {
    let mut bench = Bench::new();
    bench.session(1, 1, "a");
    bench.call(2, "a");
    assert_eq!(bench.drain(100), [fail(2, CallError::Draining)]);
    assert_eq!(bench.machine.counts().parks.sessions, 1);
}

#[test]
fn a_call_whose_last_park_is_lost_during_a_drain_is_told_to_go_elsewhere() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.call(1, "a");
    bench.take_up(1);
    bench.drain(100);
    assert_eq!(bench.gone(1), [fail(1, CallError::Draining)]);
}
