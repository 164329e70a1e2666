//! One relay leaves its place and another one takes it: callers first, endpoints second, and no call is lost in between.

use zone_channel::{FromRelay, Policy, RelayState, ToRelay};

use crate::bench::{ACCEPT, Bench, Parked, connect_request};

/// As long as nothing goes wrong, nobody waits for its end.
fn patient(policy: &mut Policy) {
    (policy.timeouts.hand_over, policy.timeouts.settle) = (20.0, 20.0);
}

async fn drains(bench: &mut Bench) {
    assert!(matches!(bench.hear().await, FromRelay::Done(RelayState::Draining)));
}

async fn joins(park: &mut Parked, caller: &mut Parked) {
    assert_eq!(park.request().await.method, "CONNECT");
    park.send(ACCEPT).await;
    assert_eq!(caller.response().await.status, 200);
}

#[tokio::test]
async fn a_caller_that_has_connected_before_a_drain_gets_its_session_and_the_drain_waits_for_it() {
    let mut bench = Bench::start(patient).await;
    let mut park = bench.park("host-7").await;
    let stream = bench.dial_module_port(&bench.module_server("inside")).await.unwrap();
    let mut caller = Parked { stream, bytes: Vec::new() };
    bench.to_relay.send(&ToRelay::Drain, &[]).await.unwrap();
    caller.send(&connect_request("host-7:ssh")).await;
    joins(&mut park, &mut caller).await;
    drains(&mut bench).await;
    caller.send("on").await;
    park.exactly(b"on").await;
}

#[tokio::test]
async fn a_caller_that_waits_is_served_by_an_endpoint_that_dials_in_before_parks_are_let_go() {
    let mut bench = Bench::start(patient).await;
    let (_caller, _endpoint) = bench.session("host-7").await;
    let mut waiting = bench.call("host-7:ssh").await;
    bench.until("waiting", |counts| counts.waiting == 1).await;
    bench.to_relay.send(&ToRelay::Drain, &[]).await.unwrap();
    let mut park = bench.park("host-7").await;
    joins(&mut park, &mut waiting).await;
    drains(&mut bench).await;
}

#[tokio::test]
async fn a_caller_whose_endpoint_does_not_come_in_time_is_told_to_try_again() {
    let mut bench = Bench::start(|p| p.timeouts.hand_over = 0.1).await;
    let (_caller, _endpoint) = bench.session("host-7").await;
    let mut waiting = bench.call("host-7:ssh").await;
    bench.until("waiting", |counts| counts.waiting == 1).await;
    bench.tell(ToRelay::Drain).await;
    let answer = waiting.response().await;
    assert_eq!(answer.status, 503);
    assert!(answer.fields.get("Proxy-Status").unwrap().contains("try again at once"), "{answer:?}");
}

#[tokio::test]
async fn a_caller_that_says_nothing_holds_a_drain_up_for_a_moment_only() {
    let mut bench = Bench::start(|p| p.timeouts.hand_over = 0.1).await;
    let stream = bench.dial_module_port(&bench.module_server("inside")).await.unwrap();
    let mut silent = Parked { stream, bytes: Vec::new() };
    bench.tell(ToRelay::Drain).await;
    assert!(silent.end().await.1, "it is told");
}

#[tokio::test]
async fn a_relay_that_takes_anothers_place_wants_the_endpoints_that_are_called_and_lets_them_in_when_it_is_told()
 {
    let mut bench = Bench::taking_over(patient).await;
    let mut caller = bench.call("host-7:ssh").await;
    let FromRelay::Wanted { endpoints } = bench.hear().await else { panic!("it wants nobody") };
    assert_eq!(endpoints, ["host-7".parse().unwrap()]);
    bench.to_relay.send(&ToRelay::AcceptEndpoints, &[]).await.unwrap();
    let mut park = bench.park("host-7").await;
    joins(&mut park, &mut caller).await;
}

#[tokio::test]
async fn a_relay_that_nobody_tells_to_let_endpoints_in_does_so_by_itself() {
    let bench = Bench::taking_over(|p| p.timeouts.hand_over = 0.1).await;
    bench.park("host-7").await;
}

/// The others go at 250 in a second.
#[tokio::test]
async fn an_endpoint_that_is_called_elsewhere_is_let_go_before_its_turn() {
    const OTHERS: usize = 60;
    let mut bench = Bench::start(|_| {}).await;
    let mut others = Vec::new();
    for number in 0..OTHERS {
        others.push(bench.park(&format!("other-{number}")).await);
    }
    let mut called = bench.park("host-7").await;
    bench.until("parked", |counts| counts.parks == OTHERS as u64 + 1).await;
    bench.tell(ToRelay::Drain).await;
    let released = ToRelay::Release { endpoints: vec!["host-7".parse().unwrap()] };
    bench.to_relay.send(&released, &[]).await.unwrap();
    assert!(called.end().await.1, "it ends cleanly");
    for other in &mut others {
        assert!(other.end().await.1, "all end cleanly");
    }
}

#[tokio::test]
async fn parks_and_idle_callers_are_told_of_a_stop() {
    let bench = Bench::start(|_| {}).await;
    let mut park = bench.park("host-7").await;
    let stream = bench.dial_module_port(&bench.module_server("inside")).await.unwrap();
    let mut idle = Parked { stream, bytes: Vec::new() };
    bench.to_relay.send(&ToRelay::Stop, &[]).await.unwrap();
    assert!(park.end().await.1, "a park that is cut brings its endpoint back late");
    assert!(idle.end().await.1);
}
