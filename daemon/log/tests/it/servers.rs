use std::net::{TcpListener, UdpSocket};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use zone_log::syslog::{MAX_DATAGRAM_BYTES, Pace, Server, Syslog, Transport, check};
use zone_log::{AUDIT, Level, Log, MAX_QUEUED_BYTES, Record, Sink, Source, text};

use crate::receiver::{Authority, Receiver, TEST_TIMEOUT};

/// A local sink that a test can read.
struct Local(mpsc::Sender<String>);

impl Sink for Local {
    fn write(&mut self, record: &Record) {
        let _ = self.0.send(text(record));
    }
}

struct Bench {
    log: Log,
    dispatch: tracing::Dispatch,
    local: mpsc::Receiver<String>,
}

impl Bench {
    fn new(port: u16, transport: Transport) -> Self {
        let pace = Pace {
            connect: Duration::from_secs(5),
            write: Duration::from_millis(300),
            first_delay: Duration::from_millis(20),
            longest_delay: Duration::from_millis(200),
        };
        let server = Server { host: "127.0.0.1".into(), port, transport, pace };
        let (seen, local) = mpsc::channel();
        let own = Source::own("zone-proxy");
        let sink = Syslog::new(server, own.clone(), Box::new(Local(seen))).unwrap();
        let (log, dispatch) = Log::detached(own, Level::Info, Box::new(sink)).unwrap();
        Self { log, dispatch, local }
    }

    fn logs(&self, words: &str) {
        tracing::dispatcher::with_default(&self.dispatch, || tracing::info!("{words}"));
    }

    fn audits(&self, who: &str) {
        tracing::dispatcher::with_default(
            &self.dispatch,
            || tracing::info!(target: AUDIT, change = "reset", who, n = 7, "done"),
        );
    }

    fn says_locally(&self, words: &str) -> String {
        loop {
            let line = self.local.recv_timeout(TEST_TIMEOUT).unwrap_or_else(|_| panic!("never '{words}'"));
            if line.contains(words) {
                return line;
            }
        }
    }
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// R-46
#[test]
fn an_audit_line_arrives_over_udp_with_every_fact() {
    let receiver = Receiver::udp();
    let bench = Bench::new(receiver.address.port(), Transport::Udp);
    bench.audits("admin ] \"x\"\n<0>1 forged");
    let message = receiver.until("audit: done");
    assert_eq!((message.facility, message.severity), (3, 5));
    assert_eq!((message.process.as_str(), message.id.as_str()), ("zone-proxy", "audit"));
    assert_eq!(message.pid, std::process::id().to_string());
    assert!(message.host.len() > 1, "{message:?}");
    assert!(message.timestamp.ends_with('Z') && message.timestamp.contains('T'), "{message:?}");
    assert_eq!(message.facts["who"], "admin ] \"x\"\\n<0>1 forged");
    assert_eq!((message.facts["change"].as_str(), message.facts["n"].as_str()), ("reset", "7"));
}

#[test]
fn a_datagram_is_never_longer_than_its_bound() {
    let receiver = Receiver::udp();
    let bench = Bench::new(receiver.address.port(), Transport::Udp);
    bench.logs(&format!("long {}", "x".repeat(10_000)));
    let message = receiver.until("long x");
    assert!(message.text.len() < MAX_DATAGRAM_BYTES && message.text.len() > MAX_DATAGRAM_BYTES - 200);
}

#[test]
fn a_port_where_nobody_takes_datagrams_counts_as_away_and_what_it_did_not_take_is_sent_later() {
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let bench = Bench::new(address.port(), Transport::Udp);
    // The refusal of one datagram is heard of at the next.
    (0..3).for_each(|n| bench.logs(&format!("early {n}")));
    assert!(bench.says_locally("is away").contains("Connection refused"));
    let back = Receiver::udp_at(address);
    back.until("early 2");
}

/// R-46
#[test]
fn records_arrive_over_tcp_counted_by_octets_and_in_order() {
    let receiver = Receiver::tcp(listener());
    let bench = Bench::new(receiver.address.port(), Transport::Tcp);
    bench.logs("number 0 über\ntwo lines");
    assert!(receiver.until("number 0").text.ends_with(r"number 0 über\ntwo lines"));
    for n in 1..500 {
        bench.logs(&format!("number {n}."));
    }
    for n in 1..500 {
        assert!(receiver.next().text.ends_with(&format!("number {n}.")));
    }
}

/// R-46
#[test]
fn records_arrive_over_tls_from_a_server_that_the_authority_vouches_for() {
    let authority = Authority::new("good", "127.0.0.1");
    let receiver = Receiver::tls(listener(), authority.server.clone());
    let ca = authority.file.clone();
    let bench = Bench::new(receiver.address.port(), Transport::Tls { ca });
    bench.audits("admin");
    assert_eq!(receiver.until("audit: done").facts["who"], "admin");
    bench.logs("and one more");
    receiver.until("and one more");
}

#[test]
fn a_server_of_a_foreign_authority_gets_nothing() {
    let (authority, foreign) = (Authority::new("ours", "127.0.0.1"), Authority::new("foreign", "127.0.0.1"));
    let receiver = Receiver::tls(listener(), foreign.server.clone());
    let ca = authority.file.clone();
    let bench = Bench::new(receiver.address.port(), Transport::Tls { ca });
    bench.logs("for friends only");
    assert!(bench.says_locally("is away").contains("invalid peer certificate"));
}

#[test]
fn a_server_of_another_name_gets_nothing() {
    let authority = Authority::new("name", "other.example");
    let receiver = Receiver::tls(listener(), authority.server.clone());
    let ca = authority.file.clone();
    let bench = Bench::new(receiver.address.port(), Transport::Tls { ca });
    bench.logs("for friends only");
    assert!(bench.says_locally("is away").contains("not valid for name"));
}

#[test]
fn a_server_that_never_shakes_hands_is_given_up() {
    let authority = Authority::new("mute", "127.0.0.1");
    let mute = listener();
    let server = Server {
        host: "127.0.0.1".into(),
        port: mute.local_addr().unwrap().port(),
        transport: Transport::Tls { ca: authority.file.clone() },
        pace: Pace { connect: Duration::from_millis(100), ..Pace::default() },
    };
    let (seen, local) = mpsc::channel();
    let sink = Syslog::new(server, Source::own("t"), Box::new(Local(seen))).unwrap();
    let (_log, _dispatch) = Log::detached(Source::own("t"), Level::Info, Box::new(sink)).unwrap();
    let line = local.recv_timeout(TEST_TIMEOUT).unwrap();
    assert!(line.contains("is away") && line.contains("the server took too long"), "{line}");
}

#[test]
fn records_of_the_time_without_a_server_are_shown_locally_and_sent_when_it_is_back() {
    let receiver = Receiver::tcp(listener());
    let bench = Bench::new(receiver.address.port(), Transport::Tcp);
    bench.logs("before");
    receiver.until("before");
    let address = receiver.stop();
    bench.logs("meanwhile 1");
    bench.logs("meanwhile 2");
    bench.says_locally("is away");
    bench.says_locally("meanwhile 2");
    let receiver = Receiver::tcp(TcpListener::bind(address).unwrap());
    bench.logs("afterwards");
    receiver.until("meanwhile 1");
    receiver.until("meanwhile 2");
    receiver.until("afterwards");
    bench.says_locally("is reached");
}

#[test]
fn a_tls_server_that_restarts_misses_nothing() {
    let authority = Authority::new("restart", "127.0.0.1");
    let receiver = Receiver::tls(listener(), authority.server.clone());
    let ca = authority.file.clone();
    let bench = Bench::new(receiver.address.port(), Transport::Tls { ca });
    bench.logs("before");
    receiver.until("before");
    let address = receiver.stop();
    bench.logs("meanwhile");
    let receiver = Receiver::tls(TcpListener::bind(address).unwrap(), authority.server.clone());
    receiver.until("meanwhile");
}

#[test]
fn a_flood_at_a_stuck_server_takes_bounded_memory_and_holds_nobody_up() {
    let (receiver, open) = Receiver::stuck(listener());
    let bench = Bench::new(receiver.address.port(), Transport::Tcp);
    receiver.connected();
    let (before, began) = (resident(), Instant::now());
    let long = "x".repeat(1_000);
    for n in 0..100_000 {
        bench.logs(&format!("flood {n} {long}"));
        // The local sink of this test must not be what grows.
        while bench.local.try_recv().is_ok() {}
    }
    let (took, grown) = (began.elapsed(), resident().saturating_sub(before));
    assert!(took < TEST_TIMEOUT, "logging waits for the server: {took:?}");
    assert!(grown < 8 * MAX_QUEUED_BYTES, "memory grew by {grown} bytes");
    drop(open);
    bench.log.flush(TEST_TIMEOUT);
    let told = |message: &crate::receiver::Message| {
        message.text.contains("dropped=") || message.text.contains("were dropped")
    };
    bench.logs("the flood is over");
    let mut dropped = false;
    loop {
        let message = receiver.next();
        dropped |= told(&message);
        if message.text.contains("the flood is over") {
            break;
        }
    }
    assert!(dropped, "nobody was told that records were dropped");
}

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[test]
fn a_last_record_is_sent_before_the_log_ends() {
    let receiver = Receiver::tcp(listener());
    let bench = Bench::new(receiver.address.port(), Transport::Tcp);
    bench.logs("last words");
    drop(bench);
    receiver.until("last words");
}

#[test]
fn an_authority_that_is_none_is_named_before_anything_is_dialled() {
    let file = std::env::temp_dir().join(format!("zone-log-{}-none.pem", std::process::id()));
    let server = |ca: &std::path::Path, host: &str| Server {
        host: host.into(),
        port: 6514,
        transport: Transport::Tls { ca: ca.to_owned() },
        pace: Pace::default(),
    };
    let error = check(&server(&file, "h")).unwrap_err().to_string();
    assert!(error.contains("none.pem: can't be read"), "{error}");
    std::fs::write(&file, "no certificate").unwrap();
    let error = check(&server(&file, "h")).unwrap_err().to_string();
    std::fs::remove_file(&file).unwrap();
    assert!(error.contains("holds no certificate") && error.contains("PEM"), "{error}");
    let authority = Authority::new("check", "h");
    assert!(
        check(&server(&authority.file, "no host")).unwrap_err().to_string().contains("'no host' is neither")
    );
    assert!(check(&server(&authority.file, "h")).is_ok());
}
