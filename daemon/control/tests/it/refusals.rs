//! What strangers send to 17488, and what it costs them.

use std::time::Duration;

use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zone_protocol::tls::config;
use zone_protocol::tls::policy::Versions;
use zone_protocol::tls::verifier::Pinned;

use crate::authority::Zone;
use crate::client::{by_token, dial, holder};
use crate::harness::{EVENT_TIMEOUT, Proxy, run};

/// Sends bytes to 17488 and waits for the end of the connection.
async fn throw(proxy: &Proxy, bytes: &[u8]) {
    let mut stream = TcpStream::connect((proxy.address, 17488)).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
}

#[test]
fn garbage_plain_http_and_half_a_record_end_the_connection_and_are_counted() {
    run(async {
        let proxy = Proxy::start_with(|config| config.timeouts.handshake = 0.3).await;
        let before = proxy.daemon.state();
        throw(&proxy, b"GET / HTTP/1.1\r\nHost: proxy\r\n\r\n").await;
        throw(&proxy, &[0xff; 300]).await;
        assert!(proxy.counted("zone_proxy_control_handshake_failures_total{reason=\"tls\"} 2"));
        throw(&proxy, &[22, 3, 1, 2, 0, 1]).await;
        assert!(proxy.counted("zone_proxy_control_handshake_failures_total{reason=\"timeout\"} 1"));
        assert_eq!(proxy.daemon.state(), before);
        proxy.provision(&Zone::new("plant")).await;
    });
}

#[test]
fn requests_that_are_none_of_this_port_are_refused_by_name() {
    run(async {
        let proxy = Proxy::start().await;
        let client = || async { by_token(proxy.address, &proxy.token()).await.unwrap() };
        for (method, path, status, slug) in [
            (Method::GET, "/", 404, "not-found"),
            (Method::GET, "/v1/status", 401, "certificate-needed"),
            (Method::GET, "/v1/openapi.json", 401, "certificate-needed"),
            (Method::DELETE, "/v1/provisioning", 401, "certificate-needed"),
            (Method::PATCH, "/v1/provisioning", 405, "method-not-allowed"),
            (Method::CONNECT, "host:22", 405, "method-not-allowed"),
            (Method::POST, "/v1/provisioning", 400, "malformed"),
        ] {
            let body = if method == Method::POST { b"{\"zone\":1}".to_vec() } else { Vec::new() };
            let answer = client().await.send(method, path, &[], body).await.unwrap();
            assert_eq!((answer.refusal().0, answer.refusal().1.as_str()), (status, slug));
        }
        assert!(proxy.counted("zone_proxy_control_requests_total{status=\"404\"} 1"));
    });
}

#[test]
fn an_oversized_body_and_head_are_refused() {
    run(async {
        let proxy = Proxy::start_with(|config| config.limits.control_body_bytes = 20_000).await;
        let zone = Zone::new("plant");
        let mut client = by_token(proxy.address, &proxy.token()).await.unwrap();
        let answer = client.send(Method::POST, "/v1/provisioning", &[], vec![b' '; 4_097]).await.unwrap();
        assert_eq!(answer.refusal().1, "body-too-large");
        client.is_closed().await;
        let (_, party) = proxy.provision(&zone).await;
        for (length, status) in [(20_000, 400), (20_001, 413)] {
            let mut member = proxy.member(&zone, &party).await;
            let fields = [("if-match", "\"1\"")];
            let answer = member.send(Method::PUT, "/v1/trust", &fields, vec![b' '; length]).await.unwrap();
            assert_eq!(answer.status, status);
        }
        let mut member = proxy.member(&zone, &party).await;
        let long = "x".repeat(20_000);
        let answer = member.send(Method::GET, "/v1/status", &[("x-long", &long)], Vec::new()).await.unwrap();
        assert_eq!(answer.status, 431);
        member.is_closed().await;
    });
}

/// A connection as a stranger, with this head sent and no byte of the body that it announces; all that the proxy says to it.
async fn head_alone(proxy: &Proxy, head: &str) -> String {
    let config = config::client(Pinned::new(*proxy.token().pin()), None, Versions::Tls12).unwrap();
    let mut stream = dial(proxy.address, config).await.unwrap();
    stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    let reading = tokio::time::timeout(EVENT_TIMEOUT, stream.read_to_string(&mut answer));
    reading.await.expect("the proxy closes").unwrap();
    answer
}

#[test]
fn whoever_can_be_nobody_by_their_head_is_refused_before_their_body_is_waited_for() {
    run(async {
        let proxy = Proxy::start().await;
        let looks_like_one = "A".repeat(43);
        let too_long = format!("Zone-Proof: {looks_like_one}\r\nContent-Length: 4097\r\n");
        for (request, fields, expected) in [
            ("POST /v1/provisioning", "Content-Length: 1048576\r\n", "401 "),
            ("POST /v1/provisioning", "Content-Length: 5\r\nZone-Proof: x\r\n", "401 "),
            ("POST /v1/provisioning", &too_long, "413 "),
            ("PUT /v1/provisioning/0a4f", &too_long, "404 "),
            ("PUT /v1/trust", "Content-Length: 1048576\r\nExpect: 100-continue\r\n", "401 "),
            ("PUT /v1/nothing", "Content-Length: 1048576\r\n", "404 "),
            ("POST /v1/provisioning", "Transfer-Encoding: chunked\r\n", "400 "),
            ("POST /v1/provisioning", "Content-Length: 5\r\nContent-Length: 5\r\n", "400 "),
        ] {
            let answer = head_alone(&proxy, &format!("{request} HTTP/1.1\r\nHost: proxy\r\n{fields}")).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{request} {fields}: {answer}");
            assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
        }
    });
}

#[test]
fn an_answer_arrives_also_where_its_client_has_sent_a_body_that_nobody_reads() {
    run(async {
        let proxy = Proxy::start().await;
        for _ in 0..10 {
            let config = config::client(Pinned::new(*proxy.token().pin()), None, Versions::Tls12).unwrap();
            let mut stream = dial(proxy.address, config).await.unwrap();
            let head = b"POST /v1/provisioning HTTP/1.1\r\nHost: proxy\r\nContent-Length: 1000000\r\n\r\n";
            stream.write_all(head).await.unwrap();
            stream.write_all(&vec![b'x'; 1_000_000]).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
        }
    });
}

#[test]
fn a_source_with_too_many_connections_is_refused_until_one_ends() {
    run(async {
        let proxy = Proxy::start_with(|config| config.limits.control_connections_per_source = 2).await;
        let token = proxy.token();
        let first = holder(proxy.address, &token).await;
        let _second = holder(proxy.address, &token).await;
        throw(&proxy, b"").await;
        assert!(proxy.counted("zone_proxy_control_refused_total{reason=\"limit_per_source\"} 1"));
        drop(first);
        while by_token(proxy.address, &token).await.is_err() {}
        let _silent: Vec<_> = [TcpStream::connect((proxy.address, 17488)).await.unwrap()].into();
        assert!(by_token(proxy.address, &token).await.is_ok(), "a silent one takes no place of its source");
    });
}

#[test]
fn a_stranger_from_another_network_is_refused_before_tls() {
    run(async {
        let proxy =
            Proxy::start_with(|config| config.control.allowed_networks = vec!["10.0.0.0/8".parse().unwrap()])
                .await;
        throw(&proxy, b"").await;
        assert!(proxy.counted("zone_proxy_control_refused_total{reason=\"network\"} 1"));
    });
}

#[test]
fn a_connection_without_a_request_is_closed_after_the_head_deadline() {
    run(async {
        let proxy = Proxy::start_with(|config| config.timeouts.head = 0.3).await;
        let mut client = by_token(proxy.address, &proxy.token()).await.unwrap();
        let since = tokio::time::Instant::now();
        client.is_closed().await;
        assert!(since.elapsed() < Duration::from_secs(5));
    });
}

#[test]
fn a_body_that_never_ends_is_cut_off() {
    run(async {
        let proxy = Proxy::start_with(|config| config.timeouts.control_request = 0.3).await;
        let config = config::client(Pinned::new(*proxy.token().pin()), None, Versions::Tls12).unwrap();
        let mut stream = dial(proxy.address, config).await.unwrap();
        let proof = "A".repeat(43);
        let fields = format!("Host: proxy\r\nContent-Length: 500\r\nZone-Proof: {proof}\r\n");
        let head = format!("POST /v1/provisioning HTTP/1.1\r\n{fields}\r\n{{");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("/problems/timed-out"), "{answer}");
    });
}
