//! Bytes of a session: each direction by itself, truncation, silence, and what a session may hold.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::bench::{Bench, TEST_TIMEOUT};

#[tokio::test]
async fn bytes_pass_both_ways_unchanged() {
    let bench = Bench::start(|_| {}).await;
    let (mut caller, mut endpoint) = bench.session("host-7").await;
    let blob: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    let (to_endpoint, to_caller) = (blob.clone(), blob.iter().rev().copied().collect::<Vec<_>>());
    let (mut caller_reads, mut caller_writes) = tokio::io::split(caller.stream);
    let (mut endpoint_reads, mut endpoint_writes) = tokio::io::split(endpoint.stream);
    let (mut at_endpoint, mut at_caller) = (Vec::new(), Vec::new());
    caller.bytes.clear();
    endpoint.bytes.clear();
    let (a, b, c, d) = timeout(TEST_TIMEOUT, async {
        tokio::join!(
            async {
                caller_writes.write_all(&to_endpoint).await?;
                caller_writes.shutdown().await
            },
            async {
                endpoint_writes.write_all(&to_caller).await?;
                endpoint_writes.shutdown().await
            },
            caller_reads.read_to_end(&mut at_caller),
            endpoint_reads.read_to_end(&mut at_endpoint),
        )
    })
    .await
    .unwrap();
    a.and(b).unwrap();
    c.and(d).unwrap();
    assert!(at_endpoint == to_endpoint && at_caller == to_caller);
    bench.logged("finished").await;
}

#[tokio::test]
async fn each_direction_ends_by_itself() {
    let bench = Bench::start(|_| {}).await;
    let (mut caller, mut endpoint) = bench.session("host-7").await;
    caller.send("question").await;
    caller.stream.shutdown().await.unwrap();
    assert_eq!(endpoint.end().await, (b"question".to_vec(), true));
    endpoint.send("answer").await;
    endpoint.stream.shutdown().await.unwrap();
    assert_eq!(caller.end().await, (b"answer".to_vec(), true));

    let (mut caller, mut endpoint) = bench.session("host-8").await;
    endpoint.send("question").await;
    endpoint.stream.shutdown().await.unwrap();
    assert_eq!(caller.end().await, (b"question".to_vec(), true));
    caller.send("answer").await;
    caller.stream.shutdown().await.unwrap();
    assert_eq!(endpoint.end().await, (b"answer".to_vec(), true));
}

#[tokio::test]
async fn a_cut_connection_never_looks_like_a_proper_end() {
    let bench = Bench::start(|_| {}).await;
    let (mut caller, mut endpoint) = bench.session("host-7").await;
    caller.send("half a file").await;
    let (tcp, _) = caller.stream.into_inner();
    drop(tcp);
    assert_eq!(endpoint.end().await, (b"half a file".to_vec(), false));
    bench.logged("caller_cut").await;
    bench.logged("closed without close_notify").await;
}

#[tokio::test]
async fn what_came_before_bytes_that_are_no_tls_is_delivered_and_the_session_is_cut() {
    let bench = Bench::start(|_| {}).await;
    let (mut caller, mut endpoint) = bench.session("host-7").await;
    let half = vec![0x5a; 40_000];
    caller.stream.write_all(&half).await.unwrap();
    caller.stream.flush().await.unwrap();
    caller.stream.get_mut().0.write_all(&[0x17, 3, 3, 0, 64]).await.unwrap();
    caller.stream.get_mut().0.write_all(&[0x5a; 64]).await.unwrap();
    let (came, clean) = endpoint.end().await;
    assert!(came == half && !clean, "{} bytes, clean: {clean}", came.len());
    bench.logged("what came is no TLS of this connection").await;
}

#[tokio::test]
async fn what_comes_behind_a_proper_end_is_ignored() {
    let bench = Bench::start(|_| {}).await;
    let (mut caller, mut endpoint) = bench.session("host-7").await;
    caller.send("question").await;
    caller.stream.get_mut().1.send_close_notify();
    caller.stream.flush().await.unwrap();
    caller.stream.get_mut().0.write_all(&[0x5a; 16_000]).await.unwrap();
    assert_eq!(endpoint.end().await, (b"question".to_vec(), true));
    endpoint.send("answer").await;
    endpoint.stream.shutdown().await.unwrap();
    assert_eq!(caller.end().await, (b"answer".to_vec(), true));
}

/// R-33
#[tokio::test]
async fn a_session_without_payload_ends_and_one_with_payload_does_not() {
    let bench = Bench::start(|p| p.timeouts.session_idle = 0.4).await;
    let (mut busy, mut echo) = bench.session("host-7").await;
    let (mut idle, _other) = bench.session("host-8").await;
    for _ in 0..8 {
        busy.send("x").await;
        echo.exactly(b"x").await;
        if timeout(Duration::from_millis(100), idle.more()).await.is_ok_and(|read| read.is_err()) {
            break;
        }
    }
    bench.logged("idle").await;
    busy.send("still here").await;
    echo.exactly(b"still here").await;
}

/// A session holds no more than the documented buffers for a reader that does not read.
#[tokio::test]
async fn a_stalled_reader_makes_the_relay_hold_one_read() {
    let mut bench = Bench::start(|_| {}).await;
    let (mut caller, endpoint) = bench.session("host-7").await;
    let chunk = vec![7; 64 * 1024];
    while timeout(Duration::from_millis(500), caller.stream.write_all(&chunk)).await.is_ok() {}
    let counts = bench.counts().await;
    // And the record that the read before it left incomplete.
    assert!((1..=32_768 + 16_384).contains(&counts.buffered_bytes), "{counts:?}");
    drop((caller, endpoint));
    bench.until("released", |counts| counts.buffered_bytes == 0).await;
}

/// R-53: an auditor's filters rely on the facts and their order.
#[tokio::test]
async fn a_session_begins_and_ends_with_one_audit_line_each_that_say_who_and_what() {
    let bench = Bench::start(|_| {}).await;
    let (mut caller, mut endpoint) = bench.session("host-7").await;
    caller.send("four").await;
    endpoint.exactly(b"four").await;
    caller.stream.shutdown().await.unwrap();
    endpoint.stream.shutdown().await.unwrap();
    caller.end().await;
    bench.logged("session ended").await;
    let facts = |words: &str| {
        let log = bench.log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains(words)).collect();
        assert_eq!(lines.len(), 1, "{log}");
        let (_, facts) = lines[0].split_once(words).unwrap();
        facts
            .split_whitespace()
            .map(|fact| fact.split_once('=').unwrap().0)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let who = ["session", "target", "caller"];
    let begins = facts("audit: session begins");
    assert_eq!(begins[..3], who);
    assert_eq!(begins[3..6], ["caller_address", "endpoint_address", "end_to_end"]);
    let ended = facts("audit: session ended");
    assert_eq!(ended[..3], who);
    assert_eq!(ended[3..7], ["reason", "seconds", "from_caller", "from_endpoint"]);
    assert!(bench.log().contains(r#"reason="finished""#) && bench.log().contains("from_caller=4"));
}
