//! Who gets in: roles, revocation, tickets, networks, PROXY headers, limits.

use std::io::Write as _;
use std::net::TcpStream as StdStream;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zone_protocol::tls::tickets::TicketKeys;
use zone_protocol::trust::Denied;

use crate::bench::{Authority, Bench, Certified, Parked, Stream, as_relay, dial, park_request};

/// Whether the relay turned this client away: in the handshake, or right after it. In TLS 1.2 the client
/// finishes first, so the alert may come with its first read.
async fn turned_away(dialled: std::io::Result<Stream>) -> String {
    let mut stream = match dialled {
        Err(error) => return error.to_string(),
        Ok(stream) => stream,
    };
    let _ = stream.write_all(park_request(1).as_bytes()).await;
    let mut bytes = [0; 1];
    match stream.read(&mut bytes).await {
        Ok(0) => "closed".into(),
        Ok(_) => panic!("it was let in"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn every_wrong_certificate_is_refused_and_named_in_one_line() {
    let mut bench = Bench::start(|_| {}).await;
    let stranger = Authority::new("strangers");
    let endpoint = "spiffe://zone/endpoint/host-7";
    let module_server = "spiffe://zone/module-server/inside";
    let now = (-1, 24);
    let cases: Vec<(Certified, bool, &str, &str)> = vec![
        (
            bench.endpoints.leaf(endpoint, now),
            false,
            "AccessDenied",
            "this port is for the role module-server",
        ),
        (
            bench.module_servers.leaf(module_server, now),
            true,
            "AccessDenied",
            "this port is for the role endpoint",
        ),
        (
            bench.endpoints.leaf(module_server, now),
            false,
            "AccessDenied",
            "nobody may vouch for another role",
        ),
        (bench.module_servers.leaf(endpoint, now), true, "AccessDenied", "nobody may vouch for another role"),
        (bench.endpoints.leaf(endpoint, (-48, -24)), true, "CertificateExpired", "is valid from"),
        (bench.endpoints.leaf(endpoint, (24, 48)), true, "CertificateExpired", "is valid from"),
        (stranger.leaf(endpoint, now), true, "UnknownCA", "an authority that this zone does not know"),
        (
            bench.endpoints.leaf("spiffe://other/endpoint/host-7", now),
            true,
            "AccessDenied",
            "but this is zone zone",
        ),
    ];
    for (certified, endpoint_port, alert, line) in cases {
        let dialled = if endpoint_port {
            bench.dial_endpoint_port(&certified).await
        } else {
            bench.dial_module_port(&certified).await
        };
        let seen = turned_away(dialled).await;
        assert!(seen.contains(alert), "{seen} is not {alert} ({line})");
        bench.logged(line).await;
    }
    let metrics = bench.metrics().await;
    for reason in ["wrong_role", "wrong_authority", "not_now", "unknown_authority", "wrong_zone"] {
        assert!(metrics.contains(&format!(r#"reason="{reason}""#)), "{reason}");
    }
    assert_eq!(bench.counts().await.parks, 0);
}

/// R-52
#[tokio::test]
async fn revoking_an_endpoint_ends_its_parks_and_sessions_and_nobody_elses() {
    let mut bench = Bench::start(|_| {}).await;
    let (mut caller, mut revoked) = bench.session("host-7").await;
    let mut parked = bench.park("host-7").await;
    let (mut other_caller, mut other) = bench.session("host-8").await;
    bench.policy.trust.version += 1;
    bench.policy.trust.deny.push(Denied::Identity {
        identity: "spiffe://zone/endpoint/host-7".parse().unwrap(),
        not_before: time::OffsetDateTime::now_utc(),
    });
    bench.push_policy().await;
    assert!(!caller.end().await.1);
    assert!(!revoked.end().await.1);
    assert!(!parked.end().await.1);
    other_caller.send("fine").await;
    other.exactly(b"fine").await;
    let seen = turned_away(bench.dial_endpoint_port(&bench.endpoint("host-7")).await).await;
    assert!(seen.contains("CertificateRevoked"), "{seen}");
    bench.logged("spiffe://zone/endpoint/host-7 is revoked").await;
}

#[tokio::test]
async fn an_anchor_that_is_taken_out_takes_its_connections_along() {
    let mut bench = Bench::start(|_| {}).await;
    let (mut caller, mut endpoint) = bench.session("host-7").await;
    let next = Authority::new("endpoints");
    bench.policy.trust.anchors.endpoint.push(next.pem.clone());
    bench.push_policy().await;
    caller.send("both are trusted").await;
    endpoint.exactly(b"both are trusted").await;
    bench.policy.trust.anchors.endpoint = vec![next.pem.clone()];
    bench.push_policy().await;
    assert!(!endpoint.end().await.1);
    assert!(!caller.end().await.1);
    let seen = turned_away(bench.dial_endpoint_port(&bench.endpoint("host-7")).await).await;
    assert!(seen.contains("UnknownCA") || seen.contains("DecryptError"), "{seen}");
    let renewed = next.leaf("spiffe://zone/endpoint/host-7", (-1, 24));
    let stream = bench.dial_endpoint_port(&renewed).await.unwrap();
    let mut park = Parked { stream, bytes: Vec::new() };
    park.send(&park_request(1)).await;
    assert_eq!(park.response().await.status, 101);
}

/// Dials twice with one configuration and tells whether the second handshake was a resumption.
async fn resumes(
    config: &Arc<rustls::ClientConfig>,
    first: std::net::SocketAddr,
    second: std::net::SocketAddr,
) -> bool {
    let mut stream = dial(first, Arc::clone(config), None).await.unwrap();
    let _ = stream.shutdown().await;
    dial(second, Arc::clone(config), None)
        .await
        .is_ok_and(|s| s.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed))
}

#[tokio::test]
async fn a_ticket_is_good_on_its_own_port_only() {
    let bench = Bench::start(|_| {}).await;
    let config = bench.client(&bench.endpoint("host-7"));
    assert!(resumes(&config, bench.endpoint_address, bench.endpoint_address).await);
    let config = bench.client(&bench.endpoint("host-7"));
    drop(dial(bench.endpoint_address, Arc::clone(&config), None).await.unwrap());
    turned_away(dial(bench.module_address, config, None).await).await;
}

#[tokio::test]
async fn a_ticket_carries_no_revoked_identity_across() {
    let mut bench = Bench::start(|_| {}).await;
    let config = bench.client(&bench.endpoint("host-7"));
    drop(dial(bench.endpoint_address, Arc::clone(&config), None).await.unwrap());
    // The keys stay, as within one rotation: the check after the handshake must hold by itself.
    bench.policy.trust.deny.push(Denied::Identity {
        identity: "spiffe://zone/endpoint/host-7".parse().unwrap(),
        not_before: time::OffsetDateTime::now_utc(),
    });
    bench.push_policy().await;
    turned_away(dial(bench.endpoint_address, config, None).await).await;
    bench.logged("is revoked").await;
}

#[tokio::test]
async fn a_ticket_does_not_outlive_its_certificate() {
    let bench = Bench::start(|_| {}).await;
    let (certified, until) = bench.endpoints.leaf_about_to_expire("spiffe://zone/endpoint/host-7");
    let config = bench.client(&certified);
    assert!(resumes(&config, bench.endpoint_address, bench.endpoint_address).await);
    let left = until - time::OffsetDateTime::now_utc() + time::Duration::SECOND;
    tokio::time::sleep(left.try_into().unwrap_or_default()).await;
    turned_away(dial(bench.endpoint_address, config, None).await).await;
    bench.logged("is valid from").await;
}

/// As control does it: with the anchors go the ticket keys.
#[tokio::test]
async fn a_ticket_from_before_an_anchor_was_replaced_opens_nothing() {
    let mut bench = Bench::start(|_| {}).await;
    let config = bench.client(&bench.endpoint("host-7"));
    assert!(resumes(&config, bench.endpoint_address, bench.endpoint_address).await);
    bench.policy.trust.anchors.endpoint = vec![Authority::new("others").pem];
    bench.policy.tickets.endpoint = TicketKeys::generate().unwrap();
    bench.push_policy().await;
    let seen = turned_away(dial(bench.endpoint_address, config, None).await).await;
    assert!(seen.contains("UnknownCA"), "{seen}");
}

#[tokio::test]
async fn new_ticket_keys_make_old_tickets_worthless() {
    let mut bench = Bench::start(|_| {}).await;
    let config = bench.client(&bench.endpoint("host-7"));
    drop(dial(bench.endpoint_address, Arc::clone(&config), None).await.unwrap());
    bench.policy.tickets.endpoint = TicketKeys::generate().unwrap();
    bench.push_policy().await;
    let stream = dial(bench.endpoint_address, config, None).await.unwrap();
    assert_eq!(stream.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
}

#[tokio::test]
async fn garbage_instead_of_tls_costs_one_line() {
    let mut bench = Bench::start(|p| p.timeouts.handshake = 0.3).await;
    for garbage in
        [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".as_slice(), b"\x16\x03\x01\x02\x00\x01", b"\0\xff\0\xff"]
    {
        let mut stream = StdStream::connect(bench.endpoint_address).unwrap();
        stream.write_all(garbage).unwrap();
        let mut rest = Vec::new();
        let _ = std::io::Read::read_to_end(&mut stream, &mut rest);
    }
    bench.logged("the handshake did not finish within the deadline").await;
    assert!(bench.metrics().await.contains(r#"reason="tls""#));
    bench.park("host-7").await;
}

/// R-31
#[tokio::test]
async fn a_balancer_tells_the_real_source_and_others_may_not() {
    let mut bench = Bench::start(|p| p.balancers = vec!["127.0.0.2/32".parse().unwrap()]).await;
    let header = b"PROXY TCP4 203.0.113.7 192.0.2.1 4242 17486\r\n";
    let parked = |from: &'static str, header: &'static [u8]| {
        let (address, config) = (bench.endpoint_address, bench.client(&bench.endpoint("host-7")));
        async move {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
            let mut stream: TcpStream = socket.connect(address).await?;
            stream.write_all(header).await?;
            let name = rustls::pki_types::ServerName::from(address.ip());
            let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await?;
            let mut parked = Parked { stream, bytes: Vec::new() };
            parked.send(&park_request(1)).await;
            parked.response().await;
            std::io::Result::Ok(parked)
        }
    };
    let _through = parked("127.0.0.2", header).await.unwrap();
    bench.logged("203.0.113.7").await;
    assert!(parked("127.0.0.2", b"").await.is_err());
    bench.logged("no PROXY protocol header came").await;
    assert!(parked("127.0.0.1", header).await.is_err());
    drop(StdStream::connect(bench.endpoint_address).unwrap());
    let _direct = parked("127.0.0.1", b"").await.unwrap();
    bench.until("both parked", |counts| counts.parks == 2).await;
}

#[tokio::test]
async fn a_network_that_is_not_allowed_gets_no_handshake() {
    let bench =
        Bench::start(|p| p.allowed_networks.module_server = vec!["127.0.0.3/32".parse().unwrap()]).await;
    let config = bench.client(&bench.module_server("inside"));
    assert!(dial(bench.module_address, Arc::clone(&config), None).await.is_err());
    dial(bench.module_address, config, Some("127.0.0.3".parse().unwrap())).await.unwrap();
    bench.logged("not among the allowed ones").await;
}

#[tokio::test]
async fn limits_of_source_identity_and_total_are_refused_by_name() {
    let mut bench = Bench::start(|p| {
        p.limits.endpoint_connections_per_source = 2;
        p.limits.connections_per_endpoint = 1;
        p.limits.connections = 4;
    })
    .await;
    let _first = bench.park("host-1").await;
    turned_away(bench.dial_endpoint_port(&bench.endpoint("host-1")).await).await;
    bench.logged("identity_limit").await;
    let _second = bench.park("host-2").await;
    bench.until("two parks", |counts| counts.parks == 2).await;
    turned_away(bench.dial_endpoint_port(&bench.endpoint("host-3")).await).await;
    bench.logged("source_limit").await;
    let mut other = bench.client(&bench.endpoint("host-4"));
    let _third = dial(bench.endpoint_address, Arc::clone(&other), Some("127.0.0.5".parse().unwrap())).await;
    other = bench.client(&bench.endpoint("host-5"));
    turned_away(dial(bench.endpoint_address, other, Some("127.0.0.9".parse().unwrap())).await).await;
    bench.logged("3 are open already (limits.port_share_percent)").await;
}

#[tokio::test]
async fn running_out_of_descriptors_stops_nothing_for_good() {
    let mut bench = Bench::start(|_| {}).await;
    let (mut caller, mut endpoint) = bench.session("host-7").await;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(bench.child.id()).unwrap());
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    limit_descriptors(pid, open as u64 + 3);
    let crowd: Vec<_> = (0..20).map(|_| StdStream::connect(bench.endpoint_address).unwrap()).collect();
    bench.logged("no descriptor left").await;
    caller.send("through").await;
    endpoint.exactly(b"through").await;
    drop(crowd);
    bench.park("host-8").await;
    assert!(bench.metrics().await.contains(r#"reason="descriptors""#));
}

fn limit_descriptors(pid: nix::unistd::Pid, most: u64) {
    let limit = format!("--nofile={most}:{most}");
    let mut prlimit = std::process::Command::new("prlimit");
    prlimit.args(["--pid", &pid.to_string(), &limit]);
    // The relay's own user may do so; root may not everywhere.
    as_relay(&mut prlimit);
    assert!(prlimit.status().unwrap().success());
}

/// R-31: who is no balancer may not say where a connection comes from.
#[tokio::test]
async fn a_proxy_header_from_an_address_that_is_no_balancer_is_refused_by_name() {
    let mut bench = Bench::start(|_| {}).await;
    let headers: [&[u8]; 2] =
        [b"PROXY TCP4 203.0.113.7 192.0.2.1 4242 17486\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"];
    for header in headers {
        let mut stream = StdStream::connect(bench.endpoint_address).unwrap();
        stream.write_all(header).unwrap();
        // Closed with bytes unread, so as a reset.
        assert!(!matches!(std::io::Read::read(&mut stream, &mut [0]), Ok(1..)));
    }
    bench.logged("a PROXY protocol header from an address that is not in balancer.networks").await;
    let refused = r#"port="endpoint",reason="proxy_header"} 2"#;
    // A connection is closed before it is counted.
    let counted = async { while !bench.metrics().await.contains(refused) {} };
    assert!(
        tokio::time::timeout(std::time::Duration::from_secs(10), counted).await.is_ok(),
        "{}",
        bench.metrics().await
    );
}

/// Balancers look by a bare TCP connection, whether they speak the PROXY protocol or not.
#[tokio::test]
async fn connections_that_close_before_their_first_byte_are_counted_and_not_logged() {
    let mut bench = Bench::start(|_| {}).await;
    for _ in 0..3 {
        drop(StdStream::connect(bench.endpoint_address).unwrap());
        let reset = TcpStream::connect(bench.endpoint_address).await.unwrap();
        reset.set_zero_linger().unwrap();
    }
    let counted = |metrics: &str| metrics.contains("probes_total 6");
    let deadline = tokio::time::Instant::now() + crate::bench::TEST_TIMEOUT;
    while !counted(&bench.metrics().await) {
        assert!(tokio::time::Instant::now() < deadline, "{}", bench.metrics().await);
    }
    assert!(!bench.log().contains("refused"), "{}", bench.log());
}
