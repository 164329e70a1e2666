//! Limits on parks, queues, sessions and endpoints.

use super::*;

#[test]
fn the_oldest_park_makes_room_for_a_new_one() {
    let mut bench = Bench::with(|limits| limits.parks_per_endpoint = 2);
    bench.park(1, "a");
    bench.at(1).park(2, "a");
    bench.park(3, "b");
    assert_eq!(bench.at(2).park(4, "a"), [close(1, CloseReason::Evicted)]);
    assert_eq!(bench.at(3).park(5, "a"), [close(2, CloseReason::Evicted)]);
}

#[test]
fn a_park_that_owes_a_pong_is_evicted_before_a_younger_one() {
    let mut bench = Bench::with(|limits| limits.parks_per_endpoint = 2);
    bench.park(1, "a");
    bench.at(5).park(2, "a");
    bench.at(20).tick();
    assert_eq!(bench.at(21).park(3, "a"), [close(1, CloseReason::Evicted)]);
}

#[test]
fn the_park_proved_alive_the_longest_ago_is_the_oldest() {
    let mut bench = Bench::with(|limits| limits.parks_per_endpoint = 2);
    bench.park(1, "a");
    bench.at(5).park(2, "a");
    bench.at(20).tick();
    bench.pong(1);
    assert_eq!(bench.at(21).park(3, "a"), [close(2, CloseReason::Evicted)]);
}

#[test]
fn assigned_parks_and_sessions_are_never_evicted() {
    let mut bench = Bench::with(|limits| limits.parks_per_endpoint = 1);
    bench.session(1, 1, "a");
    bench.park(2, "a");
    bench.call(2, "a");
    assert_eq!(bench.park(3, "a"), NOTHING);
    assert_eq!(bench.park(4, "a"), [close(3, CloseReason::Evicted)]);
}

#[test]
fn calls_beyond_an_endpoints_queue_are_turned_away() {
    let mut bench = Bench::with(|limits| limits.waiting_per_endpoint = 2);
    bench.session(1, 1, "a");
    bench.session(2, 2, "b");
    bench.call(3, "a");
    bench.call(4, "a");
    assert_eq!(bench.call(5, "a"), [fail(5, CallError::TooManyWaiting)]);
    assert_eq!(bench.call(6, "b"), NOTHING);
    bench.call_gone(3);
    assert_eq!(bench.call(7, "a"), NOTHING);
}

#[test]
fn calls_beyond_all_queues_are_turned_away() {
    let mut bench = Bench::with(|limits| limits.waiting_total = 2);
    bench.session(1, 1, "a");
    bench.session(2, 2, "b");
    bench.call(3, "a");
    bench.call(4, "b");
    assert_eq!(bench.call(5, "b"), [fail(5, CallError::TooManyWaiting)]);
    bench.park(3, "c");
    assert_eq!(bench.call(6, "c"), [assign(3, 6)], "it does not have to wait");
}

#[test]
fn a_retried_call_is_not_turned_away() {
    let mut bench = Bench::with(|limits| limits.waiting_per_endpoint = 1);
    bench.park(1, "a");
    bench.call(1, "a");
    bench.call(2, "a");
    assert_eq!(bench.gone(1), NOTHING);
    assert_eq!(bench.machine.counts().waiting, 2);
}

#[test]
fn sessions_and_calls_on_their_way_count_towards_an_endpoints_sessions() {
    let mut bench = Bench::with(|limits| limits.per_endpoint_sessions = 2);
    bench.session(1, 1, "a");
    bench.park(2, "a");
    bench.park(3, "a");
    bench.call(2, "a");
    assert_eq!(bench.call(3, "a"), [fail(3, CallError::TooManySessions)]);
    bench.ended(1);
    assert_eq!(bench.call(4, "a"), [assign(2, 4)]);
}

#[test]
fn a_new_endpoint_takes_the_place_of_the_one_gone_longest() {
    let mut bench = Bench::with(|limits| limits.endpoints = 2);
    bench.park(1, "a");
    bench.park(2, "b");
    bench.gone(2);
    bench.at(1).gone(1);
    bench.park(3, "c");
    assert!(bench.machine.endpoint("b").is_none());
    assert!(bench.machine.endpoint("a").is_some());
}

#[test]
fn a_new_endpoint_is_refused_while_all_others_are_connected() {
    let mut bench = Bench::with(|limits| limits.endpoints = 1);
    bench.park(1, "a");
    assert_eq!(bench.park(2, "b"), [close(2, CloseReason::TooManyEndpoints)]);
    assert_eq!(bench.park(3, "a"), NOTHING);
}

#[test]
fn an_endpoint_that_has_no_place_is_not_waited_for() {
    let mut bench = Bench::with(|limits| {
        limits.endpoints = 1;
        limits.settle = Duration::from_secs(10);
    });
    bench.park(1, "a");
    assert_eq!(bench.call(1, "b"), [fail(1, CallError::UnknownEndpoint)]);
}

#[test]
fn endless_spans_do_not_overflow() {
    let mut bench = Bench::with(|limits| {
        limits.ping_after = Duration::MAX;
        limits.remember_endpoint = Duration::MAX;
        limits.first_byte_within = Duration::MAX;
    });
    bench.at(1).park(1, "a");
    bench.send(Event::Called { call: CallId(1), endpoint: name("a"), deadline: Duration::MAX });
    assert_eq!(bench.take_up(1), Some(1));
    bench.gone(1);
    bench.park(2, "b");
    assert_eq!(bench.send(Event::Drain { over: Duration::MAX }), [fail(1, CallError::Draining)]);
}
