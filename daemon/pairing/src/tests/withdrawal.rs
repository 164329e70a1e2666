//! Rule 6: callers that leave.

use super::*;

#[test]
fn a_caller_that_leaves_while_it_waits_is_taken_off_the_queue() {
    let mut bench = Bench::new();
    bench.session(1, 1, "a");
    bench.call(2, "a");
    bench.call(3, "a");
    assert_eq!(bench.call_gone(2), NOTHING);
    assert_eq!(bench.park(2, "a"), [assign(2, 3)]);
}

#[test]
fn a_park_whose_caller_left_before_connect_goes_back_unharmed() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.at(1).call(1, "a");
    assert_eq!(bench.call_gone(1), NOTHING);
    assert_eq!(bench.state(1), Some(ParkState::Idle));
    assert_eq!(bench.take_up(1), None);
    assert_eq!(bench.next(), Some(20_000), "its silence was not broken");
    assert_eq!(bench.at(2).call(2, "a"), [assign(1, 2)]);
}

#[test]
fn a_park_whose_caller_left_before_connect_serves_the_next_call() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.call(1, "a");
    bench.call(2, "a");
    assert_eq!(bench.call_gone(1), [assign(1, 2)]);
    assert_eq!(bench.take_up(1), Some(2));
    assert_eq!(bench.take_up(1), None, "the message of the second assignment comes late");
}

#[test]
fn a_park_that_came_back_after_a_long_silence_is_pinged_at_once() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.at(19).call(1, "a");
    assert_eq!(bench.at(21).call_gone(1), [ping(1)]);
}

#[test]
fn a_park_whose_caller_left_after_connect_is_closed() {
    for byte_first in [false, true] {
        let mut bench = Bench::new();
        bench.park(1, "a");
        bench.call(1, "a");
        bench.take_up(1);
        if byte_first {
            bench.first_byte(1);
        }
        assert_eq!(bench.call_gone(1), [close(1, CloseReason::CallerGone)]);
        assert_eq!(bench.accepted(1), NOTHING);
    }
}

#[test]
fn a_caller_that_leaves_its_session_is_the_shells_to_report() {
    let mut bench = Bench::new();
    bench.session(1, 1, "a");
    assert_eq!(bench.call_gone(1), NOTHING);
    assert_eq!(bench.state(1), Some(ParkState::Session { call: CallId(1) }));
    bench.ended(1);
    assert_eq!(bench.state(1), None);
}
