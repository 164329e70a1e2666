//! What anybody can send to 17488, without a token or a certificate.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use rustix::process::{Resource, getrlimit};
use zone_tests::control::Client;
use zone_tests::host::Host;
use zone_tests::process::succeed;
use zone_tests::zone::Zone;
use zone_tests::{TEST_TIMEOUT, as_daemon};

use super::Snapshot;

/// The first bytes of a TLS record that says it is longer.
const HALF_A_RECORD: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

#[test]
fn bytes_that_are_no_tls_end_their_connection_and_nothing_else() {
    let host = Host::start("");
    let before = Snapshot::of(&host);
    let texts: [&[u8]; 3] =
        [&[0xff; 300], b"GET / HTTP/1.1\r\nHost: proxy\r\n\r\n", b"\x16\x03\x01\xff\xff garbage"];
    for text in texts {
        let mut tcp = connect(&host);
        let from = tcp.local_addr().expect("connected").to_string();
        tcp.write_all(text).expect("17488 listens");
        let mut answer = Vec::new();
        // A reset is as good an end as any.
        let _ = tcp.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP"), "it does not speak plain HTTP");
        host.logs(&[&from, "step=\"handshake\"", "a connection to 17488 failed"]);
    }
    assert_eq!(Snapshot::of(&host), before);
    let zone = Zone::with(&host);
    let failures = host.metric(&zone, "zone_proxy_control_handshake_failures_total{reason=\"tls\"}");
    assert_eq!(failures, 3);
}

#[test]
fn half_a_handshake_is_cut_at_its_deadline_and_others_are_served_meanwhile() {
    let host = Host::start("[timeouts]\nhandshake = 2.0");
    let mut slow = connect(&host);
    let from = slow.local_addr().expect("connected").to_string();
    let began = Instant::now();
    slow.write_all(HALF_A_RECORD).expect("17488 listens");

    let zone = Zone::with(&host);
    let mut answer = Vec::new();
    let _ = slow.read_to_end(&mut answer);
    assert!(began.elapsed().as_secs_f64() >= 2.0, "it had its time");
    host.logs(&[&from, "step=\"handshake\"", "not done in 2 s"]);
    let late = host.metric(&zone, "zone_proxy_control_handshake_failures_total{reason=\"timeout\"}");
    assert_eq!(late, 1);
}

#[test]
fn a_request_head_that_never_ends_is_cut_at_its_deadline() {
    let host = Host::start("[timeouts]\nhead = 1.0");
    let mut client = Client::by_token(&host, &host.token()).expect("TLS");
    client.token = None;
    client.send(b"GET /v1/status HTTP/1.1\r\nHost: pro");
    let began = Instant::now();
    assert!(client.is_closed());
    assert!(began.elapsed() < TEST_TIMEOUT);
    assert_eq!(host.status()["state"], "unprovisioned");
}

/// Design: before a valid proof the proxy says nothing about itself.
#[test]
fn a_stranger_is_told_nothing_about_the_host_whatever_he_asks() {
    let host = Host::start("");
    let before = Snapshot::of(&host);
    let token = host.token();
    let hostname = before.status["host"].as_str().expect("a host name").to_owned();
    let requests: [(&str, &str, &[u8], u16); 9] = [
        ("GET", "/v1/status", b"", 401),
        ("GET", "/metrics", b"", 401),
        ("GET", "/v1/openapi.json", b"", 401),
        ("GET", "/v1/provisioning", b"", 401),
        ("DELETE", "/v1/provisioning", b"", 401),
        ("PUT", "/v1/trust", b"{}", 401),
        ("POST", "/v1/provisioning", br#"{"zone":"z","module_server":"m"}"#, 401),
        ("PUT", "/v1/provisioning/x", b"{}", 401),
        ("POST", "/v1/provisioning", b"{not json", 401),
    ];
    for (method, path, body, status) in requests {
        let mut client = Client::by_token(&host, &token).expect("TLS");
        client.token = None;
        let answer = client.ask(method, path, &[], body);
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        let words = format!("{}{}", answer.head, answer.body).to_lowercase();
        for fact in [hostname.as_str(), "debian", env!("CARGO_PKG_VERSION"), "server:", "unprovisioned"] {
            assert!(!words.contains(&fact.to_lowercase()), "{method} {path} tells {fact}: {words}");
        }
        assert!(!words.contains("zone-proof"), "nothing is proved to a stranger: {words}");
    }
    assert_eq!(Snapshot::of(&host), before);
}

#[test]
fn what_is_no_request_of_this_protocol_is_refused_by_name() {
    let host = Host::start("");
    let before = Snapshot::of(&host);
    let token = host.token();
    let client = || Client::by_token(&host, &token).expect("TLS");

    client().ask("GET", "/v1/nothing", &[], b"").problem(404, "not-found");
    let answer = client().ask("PATCH", "/v1/trust", &[], b"");
    answer.problem(405, "method-not-allowed");
    assert!(answer.head.to_lowercase().contains("allow: get, head, put"), "{answer:?}");

    let mut connect = client();
    connect.send(b"CONNECT e1:22 HTTP/1.1\r\nHost: e1:22\r\n\r\nSSH-2.0-early\r\n");
    connect.receive().problem(405, "method-not-allowed");
    assert!(connect.is_closed(), "what was sent early is never read as the next request (RFC 9931)");

    let mut long = client();
    let field = "x".repeat(9_000);
    long.send(format!("GET /v1/status HTTP/1.1\r\nHost: proxy\r\nX: {field}\r\n\r\n").as_bytes());
    assert_eq!(long.receive().status, 431);
    assert!(long.is_closed());

    let mut many = client();
    let fields = "X: y\r\n".repeat(200);
    many.send(format!("GET /v1/status HTTP/1.1\r\nHost: proxy\r\n{fields}\r\n").as_bytes());
    assert_eq!(many.receive().status, 431);

    for (head, why) in [
        ("GET /v1/status HTTP/1.1\r\n\r\n", "exactly one Host"),
        ("GET /v1/status HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "exactly one Host"),
        ("GET /v1/status HTTP/1.0\r\nHost: a\r\n\r\n", "only HTTP/1.1"),
        ("GET /v1/status HTTP/1.1\nHost: a\n\n", "CR LF"),
        ("GET /v1/status HTTP/1.1\r\nHost: a\n\r\n", "CR LF"),
        ("GET /v1/status HTTP/1.1\r\nHost: a\r\n\n", "CR LF"),
        ("GET /v1/status HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", "not an HTTP/1.1 head"),
        ("GET /v1/status HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", "not an HTTP/1.1 head"),
        (
            "POST /v1/provisioning HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "once at most",
        ),
        ("POST /v1/provisioning HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n", "whole number"),
        (
            "POST /v1/provisioning HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "Transfer-Encoding",
        ),
    ] {
        let mut wrong = client();
        wrong.send(head.as_bytes());
        let problem = wrong.receive().problem(400, "malformed");
        assert!(problem.to_string().contains(why), "{problem}");
        assert!(wrong.is_closed());
    }

    let mut garbage = client();
    garbage.send(b"\x00\x01\x02\x03 what\r\n\r\n");
    assert_eq!(garbage.receive().status, 400);
    assert!(garbage.is_closed());
    assert_eq!(Snapshot::of(&host), before);
}

#[test]
fn a_body_beyond_the_limit_is_refused_with_the_limits_name() {
    let host = Host::start("[limits]\ncontrol_body_bytes = 20000");
    let before = Snapshot::of(&host);
    let mut client = Client::by_token(&host, &host.token()).expect("TLS");
    let problem =
        client.ask("POST", "/v1/provisioning", &[], &b" ".repeat(40_000)).problem(413, "body-too-large");
    assert!(problem.to_string().contains("4096"), "before anybody is known, less is read: {problem}");
    assert!(client.is_closed(), "what was not read is never taken for a request");
    assert_eq!(Snapshot::of(&host), before);
    let zone = Zone::with(&host);
    let mut member = Client::member(&host, &zone);
    let problem = member.ask("PUT", "/v1/trust", &[], &b" ".repeat(20_001)).problem(413, "body-too-large");
    assert!(problem.to_string().contains("limits.control_body_bytes"), "{problem}");
    assert!(problem.to_string().contains("20000"), "{problem}");
    assert!(member.is_closed(), "what was not read is never taken for a request");
    let refused = host.metric(&zone, "zone_proxy_control_requests_total{status=\"413\"}");
    assert_eq!(refused, 2);
}

#[test]
fn silent_connections_of_one_source_keep_nobody_out_not_even_their_neighbours() {
    let host =
        Host::start("[limits]\ncontrol_connections_per_source = 4\ncontrol_unauthenticated_connections = 8");
    let _held: Vec<_> = (0..12).map(|_| connect(&host)).collect();
    host.control.says("limits.control_unauthenticated_connections");

    // A stranger, another address of the same machine, and whoever has the token.
    let elsewhere = zone_tests::address().to_string();
    for from in ["127.0.0.1", &elsewhere] {
        let mut curl = std::process::Command::new("curl");
        curl.args(["--silent", "--insecure", "--tls-max", "1.2", "--interface", from]);
        let url = format!("https://{}/v1/status", host.port(17488));
        assert!(succeed(curl.arg(url), b"").contains("certificate-needed"));
    }
    let zone = Zone::init();
    zone.provision(&host);
    assert_eq!(host.metric(&zone, "zone_proxy_control_refused_total{reason=\"limit_per_source\"}"), 0);
}

/// Without descriptors 17488 waits and says so; with descriptors it goes on.
#[test]
fn a_lack_of_descriptors_is_survived() {
    let host = Host::start("[limits]\ncontrol_connections_per_source = 100");
    let pid = host.control.pid();
    let held = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors").count() as u64;
    let prlimit = |soft: u64| {
        let limit = format!("--nofile={soft}:");
        let mut prlimit = std::process::Command::new("prlimit");
        succeed(as_daemon(prlimit.args(["--pid", &pid.to_string(), &limit])), b"");
    };
    let soft = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    prlimit(held + 8);
    let crowd: Vec<_> = (0..64).map(|_| connect(&host)).collect();
    host.control.says("17488 can't accept for a moment");
    let began = process_time(pid.as_raw());
    drop(crowd);
    prlimit(soft);
    Zone::with(&host);
    assert!(process_time(pid.as_raw()) - began < 3.0, "it did not spin");
    assert_eq!(host.status()["state"], "provisioned");
}

/// CPU seconds that a process has used.
fn process_time(pid: i32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("its times");
    let nanoseconds: f64 = text.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number");
    nanoseconds / 1e9
}

fn connect(host: &Host) -> TcpStream {
    let tcp = TcpStream::connect(host.port(17488)).expect("17488 listens");
    tcp.set_read_timeout(Some(TEST_TIMEOUT)).expect("a timeout");
    tcp
}
