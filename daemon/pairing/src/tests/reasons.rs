//! Which situation a call that gets no park is told of.

use super::*;

const END: u64 = 50;

/// What a call that comes at `second` fails with at its deadline.
fn told(bench: &mut Bench, second: u64) -> CallError {
    bench.at(second).call_until(9, "a", END);
    told_at_the_end(bench)
}

fn told_at_the_end(bench: &mut Bench) -> CallError {
    while bench.next().is_some_and(|next| next < u128::from(END) * 1_000) {
        let next = bench.next().and_then(|next| next.try_into().ok()).unwrap();
        let actions = bench.at_ms(next).tick();
        if let Some(error) = failed(&actions) {
            return error;
        }
        // The one that is asked to take a call up does, and says nothing more.
        for park in 1..=3 {
            bench.take_up(park);
        }
    }
    failed(&bench.at(END).tick()).expect("it has an end")
}

fn failed(actions: &[Action]) -> Option<CallError> {
    actions.iter().find_map(|action| match action {
        Action::Fail { call: CallId(9), error } => Some(*error),
        _ => None,
    })
}

#[test]
fn an_endpoint_whose_parks_are_all_in_use_should_hold_more() {
    let mut bench = Bench::new();
    bench.session(1, 1, "a");
    assert_eq!(told(&mut bench, 1), CallError::NoParkInTime);
}

#[test]
fn an_endpoint_that_takes_connects_and_says_nothing_is_silent() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.park(2, "a");
    bench.call_until(9, "a", END);
    assert!(bench.take_up(2).or(bench.take_up(1)).is_some());
    assert_eq!(told_at_the_end(&mut bench), CallError::EndpointSilent);
}

#[test]
fn an_endpoint_that_has_not_answered_its_last_ping_is_silent_until_it_parks_again() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    assert_eq!(bench.at(20).tick(), [ping(1)]);
    assert_eq!(bench.at(30).tick(), [close(1, CloseReason::PingTimeout)]);
    assert_eq!(told(&mut bench, 31), CallError::EndpointSilent);
    bench.at(61).park(2, "a");
    bench.gone(2);
    bench.at(62).call_until(9, "a", 70);
    assert_eq!(failed(&bench.at(70).tick()), Some(CallError::EndpointAway));
}

#[test]
fn an_endpoint_that_has_left_or_was_cut_is_away() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.gone(1);
    assert_eq!(told(&mut bench, 1), CallError::EndpointAway);
}

#[test]
fn parks_that_break_under_a_call_are_lost_and_not_silent() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.park(2, "a");
    bench.call_until(9, "a", END);
    let first = if bench.take_up(1).is_some() { 1 } else { 2 };
    bench.gone(first);
    assert_eq!(told_at_the_end(&mut bench), CallError::ParksLost);
}
