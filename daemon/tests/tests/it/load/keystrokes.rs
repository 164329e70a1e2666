//! A keystroke beside copies: how long a small message takes there and back while other sessions move as much as they
//! can, and what moving costs. HAProxy does the same in the same run, where it is at hand.
//!
//! These are figures and no test of them: they are the machine's as much as the relay's. That nobody waits longer than a
//! turn is asserted by the order of events, in `daemon/relay/src/copy/turns.rs`.

use std::fs;
use std::future::Future;
use std::net::{SocketAddr, TcpStream as BlockingStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::unistd::{Pid, SysconfVar, sysconf};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use zone_endpoint::{Service, SessionStream, service_fn};
use zone_protocol::tls::policy::Versions;
use zone_tests::host::Host;
use zone_tests::process::Process;
use zone_tests::zone::Zone;
use zone_tests::{address, until};

use super::peers::{Inside, MESSAGE, echo, serving};

/// Sessions that copy.
const COPIES: u64 = 4;
/// How long each of the two is measured.
const MEASURED: Duration = Duration::from_secs(5);
/// From one keystroke's echo to the next keystroke.
const PAUSE: Duration = Duration::from_millis(5);
/// Of the relay and of HAProxy in turn, because the machine is not even.
const ROUNDS: usize = 3;

/// Prints p50 and p99 of a keystroke's echo beside four copies, and processor time for a GiB, of both.
#[test]
fn a_keystroke_beside_four_copies_is_timed_by_the_relay_and_by_haproxy() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let inside = Arc::new(Inside::of(&zone));
    let copied = Arc::new(AtomicU64::new(0));
    let relay = Relay::start(&host, &inside, &copied);
    let haproxy = HaProxy::start(&inside, &copied);
    println!("{COPIES} copies, and {MESSAGE} bytes there and back each {} ms", PAUSE.as_millis());
    println!("           p50 in us  p99 in us  echoes  MiB/s  processor ms for 1 GiB");
    for _ in 0..ROUNDS {
        relay.measure(&copied).print("relay");
        match &haproxy {
            Some(haproxy) => haproxy.measure(&copied).print("HAProxy"),
            None => println!("HAProxy    is not among the parts (ZONE_PARTS)"),
        }
    }
}

struct Figures {
    echoes: Vec<Duration>,
    mebibytes: u64,
    /// Of the process that joins, milliseconds.
    processor: u64,
}

impl Figures {
    fn print(mut self, name: &str) {
        self.echoes.sort();
        let at = |percent: usize| self.echoes[self.echoes.len() * percent / 100].as_micros();
        println!(
            "{name:10} {:>9} {:>10} {:>7} {:>6} {:>23}",
            at(50),
            at(99),
            self.echoes.len(),
            self.mebibytes / MEASURED.as_secs(),
            self.processor * 1024 / self.mebibytes,
        );
    }
}

/// What joins two connections: the relay or HAProxy.
trait Joins {
    /// Its process.
    fn pid(&self) -> Pid;

    /// Opens a session to whoever echoes or to whoever takes copies, and has it carried out in a thread of its own.
    fn open<T: Send + 'static, F: Future<Output = T>>(
        &self,
        to: To,
        work: impl FnOnce(Box<dyn Stream>) -> F + Send + 'static,
    ) -> JoinHandle<T>;

    /// Copies and types for [`MEASURED`].
    fn measure(&self, copied: &Arc<AtomicU64>) -> Figures {
        let over = Arc::new(AtomicBool::new(false));
        let copies: Vec<_> = (0..COPIES)
            .map(|_| {
                let over = Arc::clone(&over);
                self.open(To::Copies, |stream| copy(stream, over))
            })
            .collect();
        let typing = Arc::clone(&over);
        let before = copied.load(Ordering::SeqCst);
        until("the copies run", || copied.load(Ordering::SeqCst) > before + (64 << 20));
        let typist = self.open(To::Echo, |stream| type_on(stream, typing));
        let (bytes, processor) = (copied.load(Ordering::SeqCst), processor_time(self.pid()));
        thread::sleep(MEASURED);
        let mebibytes = (copied.load(Ordering::SeqCst) - bytes) >> 20;
        let processor = processor_time(self.pid()) - processor;
        over.store(true, Ordering::SeqCst);
        let echoes = typist.join().expect("the typist");
        for copy in copies {
            copy.join().expect("a copy");
        }
        Figures { echoes, mebibytes, processor }
    }
}

#[derive(Debug, Clone, Copy)]
enum To {
    Echo,
    Copies,
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

async fn copy(mut stream: Box<dyn Stream>, over: Arc<AtomicBool>) {
    let block = vec![0x5a; 64 << 10];
    while !over.load(Ordering::SeqCst) {
        stream.write_all(&block).await.expect("a copy goes on");
    }
}

async fn type_on(mut stream: Box<dyn Stream>, over: Arc<AtomicBool>) -> Vec<Duration> {
    let (sent, mut received) = ([0x61; MESSAGE], [0; MESSAGE]);
    let mut times = Vec::new();
    while !over.load(Ordering::SeqCst) {
        let began = Instant::now();
        stream.write_all(&sent).await.expect("a session goes on");
        stream.flush().await.expect("a session goes on");
        stream.read_exact(&mut received).await.expect("a session goes on");
        times.push(began.elapsed());
        // A person's pace, and no waiting for anything.
        tokio::time::sleep(PAUSE).await;
    }
    times
}

/// Takes whatever comes, and counts it.
fn sink(copied: &Arc<AtomicU64>) -> Arc<dyn Service> {
    let copied = Arc::clone(copied);
    service_fn(move |stream: SessionStream| {
        let copied = Arc::clone(&copied);
        async move { count(stream, &copied).await }
    })
}

async fn count(mut stream: impl AsyncRead + Unpin, copied: &AtomicU64) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            n => copied.fetch_add(n as u64, Ordering::SeqCst),
        };
    }
}

/// Runs something in a thread of its own, whose turn is the kernel's business: no peer here is to wait for another one.
fn in_a_thread<T: Send + 'static, F: Future<Output = T>>(
    work: impl FnOnce() -> F + Send + 'static,
) -> JoinHandle<T> {
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(work())
    })
}

/// What a process has used of all processors in milliseconds, proc(5).
fn processor_time(process: Pid) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("the process is there");
    let fields: Vec<_> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum();
    let a_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().expect("sysconf knows it");
    ticks * 1000 / u64::try_from(a_second).expect("some")
}

struct Relay {
    pid: Pid,
    inside: Arc<Inside>,
}

impl Relay {
    fn start(host: &Host, inside: &Arc<Inside>, copied: &Arc<AtomicU64>) -> Self {
        for (id, service, served) in [("typist", "echo", echo()), ("store", "sink", sink(copied))] {
            let endpoint = serving(inside.endpoint(host, id).with_parks(4), service, served);
            drop(in_a_thread(move || endpoint.run(std::future::pending())));
        }
        host.counts("both have parked", |counts| counts["endpoints"] == 2);
        Self { pid: host.relay(), inside: Arc::clone(inside) }
    }
}

impl Joins for Relay {
    fn pid(&self) -> Pid {
        self.pid
    }

    fn open<T: Send + 'static, F: Future<Output = T>>(
        &self,
        to: To,
        work: impl FnOnce(Box<dyn Stream>) -> F + Send + 'static,
    ) -> JoinHandle<T> {
        let inside = Arc::clone(&self.inside);
        in_a_thread(move || async move {
            let target = match to {
                To::Echo => "typist:echo",
                To::Copies => "store:sink",
            };
            work(Box::new(inside.session(target).await)).await
        })
    }
}

/// HAProxy with TLS of the same kind on both sides.
struct HaProxy {
    process: Process,
    client: Arc<ClientConfig>,
    ports: [SocketAddr; 2],
    _folder: tempfile::TempDir,
}

impl HaProxy {
    /// `None` where it is not at hand.
    fn start(inside: &Inside, copied: &Arc<AtomicU64>) -> Option<Self> {
        let program = PathBuf::from(std::env::var_os("ZONE_PARTS")?).join("haproxy/start-haproxy");
        if !program.is_file() {
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let (client, chain, key) = inside.pair();
        fs::write(folder.path().join("own.pem"), format!("{chain}{key}")).expect("our folder");
        let own = address();
        let ports = [17486, 17487].map(|port| SocketAddr::from((own, port)));
        let copied = Arc::clone(copied);
        let servers = [To::Echo, To::Copies].map(|to| serve(to, &chain, &key, Arc::clone(&copied)));
        let suite = "ECDHE-ECDSA-AES256-GCM-SHA384";
        let mut text = format!(
            "global\n  ssl-default-bind-ciphers {suite}\n  ssl-default-bind-options ssl-min-ver TLSv1.2 ssl-max-ver TLSv1.2\n\
             \x20 ssl-default-server-ciphers {suite}\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1m\n\
             \x20 timeout server 1m\n"
        );
        for (port, server) in ports.iter().zip(servers) {
            use std::fmt::Write as _;
            let certificate = folder.path().join("own.pem");
            writeln!(
                text,
                "listen on-{}\n  bind {port} ssl crt {}\n  server peer {server} ssl verify none ssl-max-ver TLSv1.2",
                port.port(),
                certificate.display()
            )
            .expect("text");
        }
        let config = folder.path().join("haproxy.cfg");
        fs::write(&config, text).expect("our folder");
        let process = Process::start(Command::new(program).args(["-db", "-f"]).arg(config));
        for port in ports {
            until(&format!("HAProxy serves:\n{}", process.said()), || BlockingStream::connect(port).is_ok());
        }
        Some(Self { process, client, ports, _folder: folder })
    }
}

impl Joins for HaProxy {
    fn pid(&self) -> Pid {
        self.process.pid()
    }

    fn open<T: Send + 'static, F: Future<Output = T>>(
        &self,
        to: To,
        work: impl FnOnce(Box<dyn Stream>) -> F + Send + 'static,
    ) -> JoinHandle<T> {
        let (client, port) = (TlsConnector::from(Arc::clone(&self.client)), self.ports[to as usize]);
        in_a_thread(move || async move {
            let tcp = TcpStream::connect(port).await.expect("HAProxy listens");
            tcp.set_nodelay(true).expect("a socket");
            let name = ServerName::from(port.ip());
            work(Box::new(client.connect(name, tcp).await.expect("a handshake"))).await
        })
    }
}

/// Serves one of the two behind HAProxy, in a thread of its own; where it listens.
fn serve(to: To, chain: &str, key: &str, copied: Arc<AtomicU64>) -> SocketAddr {
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
    let versions = Versions::Tls12;
    let config = ServerConfig::builder_with_provider(versions.provider())
        .with_protocol_versions(versions.protocol_versions())
        .expect("TLS 1.2")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate and its key");
    let (acceptor, listener) =
        (TlsAcceptor::from(Arc::new(config)), std::net::TcpListener::bind("127.0.0.1:0").expect("a port"));
    listener.set_nonblocking(true).expect("a socket");
    let port = listener.local_addr().expect("a port");
    drop(in_a_thread(move || async move {
        let listener = TcpListener::from_std(listener).expect("a socket");
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, copied) = (acceptor.clone(), Arc::clone(&copied));
            tokio::spawn(async move {
                tcp.set_nodelay(true)?;
                let mut stream = acceptor.accept(tcp).await?;
                match to {
                    To::Copies => count(stream, &copied).await,
                    To::Echo => loop {
                        let mut received = [0; MESSAGE];
                        stream.read_exact(&mut received).await?;
                        stream.write_all(&received).await?;
                        stream.flush().await?;
                    },
                }
            });
        }
    }));
    port
}
