//! Rule 4 and the way from a call to its session.

use super::*;

#[test]
fn a_call_gets_an_idle_park_and_joins_it() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    assert_eq!(bench.call(7, "a"), [assign(1, 7)]);
    assert_eq!(bench.take_up(1), Some(7));
    assert_eq!(bench.first_byte(1), NOTHING);
    assert_eq!(bench.accepted(1), [join(1, 7)]);
    assert_eq!(bench.state(1), Some(ParkState::Session { call: CallId(7) }));
    assert_eq!(bench.at(5000).tick(), NOTHING);
    assert_eq!(bench.ended(1), NOTHING);
    assert_eq!(bench.machine.counts().parks.live(), 0);
}

#[test]
fn an_answer_read_in_one_piece_needs_no_first_byte() {
    let mut bench = Bench::new();
    bench.session(1, 1, "a");
}

#[test]
fn a_park_serves_one_session() {
    let mut bench = Bench::new();
    bench.session(1, 1, "a");
    assert_eq!(bench.call(2, "a"), NOTHING);
    assert_eq!(bench.ended(1), NOTHING);
    assert_eq!(bench.at(1).park(2, "a"), [assign(2, 2)]);
}

#[test]
fn a_call_waits_for_a_park_first_come_first_served() {
    let mut bench = Bench::new();
    bench.session(1, 1, "a");
    for call in 2..5 {
        assert_eq!(bench.call(call, "a"), NOTHING);
    }
    for park in 2..5 {
        assert_eq!(bench.park(park, "a"), [assign(park, park)]);
    }
}

#[test]
fn a_call_does_not_get_another_endpoints_park() {
    let mut bench = Bench::new();
    bench.session(1, 1, "a");
    bench.call(2, "a");
    assert_eq!(bench.park(2, "b"), NOTHING);
}

#[test]
fn a_call_for_an_unknown_endpoint_fails_at_once() {
    let mut bench = Bench::new();
    assert_eq!(bench.call(1, "a"), [fail(1, CallError::UnknownEndpoint)]);
    assert_eq!(bench.machine.counts().endpoints, 0);
}

#[test]
fn a_call_for_an_endpoint_that_left_lately_waits_for_it() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.at(10).gone(1);
    assert_eq!(bench.at(69).call(1, "a"), NOTHING);
    assert_eq!(bench.at(80).park(2, "a"), [assign(2, 1)]);
}

#[test]
fn an_endpoint_is_forgotten_a_minute_after_it_left() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.at(10).gone(1);
    assert_eq!(bench.next(), Some(70_000));
    assert_eq!(bench.at(70).call(1, "a"), [fail(1, CallError::UnknownEndpoint)]);
    assert_eq!(bench.machine.counts().endpoints, 0);
    assert_eq!(bench.next(), None);
}

#[test]
fn waiting_calls_do_not_make_an_endpoint_known_for_longer() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.at(10).gone(1);
    bench.at(60).call(1, "a");
    assert_eq!(bench.at(70).call(2, "a"), [fail(2, CallError::UnknownEndpoint)]);
    assert_eq!(bench.call_gone(1), NOTHING);
    assert_eq!(bench.machine.counts().endpoints, 0);
}

#[test]
fn calls_wait_for_any_endpoint_while_the_machine_settles() {
    let mut bench = Bench::with(|limits| limits.settle = Duration::from_secs(10));
    assert_eq!(bench.at(3).call_until(1, "a", 30), [want("a")], "it may be parked at a predecessor");
    assert_eq!(bench.call_until(3, "a", 4), NOTHING, "that has been said");
    assert_eq!(bench.at(9).park(1, "a"), [fail(3, CallError::UnknownEndpoint), assign(1, 1)]);
    assert_eq!(bench.at(10).call(2, "b"), [fail(2, CallError::UnknownEndpoint)]);
}

#[test]
fn an_endpoint_that_never_came_while_settling_leaves_nothing_behind() {
    let mut bench = Bench::with(|limits| limits.settle = Duration::from_secs(10));
    bench.at(9).call_until(1, "a", 30);
    assert_eq!(bench.next(), Some(10_000));
    assert_eq!(bench.at(10).tick(), [fail(1, CallError::UnknownEndpoint)]);
    assert_eq!(bench.machine.counts(), crate::Counts::default());
    assert_eq!(bench.next(), None);
}

#[test]
fn a_call_whose_endpoint_came_while_settling_has_all_of_its_time() {
    let mut bench = Bench::with(|limits| limits.settle = Duration::from_secs(10));
    bench.at(3).call_until(1, "a", 30);
    bench.call_until(2, "a", 30);
    bench.at(9).park(1, "a");
    assert_eq!(bench.at(10).tick(), NOTHING);
    assert!(bench.at(20).park(2, "a").contains(&assign(2, 1)));
}

#[test]
fn a_waiting_call_fails_at_its_deadline() {
    let mut bench = Bench::new();
    bench.session(1, 1, "a");
    bench.call_until(2, "a", 30);
    assert_eq!(bench.next(), Some(30_000));
    assert_eq!(bench.at(30).tick(), [fail(2, CallError::NoParkInTime)]);
    assert_eq!(bench.park(2, "a"), NOTHING);
}

#[test]
fn a_call_whose_deadline_has_passed_gets_no_park() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    assert_eq!(bench.at(5).call_until(1, "a", 5), [fail(1, CallError::NoParkInTime)]);
    assert_eq!(bench.state(1), Some(ParkState::Idle));
}

#[test]
fn a_refusal_fails_the_call_and_closes_the_park() {
    let mut bench = Bench::new();
    for (park, byte_first) in [(1, false), (2, true)] {
        bench.park(park, "a");
        bench.call(park, "a");
        bench.take_up(park);
        if byte_first {
            bench.first_byte(park);
        }
        let error = CallError::RefusedByEndpoint { status: 404 };
        assert_eq!(bench.refused(park, 404), [fail(park, error), close(park, CloseReason::Refused)]);
    }
}

#[test]
fn an_answer_out_of_turn_is_a_protocol_error() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    assert_eq!(bench.accepted(1), [close(1, CloseReason::Protocol)]);
    bench.park(2, "a");
    assert_eq!(bench.first_byte(2), [close(2, CloseReason::Protocol)]);
    bench.park(3, "a");
    bench.call(1, "a");
    assert_eq!(bench.refused(3, 404), [close(3, CloseReason::Protocol)]);
    assert_eq!(bench.park(4, "a"), [assign(4, 1)]);
}

#[test]
fn events_about_what_has_ended_or_never_was_are_ignored() {
    let mut bench = Bench::new();
    bench.session(1, 1, "a");
    bench.ended(1);
    for id in [1, 99] {
        for actions in [
            bench.pong(id),
            bench.unexpected(id),
            bench.gone(id),
            bench.call_gone(id),
            bench.first_byte(id),
            bench.accepted(id),
            bench.refused(id, 500),
            bench.ended(id),
            bench.send(Event::RevokePark { park: ParkId(id) }),
            bench.revoke("nobody"),
            bench.send(Event::RevokeInstance { endpoint: name("nobody"), instance: 1 }),
        ] {
            assert_eq!(actions, NOTHING);
        }
        assert_eq!(bench.take_up(id), None);
    }
}

#[test]
fn an_id_that_is_in_use_is_not_taken_again() {
    let mut bench = Bench::new();
    bench.session(1, 1, "a");
    bench.call(2, "a");
    assert_eq!(bench.park(1, "a"), NOTHING);
    assert_eq!(bench.call(2, "a"), NOTHING);
    assert_eq!(bench.machine.counts().calls, 1);
}

#[test]
fn a_session_takes_no_more_answers() {
    let mut bench = Bench::new();
    bench.session(1, 1, "a");
    assert_eq!(bench.first_byte(1), NOTHING);
    assert_eq!(bench.accepted(1), NOTHING);
    assert_eq!(bench.refused(1, 500), NOTHING);
    assert_eq!(bench.state(1), Some(ParkState::Session { call: CallId(1) }));
}

#[test]
fn reasons_and_errors_speak_for_themselves() {
    let errors = [
        CallError::UnknownEndpoint,
        CallError::NoParkInTime,
        CallError::EndpointAway,
        CallError::EndpointSilent,
        CallError::ParksLost,
        CallError::RefusedByEndpoint { status: 503 },
        CallError::AnswerTimeout,
        CallError::TooManyWaiting,
        CallError::TooManySessions,
        CallError::Draining,
        CallError::EndpointFailed,
    ];
    let reasons = [
        CloseReason::Evicted,
        CloseReason::PingTimeout,
        CloseReason::Protocol,
        CloseReason::Silent,
        CloseReason::AnswerTimeout,
        CloseReason::Refused,
        CloseReason::Draining,
        CloseReason::Revoked,
        CloseReason::CallerGone,
        CloseReason::TooManyEndpoints,
    ];
    let said = errors.map(|error| (error.label(), error.to_string()));
    let written = reasons.map(|reason| (reason.label(), reason.to_string()));
    assert!(said.iter().any(|(_, line)| line.contains("as many sessions as it allows")));
    for (label, line) in said.iter().chain(&written) {
        assert!(label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{label}");
        assert!(line.contains(": ") && !line.contains('\n'), "{line}");
    }
}
