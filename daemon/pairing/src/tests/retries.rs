//! Rules 5 and 7: parks that are lost under a call, and calls that run out of time.

use super::*;

/// A call for a park that is about to be lost, with another call waiting behind it.
fn one_connecting_and_one_waiting() -> Bench {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.call(1, "a");
    bench.take_up(1);
    bench.call(2, "a");
    bench
}

#[test]
fn a_call_whose_park_dies_before_it_answers_is_retried_first() {
    let mut bench = one_connecting_and_one_waiting();
    assert_eq!(bench.gone(1), NOTHING);
    assert_eq!(bench.park(2, "a"), [assign(2, 1)]);
    assert_eq!(bench.park(3, "a"), [assign(3, 2)]);
}

#[test]
fn a_call_is_retried_at_once_on_a_park_that_is_idle() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.park(2, "a");
    assert_eq!(bench.call(1, "a"), [assign(2, 1)]);
    assert_eq!(bench.gone(2), [assign(1, 1)]);
}

///
#[test]
fn a_park_that_does_not_answer_connect_is_closed_and_its_call_retried() {
    let mut bench = one_connecting_and_one_waiting();
    assert_eq!(bench.next(), Some(3000));
    assert_eq!(bench.at(3).tick(), [close(1, CloseReason::Silent)]);
    assert_eq!(bench.park(2, "a"), [assign(2, 1)]);
}

#[test]
fn a_park_that_does_not_take_its_call_up_is_closed_and_the_call_retried() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.park(2, "a");
    bench.call(1, "a");
    assert_eq!(bench.at(3).take_up(2), None);
    assert_eq!(bench.tick(), [close(2, CloseReason::Silent), assign(1, 1)]);
}

#[test]
fn connect_has_its_full_time_from_when_it_was_taken_up() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.call(1, "a");
    bench.at(2).take_up(1);
    assert_eq!(bench.next(), Some(5000));
    assert_eq!(bench.at(4).first_byte(1), NOTHING);
    assert_eq!(bench.next(), Some(14_000));
}

#[test]
fn a_protocol_error_before_the_answer_is_a_lost_park() {
    let mut bench = one_connecting_and_one_waiting();
    assert_eq!(bench.unexpected(1), [close(1, CloseReason::Protocol)]);
    assert_eq!(bench.park(2, "a"), [assign(2, 1)]);
}

#[test]
fn a_call_fails_when_as_many_parks_as_allowed_were_lost() {
    let mut bench = Bench::with(|limits| limits.attempts = 3);
    bench.park(1, "a");
    bench.call(1, "a");
    bench.gone(1);
    bench.park(2, "a");
    bench.take_up(2);
    bench.gone(2);
    assert_eq!(bench.park(3, "a"), [assign(3, 1)]);
    bench.take_up(3);
    assert_eq!(bench.gone(3), [fail(1, CallError::ParksLost)]);
}

#[test]
fn retried_calls_keep_their_order() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.park(2, "a");
    bench.call(1, "a");
    bench.call(2, "a");
    bench.call(3, "a");
    bench.gone(1);
    bench.gone(2);
    assert_eq!(bench.park(3, "a"), [assign(3, 1)]);
    assert_eq!(bench.park(4, "a"), [assign(4, 2)]);
    assert_eq!(bench.park(5, "a"), [assign(5, 3)]);
}

#[test]
fn a_call_is_never_retried_after_the_first_byte_of_an_answer() {
    let mut bench = one_connecting_and_one_waiting();
    bench.park(2, "b");
    bench.first_byte(1);
    assert_eq!(bench.gone(1), [fail(1, CallError::EndpointFailed)]);
    assert_eq!(bench.park(3, "a"), [assign(3, 2)]);
}

#[test]
fn an_answer_that_does_not_end_in_time_fails_the_call() {
    let mut bench = one_connecting_and_one_waiting();
    bench.at(2).first_byte(1);
    assert_eq!(bench.next(), Some(12_000));
    assert_eq!(
        bench.at(12).tick(),
        [fail(1, CallError::AnswerTimeout), close(1, CloseReason::AnswerTimeout)]
    );
}

#[test]
fn the_deadline_ends_a_call_whose_connect_was_sent() {
    for byte_first in [false, true] {
        let mut bench = Bench::new();
        bench.park(1, "a");
        bench.call_until(1, "a", 2);
        bench.take_up(1);
        if byte_first {
            bench.first_byte(1);
        }
        assert_eq!(
            bench.at(2).accepted(1),
            [fail(1, CallError::AnswerTimeout), close(1, CloseReason::AnswerTimeout)]
        );
    }
}

#[test]
fn the_deadline_of_a_call_that_was_not_taken_up_gives_the_park_back() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.call_until(1, "a", 2);
    bench.call_until(2, "a", 9);
    assert_eq!(bench.at(2).take_up(1), None);
    assert_eq!(bench.tick(), [fail(1, CallError::NoParkInTime), assign(1, 2)]);
    assert_eq!(bench.take_up(1), Some(2));
}

#[test]
fn a_lost_call_whose_deadline_passed_meanwhile_is_not_assigned_again() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.park(2, "a");
    bench.call_until(1, "a", 4);
    bench.take_up(2);
    assert_eq!(bench.at(5).tick(), [close(2, CloseReason::Silent), fail(1, CallError::EndpointSilent)]);
    assert_eq!(bench.state(1), Some(ParkState::Idle));
}

#[test]
fn a_retried_call_still_ends_at_its_deadline() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.call_until(1, "a", 10);
    bench.take_up(1);
    bench.gone(1);
    assert_eq!(bench.at(10).tick(), [fail(1, CallError::ParksLost)]);
}
