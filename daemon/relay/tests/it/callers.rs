//! 17487: CONNECT and its refusals, the list of endpoints and the stream of its changes.

use tokio::io::AsyncWriteExt;
use zone_protocol::proxy_status::ProxyStatus;

use crate::bench::{ACCEPT, Bench, Parked, connect_request};

async fn refused(caller: &mut Parked, status: u16, error: &str) {
    let answer = caller.response().await;
    assert_eq!(answer.status, status);
    assert_eq!(answer.fields.get("Connection"), Some("close"));
    let field = ProxyStatus::from_field(answer.fields.get("Proxy-Status").unwrap()).unwrap();
    assert_eq!(field.error, error, "{field:?}");
    assert!(field.details.is_some_and(|details| !details.is_empty()));
    caller.end().await;
}

#[tokio::test]
async fn a_connect_by_name_and_by_number_reaches_the_endpoint_as_it_was_written() {
    let bench = Bench::start(|_| {}).await;
    for target in ["host-7:ssh", "host-7:22"] {
        let mut park = bench.park("host-7").await;
        let mut caller = bench.call(target).await;
        let head = park.request().await;
        assert_eq!((head.method.as_str(), head.target.as_str()), ("CONNECT", target));
        assert_eq!(head.fields.get("Forwarded"), Some("for=_inside"));
        let session = head.fields.get("Zone-Session").unwrap().to_owned();
        park.send(ACCEPT).await;
        let answer = caller.response().await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.fields.get("Zone-Session"), Some(session.as_str()));
        assert_eq!(answer.fields.get("Zone-End-To-End"), Some("off"));
        bench.logged(&session).await;
    }
}

#[tokio::test]
async fn an_endpoint_that_nobody_knows_is_refused_at_once() {
    let bench = Bench::start(|_| {}).await;
    let mut caller = bench.call("nobody:ssh").await;
    refused(&mut caller, 404, "destination_not_found").await;
}

#[tokio::test]
async fn an_endpoint_without_a_free_park_is_waited_for() {
    let bench = Bench::start(|_| {}).await;
    let (_one, _other) = bench.session("host-7").await;
    let mut caller = bench.call("host-7:ssh").await;
    let mut park = bench.park("host-7").await;
    park.request().await;
    park.send(ACCEPT).await;
    assert_eq!(caller.response().await.status, 200);
}

#[tokio::test]
async fn waiting_for_a_park_ends_at_the_deadline() {
    let bench = Bench::start(|p| p.timeouts.connect = 0.3).await;
    let (_one, _other) = bench.session("host-7").await;
    let mut caller = bench.call("host-7:ssh").await;
    refused(&mut caller, 503, "destination_unavailable").await;
}

#[tokio::test]
async fn an_endpoints_refusal_is_passed_on_in_its_own_words() {
    let bench = Bench::start(|_| {}).await;
    let mut park = bench.park("host-7").await;
    let mut caller = bench.call("host-7:telnet").await;
    park.request().await;
    park.send("HTTP/1.1 404 No Such Service\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    let answer = caller.response().await;
    let field = ProxyStatus::from_field(answer.fields.get("Proxy-Status").unwrap()).unwrap();
    assert_eq!((answer.status, field.received_status), (502, Some(404)));
    assert!(field.details.unwrap().contains("No Such Service"));
    park.end().await;
}

#[tokio::test]
async fn a_caller_that_leaves_while_waiting_gives_its_place_back() {
    let mut bench = Bench::start(|_| {}).await;
    let (_one, _other) = bench.session("host-7").await;
    let caller = bench.call("host-7:ssh").await;
    bench.until("waiting", |counts| counts.waiting == 1).await;
    drop(caller);
    bench.until("nobody waits", |counts| counts.waiting == 0).await;
    let _park = bench.park("host-7").await;
    bench.until("parked", |counts| counts.parks == 1).await;
}

/// RFC 9931: what was sent early behind a refused CONNECT is never read as the next request.
#[tokio::test]
async fn a_request_smuggled_behind_a_refused_connect_is_not_served() {
    let bench = Bench::start(|_| {}).await;
    let mut caller = bench.call("nobody:ssh").await;
    caller.send("GET /v1/endpoints HTTP/1.1\r\nHost: p1\r\n\r\n").await;
    assert_eq!(caller.response().await.status, 404);
    let (rest, _) = caller.end().await;
    assert!(!String::from_utf8_lossy(&rest).contains("HTTP/1.1"), "a second answer came");
}

#[tokio::test]
async fn payload_sent_early_arrives_after_the_endpoint_accepted_and_not_before() {
    let bench = Bench::start(|_| {}).await;
    let mut park = bench.park("host-7").await;
    let stream = bench.dial_module_port(&bench.module_server("inside")).await.unwrap();
    let mut caller = Parked { stream, bytes: Vec::new() };
    caller.send(&(connect_request("host-7:ssh") + "early")).await;
    park.request().await;
    caller.send(" bird").await;
    assert!(park.bytes.is_empty());
    park.send(&format!("{ACCEPT}welcome")).await;
    assert_eq!(caller.response().await.status, 200);
    caller.exactly(b"welcome").await;
    park.exactly(b"early bird").await;
}

#[tokio::test]
async fn a_malformed_connect_is_refused_and_the_connection_closed() {
    let bench = Bench::start(|_| {}).await;
    for (request, status) in [
        ("CONNECT host-7:ssh HTTP/1.1\r\nHost: other:ssh\r\n\r\n".to_owned(), 400),
        ("CONNECT host-7:ssh HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("CONNECT host-7:ssh HTTP/1.1\r\nHost: host-7:ssh\r\nContent-Length: 3\r\n\r\nabc".to_owned(), 400),
        (
            "CONNECT host-7:ssh HTTP/1.1\r\nHost: host-7:ssh\r\nTransfer-Encoding: chunked\r\n\r\n"
                .to_owned(),
            400,
        ),
        (connect_request("Host_7:ssh"), 400),
        (connect_request("host-7:99999"), 400),
        ("GET / HTTP/1.1\r\nHost: p1\r\n\r\n".to_owned(), 404),
        ("PUT /v1/endpoints HTTP/1.1\r\nHost: p1\r\n\r\n".to_owned(), 405),
        ("GET / HTTP/1.0\r\n\r\n".to_owned(), 400),
        ("GET /v1/endpoints HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET /v1/endpoints HTTP/1.1\r\nHost: p1\r\nHost: p1\r\n\r\n".to_owned(), 400),
        ("GET /v1/endpoints HTTP/1.1\nHost: p1\n\n".to_owned(), 400),
        (format!("CONNECT host-7:ssh HTTP/1.1\r\nX: {}", "x".repeat(9_000)), 431),
    ] {
        let stream = bench.dial_module_port(&bench.module_server("inside")).await.unwrap();
        let mut caller = Parked { stream, bytes: Vec::new() };
        caller.send(&request).await;
        let answer = caller.response().await;
        assert_eq!(answer.status, status, "{request}");
        assert!(answer.fields.get("Proxy-Status").is_some());
        caller.end().await;
    }
}

#[tokio::test]
async fn one_connection_lists_again_and_again_and_then_becomes_a_session() {
    let mut bench = Bench::start(|_| {}).await;
    let mut park = bench.park("host-7").await;
    bench.until("parked", |counts| counts.parks == 1).await;
    let stream = bench.dial_module_port(&bench.module_server("inside")).await.unwrap();
    let mut caller = Parked { stream, bytes: Vec::new() };
    for _ in 0..3 {
        caller.send("GET /v1/endpoints HTTP/1.1\r\nHost: p1\r\n\r\n").await;
        let answer = caller.response().await;
        let length: usize = answer.fields.get("Content-Length").unwrap().parse().unwrap();
        while caller.bytes.len() < length {
            caller.more().await.unwrap();
        }
        let body: Vec<u8> = caller.bytes.drain(..length).collect();
        let list: zone_protocol::provisioning::Endpoints = serde_json::from_slice(&body).unwrap();
        assert_eq!((list.endpoints[0].id.as_str(), list.endpoints[0].idle), ("host-7", 1));
        assert_eq!(list.endpoints[0].address, "127.0.0.1");
    }
    caller.send(&connect_request("host-7:ssh")).await;
    park.request().await;
    park.send(ACCEPT).await;
    assert_eq!(caller.response().await.status, 200);
}

#[tokio::test]
async fn presence_is_told_as_it_changes() {
    let bench = Bench::start(|_| {}).await;
    let stream = bench.dial_module_port(&bench.module_server("inside")).await.unwrap();
    let mut watcher = Parked { stream, bytes: Vec::new() };
    watcher.send("GET /v1/endpoints/events HTTP/1.1\r\nHost: p1\r\n\r\n").await;
    assert_eq!(watcher.response().await.fields.get("Content-Type"), Some("text/event-stream"));
    until_text(&mut watcher, "event: snapshot").await;
    let park = bench.park("host-7").await;
    until_text(&mut watcher, "event: joined").await;
    drop(park);
    until_text(&mut watcher, "event: left").await;
    assert!(String::from_utf8_lossy(&watcher.bytes).contains(r#""id":"host-7""#));
}

async fn until_text(client: &mut Parked, text: &str) {
    while !String::from_utf8_lossy(&client.bytes).contains(text) {
        assert_ne!(client.more().await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_connection_that_closes_in_the_middle_of_a_head_is_logged_and_forgotten() {
    let mut bench = Bench::start(|_| {}).await;
    let stream = bench.dial_module_port(&bench.module_server("inside")).await.unwrap();
    let mut caller = Parked { stream, bytes: Vec::new() };
    caller.send("CONNECT host-7:ssh HT").await;
    caller.stream.shutdown().await.unwrap();
    caller.end().await;
    bench.until("gone", |counts| counts.module_server_connections == 0).await;
    bench.logged("cut").await;
}
