//! A syslog server: takes RFC 5424 messages over UDP, TCP or TLS, and reads them by the RFC's letter.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Nothing that a test waits for takes longer, unless something is wrong.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// A message, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) facility: u8,
    pub(crate) severity: u8,
    pub(crate) timestamp: String,
    pub(crate) host: String,
    pub(crate) process: String,
    pub(crate) pid: String,
    pub(crate) id: String,
    pub(crate) facts: BTreeMap<String, String>,
    pub(crate) text: String,
}

impl Message {
    /// Reads one message; panics at what the RFC does not allow.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let text = std::str::from_utf8(bytes).unwrap_or_else(|e| panic!("{e}: {bytes:?}"));
        assert!(!text.contains(|c: char| c.is_control()), "{text:?}");
        let (priority, rest) = text.strip_prefix('<').and_then(|t| t.split_once('>')).expect("a priority");
        let priority: u8 = priority.parse().unwrap();
        let rest = rest.strip_prefix("1 ").expect("version 1");
        let words: Vec<_> = rest.splitn(6, ' ').collect();
        let [timestamp, host, process, pid, id, rest] = words[..] else { panic!("{text}") };
        for word in [host, process, pid, id] {
            assert!(!word.is_empty() && word.chars().all(|c| c.is_ascii_graphic()), "{text}");
        }
        let (facts, words) = facts(rest);
        Self {
            facility: priority / 8,
            severity: priority % 8,
            timestamp: timestamp.to_owned(),
            host: host.to_owned(),
            process: process.to_owned(),
            pid: pid.to_owned(),
            id: id.to_owned(),
            facts,
            text: words.strip_prefix(' ').unwrap_or(words).to_owned(),
        }
    }
}

/// STRUCTURED-DATA of one element or none, and what follows it.
fn facts(rest: &str) -> (BTreeMap<String, String>, &str) {
    let mut facts = BTreeMap::new();
    if let Some(words) = rest.strip_prefix('-') {
        return (facts, words);
    }
    let mut rest = rest.strip_prefix("[zone@32473").expect("our element");
    while let Some(parameter) = rest.strip_prefix(' ') {
        let (name, value) = parameter.split_once("=\"").expect("a parameter");
        let (mut unescaped, mut end, mut escape) = (String::new(), None, false);
        for (at, c) in value.char_indices() {
            match c {
                '\\' if !escape => escape = true,
                '"' if !escape => {
                    end = Some(at);
                    break;
                }
                ']' if !escape => panic!("a bare bracket: {rest}"),
                c => {
                    unescaped.push(c);
                    escape = false;
                }
            }
        }
        rest = &value[end.expect("a closing quotation mark") + 1..];
        facts.insert(name.to_owned(), unescaped);
    }
    (facts, rest.strip_prefix(']').expect("a closing bracket"))
}

/// What arrived, and what may arrive.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    messages: mpsc::Receiver<Message>,
    connections: mpsc::Receiver<TcpStream>,
}

impl Receiver {
    pub(crate) fn udp() -> Self {
        Self::udp_at(([127, 0, 0, 1], 0).into())
    }

    pub(crate) fn udp_at(address: SocketAddr) -> Self {
        let socket = UdpSocket::bind(address).unwrap();
        let (address, (arrived, messages)) = (socket.local_addr().unwrap(), mpsc::channel());
        thread::spawn(move || {
            let mut space = vec![0; 65_536];
            while let Ok(length) = socket.recv(&mut space) {
                if arrived.send(Message::parse(&space[..length])).is_err() {
                    return;
                }
            }
        });
        Self { address, messages, connections: mpsc::channel().1 }
    }

    pub(crate) fn tcp(listener: TcpListener) -> Self {
        Self::accept(listener, |stream| Box::new(stream))
    }

    pub(crate) fn tls(listener: TcpListener, config: Arc<ServerConfig>) -> Self {
        Self::accept(listener, move |stream| {
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            Box::new(StreamOwned::new(session, stream))
        })
    }

    /// A server that lets connections in and reads nothing until [`Receiver::read_on`].
    pub(crate) fn stuck(listener: TcpListener) -> (Self, mpsc::Sender<()>) {
        let (open, permit) = mpsc::channel();
        let mut permit = Some(permit);
        let receiver = Self::accept(listener, move |stream| match permit.take() {
            Some(permit) => Box::new(Stuck { permit: Some(permit), stream }),
            None => Box::new(stream),
        });
        (receiver, open)
    }

    fn accept(
        listener: TcpListener,
        mut wrap: impl FnMut(TcpStream) -> Box<dyn Read + Send> + Send + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let (arrived, messages) = mpsc::channel();
        let (came, connections) = mpsc::channel();
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if came.send(stream.try_clone().unwrap()).is_err() {
                    // The test is over: the port closes.
                    return;
                }
                let (arrived, stream) = (arrived.clone(), wrap(stream));
                thread::spawn(move || frames(stream, &arrived));
            }
        });
        Self { address, messages, connections }
    }

    /// The next message.
    pub(crate) fn next(&self) -> Message {
        self.messages.recv_timeout(TEST_TIMEOUT).expect("no message arrives")
    }

    /// The next message with these words.
    pub(crate) fn until(&self, words: &str) -> Message {
        loop {
            let message = self.next();
            if message.text.contains(words) {
                return message;
            }
        }
    }

    /// Waits for a connection.
    pub(crate) fn connected(&self) -> TcpStream {
        self.connections.recv_timeout(TEST_TIMEOUT).expect("nobody connects")
    }

    /// Ends as a server that is stopped: no connection is left, and the port is closed.
    pub(crate) fn stop(self) -> SocketAddr {
        for connection in self.connections.try_iter() {
            let _ = connection.shutdown(Shutdown::Both);
        }
        let address = self.address;
        drop(self);
        // The accepting thread finds out with one more connection.
        drop(TcpStream::connect(address));
        let deadline = std::time::Instant::now() + TEST_TIMEOUT;
        while TcpStream::connect(address).is_ok() {
            assert!(std::time::Instant::now() < deadline, "the port stays open");
            thread::yield_now();
        }
        address
    }
}

/// Reads octet-counted frames until the end.
fn frames(mut stream: Box<dyn Read + Send>, arrived: &mpsc::Sender<Message>) {
    let read = |stream: &mut Box<dyn Read + Send>, bytes: &mut [u8]| stream.read_exact(bytes).is_ok();
    loop {
        let mut length = 0;
        loop {
            let mut digit = [0];
            if !read(&mut stream, &mut digit) {
                return;
            }
            match digit[0] {
                b' ' => break,
                digit @ b'0'..=b'9' => length = length * 10 + usize::from(digit - b'0'),
                other => panic!("{other} in a count of octets"),
            }
        }
        let mut message = vec![0; length];
        if !read(&mut stream, &mut message) || arrived.send(Message::parse(&message)).is_err() {
            return;
        }
    }
}

/// Reads nothing before it is let.
struct Stuck {
    permit: Option<mpsc::Receiver<()>>,
    stream: TcpStream,
}

impl Read for Stuck {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        if let Some(permit) = self.permit.take() {
            // Nobody is left to give the permit: everything is read.
            let _ = permit.recv();
        }
        self.stream.read(space)
    }
}

/// An authority of its own, in a file, and a server's certificate by it.
pub(crate) struct Authority {
    pub(crate) file: PathBuf,
    pub(crate) server: Arc<ServerConfig>,
}

impl Authority {
    pub(crate) fn new(name: &str, host: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let own = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&own, &issuer).unwrap();
        let file = std::env::temp_dir().join(format!("zone-log-{}-{name}.pem", std::process::id()));
        std::fs::File::create(&file).unwrap().write_all(root.pem().as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.serialize_der())),
            )
            .unwrap();
        Self { file, server: Arc::new(server) }
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}
