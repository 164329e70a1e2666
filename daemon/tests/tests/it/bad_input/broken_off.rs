//! Connections to 17488 that end at every step, of strangers and of members, and lie about what they send.

use std::io::Write as _;
use std::net::TcpStream;
use std::thread;

use zone_tests::control::Client;
use zone_tests::host::Host;
use zone_tests::seeds::{Random, seeds};
use zone_tests::until;
use zone_tests::zone::Zone;

/// Connections of each seed.
const CONNECTIONS: usize = 300;
/// Connections at the same time.
const LANES: usize = 4;

#[test]
fn connections_that_end_at_each_step_leave_nothing_behind_and_hold_nobody_up() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let pid = host.control.pid();
    let descriptors = || std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors").count();
    assert_eq!(host.metric(&zone, "zone_proxy_control_open"), 1);
    let before = descriptors();
    for seed in seeds(2) {
        thread::scope(|scope| {
            let (host, zone) = (&host, &zone);
            for lane in 0..LANES {
                scope.spawn(move || {
                    let mut random = Random::new(seed * 1_000 + lane as u64);
                    for _ in 0..CONNECTIONS / LANES {
                        break_off(host, zone, &mut random);
                    }
                });
            }
            // Meanwhile everybody else is served.
            for _ in 0..20 {
                let mut member = Client::member(host, zone);
                let answer = member.ask("GET", "/v1/status", &[("Connection", "close")], b"");
                assert_eq!(answer.status, 200, "seed {seed}");
            }
        });
        let open = || host.metric(&zone, "zone_proxy_control_open");
        until("only the one who asks is connected", || open() == 1);
    }
    until("every descriptor is given back", || descriptors() <= before);
    assert!(!host.control.said().contains("panicked"), "{}", host.control.said());
}

/// A connection that ends at some step.
fn break_off(host: &Host, zone: &Zone, random: &mut Random) {
    match random.below(4) {
        0 => drop(TcpStream::connect(host.port(17488))),
        1 => {
            let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
            if let Ok(mut tcp) = TcpStream::connect(host.port(17488)) {
                let _ = tcp.write_all(&hello[..=random.below(hello.len() - 1)]);
            }
        }
        _ => {
            let mut member = Client::member(host, zone);
            let request = request(random);
            match random.below(4) {
                0 => {}
                1 => member.send(&request[..random.below(request.len())]),
                2 => {
                    for byte in request.iter().take(100) {
                        member.send(&[*byte]);
                    }
                }
                _ => member.send(&request),
            }
        }
    }
}

/// A request, or what looks like one, whose length may be a lie.
fn request(random: &mut Random) -> Vec<u8> {
    let fields = [
        "Content-Length: 10\r\n",
        "Content-Length: 1000000\r\n",
        "Content-Length: 10\r\nContent-Length: 10\r\n",
        "Content-Length: 10\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length: 5000\r\nExpect: 100-continue\r\n",
        "",
    ];
    let requests = ["GET /v1/status", "PUT /v1/trust", "POST /v1/identity", "PUT /v1/identity", "PATCH /x"];
    let (request, field) = (requests[random.below(requests.len())], fields[random.below(fields.len())]);
    let line_end = if random.one_in(8) { "\n" } else { "\r\n" };
    let head = format!("{request} HTTP/1.1{line_end}Host: proxy\r\nIf-Match: \"1\"\r\n{field}\r\n");
    [head.into_bytes(), vec![b'x'; random.below(2_000)]].concat()
}
