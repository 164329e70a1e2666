//! Peers that run long: an endpoint and `zone-module forward` live through all that happens to their certificates, and so does
//! every session but those whose right has ended.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::Signal;
use zone_protocol::identity::Role;
use zone_tests::host::Host;
use zone_tests::process::{Process, succeed};
use zone_tests::zone::{Service, Zone};
use zone_tests::{TEST_TIMEOUT, target, until};

/// Renewals of every certificate, with a SIGHUP to everybody upon each.
const RENEWALS: usize = 20;
/// Sessions that move data meanwhile, half of them to each endpoint.
const SESSIONS: usize = 50;
/// Bytes of one round trip.
const MESSAGE_BYTES: usize = 1_500;
/// Between two round trips of a session.
const PAUSE: Duration = Duration::from_millis(20);

/// A session through a forwarded port: what it sends is compared with what comes back, byte by byte, from its first byte to its
/// end.
struct Moving {
    over: Arc<AtomicBool>,
    trips: Arc<AtomicU64>,
    thread: JoinHandle<io::Result<u64>>,
}

impl Moving {
    fn start(through: SocketAddr, seed: u64) -> Self {
        let (over, trips) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (ends, count) = (Arc::clone(&over), Arc::clone(&trips));
        Self { over, trips, thread: thread::spawn(move || move_data(through, seed, &ends, &count)) }
    }

    /// Waits until it has moved data again.
    fn moves(&self, what: &str) {
        let before = self.trips.load(Ordering::Relaxed);
        until(&format!("{what}: a session moves data"), || {
            assert!(!self.thread.is_finished(), "{what}: a session is lost");
            self.trips.load(Ordering::Relaxed) > before
        });
    }

    /// Ends it in an orderly way; the bytes that it has moved there and back.
    fn ends_whole(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic").expect("it ends as it should")
    }

    /// Waits for its end, which is none of its own.
    fn ends_cut(self, what: &str) {
        until(&format!("{what}: a session ends"), || self.thread.is_finished());
        assert!(self.thread.join().expect("no panic").is_err(), "{what}: a session looks whole");
    }
}

/// Moves data until it is over; the number of bytes, each of which came back as it was.
fn move_data(through: SocketAddr, seed: u64, over: &AtomicBool, trips: &AtomicU64) -> io::Result<u64> {
    let mut stream = TcpStream::connect(through)?;
    stream.set_read_timeout(Some(TEST_TIMEOUT))?;
    let mut stream_of_bytes = Bytes(seed | 1);
    let mut moved = 0;
    while !over.load(Ordering::Relaxed) {
        let sent: [u8; MESSAGE_BYTES] = std::array::from_fn(|_| stream_of_bytes.next());
        stream.write_all(&sent)?;
        let mut received = [0; MESSAGE_BYTES];
        stream.read_exact(&mut received)?;
        assert!(sent == received, "other bytes come back after {moved}");
        moved += MESSAGE_BYTES as u64;
        trips.fetch_add(1, Ordering::Relaxed);
        thread::sleep(PAUSE);
    }
    stream.shutdown(Shutdown::Write)?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest)?;
    assert!(rest.is_empty(), "bytes that nobody sent");
    Ok(moved)
}

/// Bytes that do not repeat within a test (xorshift, Marsaglia 2003).
struct Bytes(u64);

impl Bytes {
    fn next(&mut self) -> u8 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.to_le_bytes()[3]
    }
}

/// An endpoint, and the forwarded port that leads to it.
struct Pair {
    id: &'static str,
    endpoint: Process,
    forward: Process,
    through: SocketAddr,
}

impl Pair {
    fn start(host: &Host, zone: &Zone, id: &'static str, service: &Service) -> Self {
        let endpoint = zone.endpoint(host, id, std::slice::from_ref(service));
        let forward =
            Process::start(&mut zone.cli(&["forward", "127.0.0.1:0", &format!("{id}:{}", service.name)]));
        forward.says("leads to");
        let through = forward.said().split_whitespace().next().and_then(|text| text.parse().ok());
        Self { id, endpoint, forward, through: through.expect("an address") }
    }

    /// A new certificate of the endpoint is put in the place of the old one, file by file.
    fn renew(&self, zone: &Zone, number: usize) {
        let out = zone.beside(&format!("{}-{number}", self.id));
        succeed(&mut zone.cli(&["issue", "endpoint", self.id, "--out", &out.to_string_lossy()]), b"");
        for name in ["endpoint.crt", "endpoint.key"] {
            fs::copy(out.join(name), zone.beside(self.id).join(name)).expect("a copy");
        }
    }

    fn hang_up(&self) {
        self.endpoint.signal(Signal::SIGHUP);
        self.forward.signal(Signal::SIGHUP);
    }

    /// How often it has taken up new certificates.
    fn taken_up(&self) -> usize {
        self.endpoint.said().matches("new certificates were found on disk").count()
    }

    /// Whether a new session through the forwarded port carries data both ways.
    fn connects(&self) -> bool {
        let trip = || -> io::Result<bool> {
            let mut stream = TcpStream::connect(self.through)?;
            stream.set_read_timeout(Some(TEST_TIMEOUT))?;
            stream.write_all(b"new")?;
            let mut back = [0; 3];
            stream.read_exact(&mut back)?;
            stream.shutdown(Shutdown::Write)?;
            Ok(back == *b"new" && stream.read(&mut back)? == 0)
        };
        trip().unwrap_or(false)
    }
}

/// A new certificate of this Module Server.
fn renew_own(zone: &Zone) {
    let directory = zone.directory();
    let own = directory.issue(Role::ModuleServer, directory.module_server(), None).expect("a certificate");
    fs::write(zone.path().join("own.key"), own.key.as_bytes()).expect("written");
    fs::write(zone.path().join("own.crt"), own.certificate.as_bytes()).expect("written");
}

fn copy_files(from: &Path, to: &Path) {
    for file in fs::read_dir(from).expect("a folder").flatten() {
        fs::copy(file.path(), to.join(file.file_name())).expect("a copy");
    }
}

#[test]
fn endpoints_and_forwards_live_through_renewals_hang_ups_new_authorities_and_revocations() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let echo = target::echo().to_string();
    let plain = Service { name: "sealed", port: 7, target: echo, end_to_end: true };
    let mut watch = Process::start(&mut zone.cli(&["endpoints", "--watch"]));
    watch.says("snapshot");
    let mut pairs = ["e1", "e2"].map(|id| Pair::start(&host, &zone, id, &plain));
    let all = pairs.iter().cycle().take(SESSIONS).zip(1..);
    let mut moving: Vec<_> = all.map(|(pair, seed)| (pair.id, Moving::start(pair.through, seed))).collect();
    let all_move = |moving: &[(&str, Moving)], what: &str| {
        for (_, session) in moving {
            session.moves(what);
        }
    };
    all_move(&moving, "at the beginning");

    for number in 1..=RENEWALS {
        let what = format!("renewal {number}");
        for pair in &pairs {
            pair.renew(&zone, number);
        }
        renew_own(&zone);
        pairs.iter().for_each(Pair::hang_up);
        watch.signal(Signal::SIGHUP);
        for pair in &pairs {
            until(&format!("{what} is taken up:\n{}", pair.endpoint.said()), || pair.taken_up() == number);
            until(&format!("{what}: a new session:\n{}", pair.forward.said()), || pair.connects());
            until(&format!("{what}: SIGHUP is heard"), || {
                pair.forward.said().matches("SIGHUP").count() == number
            });
        }
        all_move(&moving, &what);
    }

    for role in ["endpoint", "module-server", "zone-proxy"] {
        let out = zone.beside(&format!("new-{role}"));
        for step in ["renew", "retire"] {
            succeed(&mut zone.cli(&["authority", step, role, "--out", &out.to_string_lossy()]), b"");
            for pair in &pairs {
                copy_files(&out.join("endpoint").join(pair.id), &zone.beside(pair.id));
            }
        }
        pairs.iter().for_each(Pair::hang_up);
        for pair in &pairs {
            until(&format!("a new authority for {role}: a new session"), || pair.connects());
        }
        all_move(&moving, &format!("a new authority for {role}"));
    }
    println!("{SESSIONS} sessions, 0 lost by {RENEWALS} renewals and 3 new authorities");

    // Its right ends, and nobody else's.
    succeed(&mut zone.cli(&["revoke", "endpoint", "e1"]), b"");
    let (ended, others): (Vec<_>, Vec<_>) = moving.drain(..).partition(|(id, _)| *id == "e1");
    for (_, session) in ended {
        session.ends_cut("its endpoint is revoked");
    }
    moving = others;
    all_move(&moving, "another endpoint is revoked");
    pairs[0].renew(&zone, RENEWALS + 1);
    until("it is back by its new certificate, by itself", || pairs[0].connects());

    // That of the Module Server through whose forwarded ports they all go.
    let own = zone.directory().module_server().to_string();
    let whole = moving.pop().map(|(_, session)| session.ends_whole()).expect("a session");
    succeed(&mut zone.cli(&["revoke", "module-server", &own]), b"");
    let left = moving.len();
    for (_, session) in moving {
        session.ends_cut("its Module Server is revoked");
    }
    for pair in &mut pairs {
        until("a new session by the new certificate", || pair.connects());
        assert!(pair.endpoint.runs() && pair.forward.runs(), "{}: everybody has stayed up", pair.id);
    }
    until("the watch is back by the new certificate", || watch.said().matches("snapshot").count() >= 2);
    assert!(watch.runs());
    println!(
        "{left} sessions ended with the right of their Module Server; one that ended before moved {whole} bytes"
    );
}
