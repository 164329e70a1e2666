//! Sessions take turns: one that copies moves so much and no more before others have theirs. Asserted by the order of
//! events, with real TLS over real sockets, on a runtime with one worker.

use std::future::poll_fn;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream as BlockingStream};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ServerConfig, StreamOwned};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use zone_protocol::identity::Role;
use zone_protocol::tls::config::client;
use zone_protocol::tls::policy::Versions;
use zone_protocol::tls::verifier::Expectation;

use super::records::RECORD_BYTES;
use super::{BidirectionalCopy, TURN_BYTES};
use crate::connection::{Connection, MAX_TLS_BUFFER_BYTES};
use crate::fixtures::Authority;
use crate::metrics::Metrics;
use crate::runtime::{self, TURNS_BETWEEN_LOOKS};

const COPIES: usize = 4;
const KEYSTROKES: usize = 200;
const MESSAGE: [u8; 64] = [0x61; 64];
/// Nothing takes longer, unless something is wrong.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

#[test]
fn a_keystroke_has_its_turn_after_so_many_bytes_of_copies_at_most() {
    let runtime = runtime::build(1).unwrap();
    let order = runtime.block_on(async {
        // On the worker, where sessions are.
        tokio::spawn(tokio::time::timeout(TEST_TIMEOUT, keystrokes_beside_copies())).await.unwrap()
    });
    runtime.shutdown_background();
    let order = order.expect("a keystroke has no turn at all");
    // A look may just miss one, as the kernel tells of it only after it has it.
    let most_turns = 2 * TURNS_BETWEEN_LOOKS as usize;
    let (turns, bytes) =
        order.waits.iter().fold((0, 0), |most, wait| (most.0.max(wait.turns), most.1.max(wait.bytes)));
    println!(
        "{KEYSTROKES} keystrokes; at most {turns} turns and {bytes} bytes of copies before one's own turn"
    );
    assert!(order.turns > KEYSTROKES, "nobody copied: {} turns", order.turns);
    assert!(turns <= most_turns, "{turns} turns of others, not {most_turns}");
    // A turn may complete the record that the turn before has begun.
    let most = (TURN_BYTES + RECORD_BYTES) as u64;
    assert!(bytes <= most_turns as u64 * most, "{bytes} bytes of others");
    assert!(order.longest_turn <= most, "a turn of {} bytes", order.longest_turn);
}

/// What passed before a keystroke that had come had its turn.
#[derive(Debug, Clone, Copy, Default)]
struct Wait {
    turns: usize,
    bytes: u64,
}

/// The order of events.
#[derive(Default)]
struct Order {
    /// Turns in which a copy moved something.
    turns: usize,
    longest_turn: u64,
    keystroke: Keystroke,
    waits: Vec<Wait>,
}

#[derive(Default)]
enum Keystroke {
    /// Nobody types yet.
    #[default]
    NotYet,
    /// The next one can be typed.
    Due,
    /// It was typed, and the kernel has not delivered it yet.
    Typed,
    /// The relay could read it.
    There(Wait),
}

impl Order {
    fn copied(&mut self, bytes: u64) {
        self.turns += usize::from(bytes > 0);
        self.longest_turn = self.longest_turn.max(bytes);
        if let Keystroke::There(wait) = &mut self.keystroke {
            wait.turns += 1;
            wait.bytes += bytes;
        }
    }

    fn served(&mut self) {
        if let Keystroke::There(wait) = std::mem::replace(&mut self.keystroke, Keystroke::Due) {
            self.waits.push(wait);
        }
    }
}

async fn keystrokes_beside_copies() -> Order {
    let zone = Zone::new();
    let metrics: &'static Metrics = Box::leak(Box::new(Metrics::new()));
    let order = Arc::new(Mutex::new(Order::default()));
    let idle = TEST_TIMEOUT;
    let (caller, mut typist, arrivals) = zone.connect().await;
    let (endpoint, _screen, _) = zone.connect().await;
    let mut typing = BidirectionalCopy::new(caller, Vec::new(), endpoint, Vec::new(), idle, metrics);
    let typist = move || typist.write_all(&MESSAGE).and_then(|()| typist.flush()).unwrap();
    let typist = Arc::new(Mutex::new(typist));
    for _ in 0..COPIES {
        let ((caller, mut from, _), (endpoint, mut into, _)) = (zone.connect().await, zone.connect().await);
        std::thread::spawn(move || while from.write_all(&[0x5a; 16 << 10]).is_ok() {});
        std::thread::spawn(move || while into.read(&mut [0; 16 << 10]).is_ok_and(|n| n > 0) {});
        let mut copy = BidirectionalCopy::new(caller, Vec::new(), endpoint, Vec::new(), idle, metrics);
        let (order, typist, arrivals) =
            (Arc::clone(&order), Arc::clone(&typist), arrivals.try_clone().unwrap());
        tokio::spawn(poll_fn(move |cx| {
            let before = copy.moved().from_caller;
            let poll = copy.poll(cx);
            let mut order = order.lock().unwrap();
            order.copied(copy.moved().from_caller - before);
            match order.keystroke {
                Keystroke::Due if order.turns.is_multiple_of(7) => {
                    typist.lock().unwrap()();
                    order.keystroke = Keystroke::Typed;
                }
                Keystroke::Typed if arrivals.peek(&mut [0]).is_ok() => {
                    order.keystroke = Keystroke::There(Wait::default());
                }
                _ => {}
            }
            poll.map(drop)
        }));
    }
    poll_fn(move |cx| {
        let before = typing.moved();
        let poll = typing.poll(cx);
        let mut order = order.lock().unwrap();
        assert!(poll.is_pending(), "{poll:?}: {:?}", typing.cause());
        if typing.moved() != before || matches!(order.keystroke, Keystroke::NotYet) {
            order.served();
        }
        if order.waits.len() < KEYSTROKES { Poll::Pending } else { Poll::Ready(std::mem::take(&mut *order)) }
    })
    .await
}

/// Whoever connects to a relay, and how.
struct Zone {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    client: Arc<ClientConfig>,
}

type Peer = StreamOwned<ClientConnection, BlockingStream>;

impl Zone {
    fn new() -> Self {
        let proxies = Authority::new("proxies");
        let own = proxies.leaf("spiffe://zone/zone-proxy/p1");
        let versions = Versions::Tls12;
        let chain = CertificateDer::pem_slice_iter(own.chain.as_bytes()).collect::<Result<_, _>>().unwrap();
        let server = ServerConfig::builder_with_provider(versions.provider())
            .with_protocol_versions(versions.protocol_versions())
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap())
            .unwrap();
        let zone = "zone".parse().unwrap();
        let expected = Expectation::new(zone, Role::ZoneProxy, None, &[proxies.pem], versions).unwrap();
        Self {
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            acceptor: Arc::new(server).into(),
            client: client(expected, None, versions).unwrap(),
        }
    }

    /// A connection of the relay, its peer, and a way to see what the kernel has for the relay.
    async fn connect(&self) -> (Connection, Peer, BlockingStream) {
        let address = self.listener.local_addr().unwrap();
        let tls = ClientConnection::new(Arc::clone(&self.client), ServerName::from(address.ip())).unwrap();
        let peer = tokio::task::spawn_blocking(move || {
            let mut peer = StreamOwned::new(tls, BlockingStream::connect(address).unwrap());
            while peer.conn.is_handshaking() {
                peer.conn.complete_io(&mut peer.sock).unwrap();
            }
            peer
        });
        let (socket, _) = self.listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let arrivals = socket.try_clone().unwrap();
        let accepting = self.acceptor.accept_with(TcpStream::from_std(socket).unwrap(), |tls| {
            tls.set_buffer_limit(Some(MAX_TLS_BUFFER_BYTES));
        });
        let connection = Box::new(accepting.await.unwrap());
        (connection, peer.await.unwrap(), arrivals)
    }
}
