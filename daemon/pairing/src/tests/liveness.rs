//! Rules 1 to 3: pings, pongs and what becomes of a silent park.

use super::*;

///
#[test]
fn a_park_is_pinged_after_twenty_seconds_of_silence() {
    let mut bench = Bench::new();
    bench.at(5).park(1, "a");
    assert_eq!(bench.next(), Some(25_000));
    assert_eq!(bench.at_ms(24_999).tick(), NOTHING);
    assert_eq!(bench.at(25).tick(), [ping(1)]);
    assert_eq!(bench.state(1), Some(ParkState::Pinging));
}

///
#[test]
fn a_ping_that_stays_unanswered_ends_the_park() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.at(20).tick();
    assert_eq!(bench.next(), Some(30_000));
    assert_eq!(bench.at(30).tick(), [close(1, CloseReason::PingTimeout)]);
    assert_eq!(bench.state(1), None);
}

///
#[test]
fn a_pong_restarts_the_silence() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.at(20).tick();
    assert_eq!(bench.at(23).pong(1), NOTHING);
    assert_eq!(bench.state(1), Some(ParkState::Idle));
    assert_eq!(bench.next(), Some(43_000));
    assert_eq!(bench.at(43).tick(), [ping(1)]);
}

///
#[test]
fn a_pong_that_comes_too_late_does_not_save_the_park() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.at(20).tick();
    assert_eq!(bench.at(30).pong(1), [close(1, CloseReason::PingTimeout)]);
}

///
#[test]
fn a_pong_nobody_asked_for_is_a_protocol_error() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    assert_eq!(bench.pong(1), [close(1, CloseReason::Protocol)]);
    bench.park(2, "a");
    bench.at(20).tick();
    bench.pong(2);
    assert_eq!(bench.pong(2), [close(2, CloseReason::Protocol)]);
}

#[test]
fn bytes_nobody_asked_for_end_the_park_in_any_state() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    assert_eq!(bench.unexpected(1), [close(1, CloseReason::Protocol)]);
    bench.park(2, "a");
    bench.at(20).tick();
    assert_eq!(bench.unexpected(2), [close(2, CloseReason::Protocol)]);
    bench.session(3, 1, "a");
    assert_eq!(bench.unexpected(3), [close(3, CloseReason::Protocol)]);
    assert_eq!(bench.unexpected(3), NOTHING);
}

///
#[test]
fn no_call_goes_behind_an_unanswered_ping() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.at(20).tick();
    assert_eq!(bench.call(1, "a"), NOTHING);
    assert_eq!(bench.take_up(1), None);
    assert_eq!(bench.at(21).pong(1), [assign(1, 1)]);
}

#[test]
fn the_newest_answered_park_is_used_first() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.at(10).park(2, "a");
    bench.at(12).park(3, "a");
    bench.at(20).tick();
    bench.at(21).pong(1);
    assert_eq!(bench.at(22).call(1, "a"), [assign(1, 1)]);
    assert_eq!(bench.call(2, "a"), [assign(3, 2)]);
    assert_eq!(bench.call(3, "a"), [assign(2, 3)]);
}

///
#[test]
fn an_assigned_park_and_a_session_are_not_pinged() {
    let mut bench = Bench::with(|limits| limits.first_byte_within = Duration::from_secs(500));
    bench.session(1, 1, "a");
    bench.park(2, "a");
    bench.call(2, "a");
    assert_eq!(bench.at(100).tick(), NOTHING);
}

#[test]
fn ten_thousand_parks_are_kept_alive() {
    let mut bench = Bench::with(|limits| limits.parks_per_endpoint = 10);
    for park in 0..10_000 {
        bench.at_ms(park).park(park, &format!("endpoint-{}", park % 1000));
    }
    let mut pings = 0;
    while let Some(next) = bench.machine.next_deadline().filter(|next| next.as_secs() < 90) {
        bench.now = u64::try_from(next.as_millis()).unwrap();
        for action in bench.tick() {
            let Action::Ping { park } = action else { panic!("{action:?}") };
            pings += 1;
            assert_eq!(bench.pong(park.0), NOTHING);
        }
    }
    assert_eq!(bench.machine.counts().parks.idle, 10_000);
    assert!(pings >= 30_000, "{pings}");
}

#[test]
fn time_does_not_run_backwards() {
    let mut bench = Bench::new();
    bench.at(50).park(1, "a");
    bench.at(40).park(2, "a");
    assert_eq!(bench.next(), Some(70_000));
    assert_eq!(bench.at(69).tick(), NOTHING);
    assert_eq!(bench.at(70).tick(), [ping(1), ping(2)]);
}

/// The memory of a park in the machine's maps stays below 300 bytes.
#[test]
fn a_park_takes_less_than_three_hundred_bytes() {
    const { assert!(2 * crate::registry::BYTES_PER_PARK < 300) }
}

///
#[test]
fn a_shorter_silence_holds_for_parks_that_are_there_already() {
    let mut bench = Bench::new();
    bench.park(1, "a");
    bench.machine.set_limits(Limits { ping_after: Duration::from_secs(5), ..Limits::default() });
    assert_eq!(bench.next(), Some(5_000));
    assert_eq!(bench.at(5).tick(), [ping(1)]);
}
