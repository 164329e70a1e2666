//! Addresses that are dead in one way or another.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, listen, socket};

/// How long a connection that is not accepted is waited for, to know that it is not.
const SILENCE: Duration = Duration::from_millis(300);

/// More connections than a queue of none takes.
const MAX_QUEUED: usize = 8;

/// How an address is dead.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// No TCP connection comes about: what is sent there vanishes.
    AtTcp,
    /// It accepts connections, and never says a word.
    AfterTcp,
    /// It begins to answer, and stops in the middle of the handshake.
    InTls,
}

/// All of them.
pub(super) const KINDS: [Kind; 3] = [Kind::AtTcp, Kind::AfterTcp, Kind::InTls];

/// The beginning of a ServerHello: a record that promises more than follows (RFC 5246, section 6.2.1).
const HALF_A_HELLO: [u8; 12] = [22, 3, 3, 0x0f, 0xa0, 2, 0, 0x0f, 0x9c, 3, 3, 0];

/// An address that is dead at some ports, for as long as the test lasts.
pub(super) struct Dead {
    pub(super) address: Ipv4Addr,
    /// Listeners whose queues are full, with the connections that fill them, or which accept and say nothing.
    _held: Vec<(TcpListener, Vec<TcpStream>)>,
}

impl Dead {
    pub(super) fn new(kind: Kind, address: Ipv4Addr, ports: &[u16]) -> Self {
        let held = |port: &u16| {
            let at = SocketAddr::from((address, *port));
            match kind {
                Kind::AtTcp => full(at),
                Kind::AfterTcp => (TcpListener::bind(at).expect("our address"), Vec::new()),
                Kind::InTls => {
                    let listener = TcpListener::bind(at).expect("our address");
                    let accepting = listener.try_clone().expect("a copy");
                    thread::spawn(move || half_answer(&accepting));
                    (listener, Vec::new())
                }
            }
        };
        Self { address, _held: ports.iter().map(held).collect() }
    }
}

/// A listener whose queue is full: the kernel drops what comes, as a host that is gone would.
fn full(at: SocketAddr) -> (TcpListener, Vec<TcpStream>) {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&socket, &at).expect("our address");
    listen(&socket, 0).expect("a listener");
    let connect = |_| TcpStream::connect_timeout(&at, SILENCE).ok();
    let queued: Vec<_> = (0..MAX_QUEUED).map_while(connect).collect();
    assert!(queued.len() < MAX_QUEUED, "the queue never fills");
    (socket.into(), queued)
}

fn half_answer(listener: &TcpListener) {
    let mut open = Vec::new();
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        // A client that has gone meanwhile has won elsewhere.
        let _ = stream.read(&mut [0; 2_048]).and_then(|_| stream.write_all(&HALF_A_HELLO));
        open.push(stream);
    }
}
