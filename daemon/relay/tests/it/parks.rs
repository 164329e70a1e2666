//! 17486: parking, pings, and everything an endpoint may do wrong.

use tokio::io::AsyncWriteExt;

use crate::bench::{ACCEPT, Bench, Parked, park_request};

/// R-11, R-32
#[tokio::test]
async fn a_silent_park_is_pinged_and_stays_when_it_answers() {
    let mut bench = Bench::start(|p| p.timeouts.ping_after = 0.2).await;
    let mut park = bench.park("host-7").await;
    for _ in 0..3 {
        assert_eq!(park.request().await.method, "OPTIONS");
        park.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    }
    bench.until("answered", |counts| counts.parks == 1).await;
}

/// R-32
#[tokio::test]
async fn a_park_that_does_not_answer_its_ping_is_dead() {
    let mut bench = Bench::start(|p| (p.timeouts.ping_after, p.timeouts.pong) = (0.1, 0.2)).await;
    let mut park = bench.park("host-7").await;
    assert_eq!(park.request().await.method, "OPTIONS");
    assert!(!park.end().await.1, "a dead park must not read as a clean close");
    bench.until("gone", |counts| counts.parks == 0).await;
}

#[tokio::test]
async fn bytes_that_nobody_asked_for_end_a_park() {
    let mut bench = Bench::start(|_| {}).await;
    let mut park = bench.park("host-7").await;
    park.send("hello").await;
    park.end().await;
    bench.until("gone", |counts| counts.parks == 0).await;
    bench.logged("bytes that nobody asked for").await;
    assert!(bench.metrics().await.contains(r#"refused_total{port="endpoint",reason="park_protocol"} 1"#));
}

#[tokio::test]
async fn a_park_of_another_version_is_told_which_one_is_spoken() {
    let bench = Bench::start(|_| {}).await;
    let stream = bench.dial_endpoint_port(&bench.endpoint("host-7")).await.unwrap();
    let mut client = Parked { stream, bytes: Vec::new() };
    client.send(&park_request(1).replace("ptth/1", "ptth/2")).await;
    let answer = client.response().await;
    assert_eq!((answer.status, answer.fields.get("Upgrade")), (426, Some("ptth/1")));
    client.end().await;
}

#[tokio::test]
async fn anything_but_a_park_is_refused_with_words() {
    let bench = Bench::start(|_| {}).await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: p1\r\n\r\n".to_owned(), 404),
        ("POST /v1/park HTTP/1.1\r\nHost: p1\r\n\r\n".to_owned(), 405),
        (park_request(1).replace("Zone-Instance: 0", "Zone-Instance: x"), 400),
        (park_request(1).replace("\r\n\r\n", "\r\nContent-Length: 5\r\n\r\n"), 400),
        (park_request(1) + "early", 400),
        (park_request(1).replace("Host: ", "X-Host: "), 400),
        (park_request(1).replace("\r\n", "\n"), 400),
        ("\u{1}garbage\r\n\r\n".to_owned(), 400),
        (format!("GET /v1/park HTTP/1.1\r\nX: {}", "x".repeat(9_000)), 431),
    ] {
        let stream = bench.dial_endpoint_port(&bench.endpoint("host-7")).await.unwrap();
        let mut client = Parked { stream, bytes: Vec::new() };
        client.send(&request).await;
        let answer = client.response().await;
        assert_eq!(answer.status, status, "{request}");
        assert!(answer.fields.get("Proxy-Status").is_some());
        client.end().await;
    }
}

#[tokio::test]
async fn beyond_the_limit_the_oldest_park_goes_and_the_newcomer_stays() {
    let mut bench = Bench::start(|p| p.limits.parks_per_endpoint = 2).await;
    let mut parks = Vec::new();
    for n in 1..=3 {
        parks.push(bench.park("host-7").await);
        bench.until("parked", |counts| counts.parks == n.min(2)).await;
    }
    parks[0].end().await;
    let mut caller = bench.call("host-7:ssh").await;
    parks[2].request().await;
    parks[2].send(ACCEPT).await;
    assert_eq!(caller.response().await.status, 200);
}

#[tokio::test]
async fn a_silent_park_costs_its_caller_nothing_but_time() {
    let mut bench = Bench::start(|p| p.timeouts.first_byte = 0.3).await;
    let mut good = bench.park("host-7").await;
    bench.until("parked", |counts| counts.parks == 1).await;
    let mut silent = bench.park("host-7").await;
    bench.until("parked", |counts| counts.parks == 2).await;
    let mut caller = bench.call("host-7:ssh").await;
    assert_eq!(silent.request().await.method, "CONNECT");
    assert_eq!(good.request().await.method, "CONNECT");
    good.send(ACCEPT).await;
    assert_eq!(caller.response().await.status, 200);
    assert!(!silent.end().await.1);
}

#[tokio::test]
async fn a_park_that_dies_before_its_answer_is_replaced_and_after_it_is_not() {
    let mut bench = Bench::start(|_| {}).await;
    let mut first = bench.park("host-7").await;
    bench.until("parked", |counts| counts.parks == 1).await;
    let mut second = bench.park("host-7").await;
    bench.until("parked", |counts| counts.parks == 2).await;
    let mut caller = bench.call("host-7:ssh").await;
    second.request().await;
    drop(second);
    first.request().await;
    first.stream.write_all(b"HTTP/1.1 2").await.unwrap();
    first.stream.flush().await.unwrap();
    bench.until("answering", |counts| counts.waiting == 0).await;
    drop(first);
    assert_eq!(caller.response().await.status, 504);
}

#[tokio::test]
async fn a_second_interim_answer_ends_the_park() {
    let bench = Bench::start(|_| {}).await;
    let mut park = bench.park("host-7").await;
    let mut caller = bench.call("host-7:ssh").await;
    park.request().await;
    park.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    park.end().await;
    assert_eq!(caller.response().await.status, 504);
}

#[tokio::test]
async fn a_cloned_image_is_flagged_and_the_newest_program_is_used() {
    let mut bench = Bench::start(|_| {}).await;
    let _older = bench.park_as("host-7", 1).await;
    bench.until("parked", |counts| counts.parks == 1).await;
    let mut newer = bench.park_as("host-7", 2).await;
    bench.until("parked", |counts| counts.parks == 2).await;
    let _caller = bench.call("host-7:ssh").await;
    assert_eq!(newer.request().await.method, "CONNECT");
    bench.logged("cloned image").await;
}
