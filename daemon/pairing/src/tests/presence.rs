//! Who is connected, who was revoked, and what can be listed.

use super::*;
use crate::{ParkCounts, Presence, Stage};

fn joined(endpoint: &str) -> Action {
    Action::Presence(Presence::Joined { endpoint: name(endpoint) })
}

fn left(endpoint: &str) -> Action {
    Action::Presence(Presence::Left { endpoint: name(endpoint) })
}

fn changed(endpoint: &str) -> Action {
    Action::Presence(Presence::Changed { endpoint: name(endpoint) })
}

fn parked(park: u64, endpoint: &str) -> Event {
    Event::Parked { park: ParkId(park), endpoint: name(endpoint), instance: 1 }
}

fn gone(park: u64) -> Event {
    Event::ParkGone { park: ParkId(park), clean: true }
}

#[test]
fn presence_tells_of_the_first_and_the_last_connection_and_of_changes() {
    let mut bench = Bench::new();
    assert_eq!(bench.all(parked(1, "a")), [joined("a")]);
    assert_eq!(bench.all(parked(2, "a")), [changed("a")]);
    assert_eq!(bench.all(gone(1)), [changed("a")]);
    bench.call(1, "a");
    bench.take_up(2);
    assert_eq!(bench.all(Event::Accepted { park: ParkId(2) }), [join(2, 1), changed("a")]);
    assert_eq!(bench.all(Event::SessionEnded { park: ParkId(2) }), [left("a")]);
    assert_eq!(bench.all(parked(3, "a")), [joined("a")]);
}

#[test]
fn presence_is_silent_about_changes_that_even_out() {
    let mut bench = Bench::with(|limits| limits.parks_per_endpoint = 1);
    bench.park(1, "a");
    assert_eq!(bench.all(parked(2, "a")), [close(1, CloseReason::Evicted)]);
    assert_eq!(bench.at(20).all(Event::Tick), [ping(2)]);
    assert_eq!(bench.all(Event::Pong { park: ParkId(2) }), NOTHING);
}

#[test]
fn a_forgotten_endpoint_has_left_only_once() {
    let mut bench = Bench::new();
    bench.all(parked(1, "a"));
    assert_eq!(bench.all(gone(1)), [left("a")]);
    assert_eq!(bench.at(60).all(Event::Tick), NOTHING);
}

#[test]
fn a_revoked_endpoint_loses_everything_and_is_forgotten_at_once() {
    let mut bench = Bench::new();
    bench.session(1, 1, "a");
    bench.park(2, "a");
    bench.call(2, "a");
    bench.park(3, "a");
    bench.call(3, "a");
    bench.take_up(3);
    bench.first_byte(3);
    bench.call(4, "a");
    bench.park(9, "b");
    assert_eq!(
        bench.all(Event::Revoke { endpoint: name("a") }),
        [
            fail(4, CallError::UnknownEndpoint),
            close(1, CloseReason::Revoked),
            fail(2, CallError::UnknownEndpoint),
            close(2, CloseReason::Revoked),
            fail(3, CallError::UnknownEndpoint),
            close(3, CloseReason::Revoked),
            left("a"),
        ]
    );
    assert!(bench.machine.endpoint("a").is_none());
    assert_eq!(bench.call(5, "a"), [fail(5, CallError::UnknownEndpoint)]);
    assert!(bench.state(9).is_some());
}

#[test]
fn an_endpoint_that_is_only_remembered_can_be_revoked() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.gone(1);
    bench.call(1, "a");
    assert_eq!(bench.revoke("a"), [fail(1, CallError::UnknownEndpoint)]);
    assert_eq!(bench.machine.counts(), crate::Counts::default());
    assert_eq!(bench.next(), None);
}

#[test]
fn a_single_park_can_be_revoked() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.park(2, "a");
    bench.call(1, "a");
    assert_eq!(
        bench.send(Event::RevokePark { park: ParkId(2) }),
        [close(2, CloseReason::Revoked), assign(1, 1)]
    );
}

#[test]
fn endpoints_and_parks_are_listed_as_they_are() {
    let mut bench = Bench::new();
    bench.session(1, 1, "a");
    bench.at(5).park(2, "a");
    bench.at(6).call(2, "a");
    bench.take_up(2);
    bench.call(3, "a");
    bench.park(3, "b");
    let counts = bench.machine.counts();
    assert_eq!(counts.parks, ParkCounts { idle: 1, pinging: 0, assigned: 1, sessions: 1 });
    assert_eq!((counts.endpoints, counts.calls, counts.waiting), (2, 2, 1));
    let listed: Vec<_> = bench
        .machine
        .endpoints()
        .map(|view| (view.id.to_string(), view.parks.live(), view.waiting))
        .collect();
    assert_eq!(listed, [("a".to_owned(), 2, 1), ("b".to_owned(), 1, 0)]);
    assert_eq!(bench.machine.endpoint("b").unwrap().instances, 1);
    let park = bench.machine.park(ParkId(2)).unwrap();
    assert_eq!((&**park.endpoint, park.instance), ("a", 1));
    assert_eq!(park.state, ParkState::Assigned { call: CallId(2), stage: Stage::Connecting });
    assert_eq!((park.since.as_secs(), park.proved.as_secs()), (6, 5));
    assert_eq!(bench.machine.parks().map(|view| view.park.0).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn an_endpoint_that_the_machine_before_knew_is_waited_for_as_if_it_had_been_here() {
    let mut bench = Bench::new();
    assert_eq!(bench.expected("a", 40), NOTHING);
    assert_eq!(bench.at(16).call_until(1, "a", 30), NOTHING);
    assert_eq!(bench.at(30).tick(), [fail(1, CallError::EndpointAway)]);
    assert_eq!(bench.at(40).call(2, "a"), [fail(2, CallError::UnknownEndpoint)]);
}

#[test]
fn nobody_is_forgotten_for_an_endpoint_that_may_come() {
    let mut bench = Bench::with(|limits| limits.endpoints = 1);
    bench.park(1, "a");
    bench.gone(1);
    bench.expected("b", 40);
    assert_eq!(bench.at(1).call_until(1, "a", 30), NOTHING);
    assert_eq!(bench.call(2, "b"), [fail(2, CallError::UnknownEndpoint)]);
}

#[test]
fn what_is_known_is_told_to_the_next_machine_page_by_page() {
    let mut bench = Bench::new();
    for (park, endpoint) in [(1, "a"), (2, "b"), (3, "c")] {
        bench.park(park, endpoint);
    }
    bench.gone(2);
    bench.at(10).tick();
    let known = |after: &str| -> Vec<_> {
        bench.machine.known_after(after).map(|(id, left)| (id.to_string(), left.as_secs())).collect()
    };
    assert_eq!(known(""), [("a".to_owned(), 60), ("b".to_owned(), 50), ("c".to_owned(), 60)]);
    assert_eq!(known("b"), [("c".to_owned(), 60)]);
}
