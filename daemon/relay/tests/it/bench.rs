//! A running `zone-relay`, a small zone of its own, and raw clients for both ports.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use zone_channel::{
    Configure, FromRelay, Identity, KeyPair as PemPair, ListenerInfo, OnStop, Policy, Query, Receiver,
    RelayState, Reply, Sender, ToRelay,
};
use zone_protocol::head::{HeadLimits, RequestHead, ResponseHead, parse_request, parse_response};
use zone_protocol::identity::{Label, Role};
use zone_protocol::provisioning::{PerPort, RelayCounts};
use zone_protocol::tls::config::client;
use zone_protocol::tls::policy::Versions;
use zone_protocol::tls::tickets::TicketKeys;
use zone_protocol::tls::verifier::Expectation;
use zone_protocol::trust::{Anchors, Trust};
use zone_settings::{Limits, Timeouts};

/// Nothing that a test waits for takes longer, unless something is wrong.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) type Stream = TlsStream<TcpStream>;

/// An authority for one role.
pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A leaf for a SPIFFE id, valid from and to these offsets from now, in hours.
    pub(crate) fn leaf(&self, uri: &str, hours: (i64, i64)) -> Certified {
        self.leaf_with(&KeyPair::generate().unwrap(), uri, hours)
    }

    /// A leaf that is about to run out, and when it has.
    pub(crate) fn leaf_about_to_expire(&self, uri: &str) -> (Certified, time::OffsetDateTime) {
        let now = time::OffsetDateTime::now_utc();
        let until = now.truncate_to_second() + time::Duration::seconds(5);
        let key = KeyPair::generate().unwrap();
        (self.leaf_between(&key, uri, (now - time::Duration::hours(1), until)), until)
    }

    fn leaf_with(&self, key: &KeyPair, uri: &str, hours: (i64, i64)) -> Certified {
        let now = time::OffsetDateTime::now_utc();
        let at = |hours| now + time::Duration::hours(hours);
        self.leaf_between(key, uri, (at(hours.0), at(hours.1)))
    }

    fn leaf_between(
        &self,
        key: &KeyPair,
        uri: &str,
        validity: (time::OffsetDateTime, time::OffsetDateTime),
    ) -> Certified {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        (params.not_before, params.not_after) = validity;
        let certificate = params.signed_by(key, &self.issuer).unwrap();
        Certified { chain: certificate.pem(), key: key.serialize_pem() }
    }
}

/// A chain and its key, PEM.
#[derive(Clone)]
pub(crate) struct Certified {
    pub(crate) chain: String,
    pub(crate) key: String,
}

pub(crate) struct Bench {
    pub(crate) endpoints: Authority,
    pub(crate) module_servers: Authority,
    pub(crate) proxies: Authority,
    pub(crate) policy: Policy,
    pub(crate) endpoint_address: SocketAddr,
    pub(crate) module_address: SocketAddr,
    pub(crate) child: Child,
    pub(crate) to_relay: Sender<ToRelay>,
    pub(crate) from_relay: Receiver<FromRelay>,
    pub(crate) rendezvous: PathBuf,
    /// The writing end, where there is a lifeline.
    pub(crate) lifeline: Option<std::io::PipeWriter>,
    pub(crate) log: Arc<std::sync::Mutex<String>>,
    listeners: Vec<TcpListener>,
    next: u64,
    _directory: Directory,
}

/// The relay as an ordinary user, whom it must be started as; root's own files may be closed to that one, so that
/// it takes a copy of the program then.
/// The program, at a path where its user can start it, as that user.
pub(crate) fn program(directory: &Path) -> Command {
    let built = PathBuf::from(env!("CARGO_BIN_EXE_zone-relay"));
    if !nix::unistd::getuid().is_root() {
        return Command::new(built);
    }
    let open = |path: &Path| path.metadata().is_ok_and(|about| about.mode() & 0o001 != 0);
    let program = if built.ancestors().all(open) {
        built
    } else {
        let copy = directory.join("zone-relay");
        std::fs::copy(&built, &copy).unwrap();
        copy
    };
    let mut command = Command::new(program);
    as_relay(&mut command);
    command
}

/// Has a program run as the relay's user.
pub(crate) fn as_relay(command: &mut Command) {
    if nix::unistd::getuid().is_root() {
        let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        command.uid(nobody.uid.as_raw()).gid(nobody.gid.as_raw());
    }
}

struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Bench {
    /// A relay with short timeouts, as `change` alters them.
    pub(crate) async fn start(change: impl FnOnce(&mut Policy)) -> Self {
        Self::start_by(change, false, false).await
    }

    /// The same with a lifeline.
    pub(crate) async fn with_lifeline(change: impl FnOnce(&mut Policy)) -> Self {
        Self::start_by(change, true, false).await
    }

    /// The same in the place of another relay, which nobody plays.
    pub(crate) async fn taking_over(change: impl FnOnce(&mut Policy)) -> Self {
        Self::start_by(change, false, true).await
    }

    async fn start_by(change: impl FnOnce(&mut Policy), with_lifeline: bool, takes_over: bool) -> Self {
        let (endpoints, module_servers, proxies) =
            (Authority::new("endpoints"), Authority::new("module servers"), Authority::new("proxies"));
        let pair = |key: &KeyPair| {
            let certified = proxies.leaf_with(key, "spiffe://zone/zone-proxy/p1", (-1, 24));
            PemPair { chain: certified.chain, key: certified.key }
        };
        let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
        let keys = || TicketKeys::generate().unwrap();
        let mut policy = Policy {
            zone: label("zone"),
            name: label("p1"),
            identity: Identity { rsa: pair(&rsa), ec: pair(&KeyPair::generate().unwrap()) },
            trust: Trust::of(
                1,
                Anchors {
                    endpoint: vec![endpoints.pem.clone()],
                    module_server: vec![module_servers.pem.clone()],
                },
                Vec::new(),
            ),
            tickets: PerPort { endpoint: keys(), module_server: keys() },
            tls13: false,
            allowed_networks: PerPort { endpoint: Vec::new(), module_server: Vec::new() },
            balancers: Vec::new(),
            limits: Limits::default(),
            timeouts: Timeouts { settle: 0.001, ..Timeouts::default() },
            log: None,
            on_stop: OnStop::default(),
        };
        change(&mut policy);
        let directory = Directory(std::env::temp_dir().join(format!("zone-relay-{}", uuid::Uuid::new_v4())));
        std::fs::create_dir(&directory.0).unwrap();
        let rendezvous = directory.0.join("relay.sock");
        let listeners: Vec<_> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = program(&directory.0);
        let mut child = command
            .env("ZONE_LOG", "debug")
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = collect(child.stderr.take().unwrap());
        let (to_relay, from_relay) = zone_channel::pair(ours.into()).unwrap();
        let mut bench = Self {
            endpoint_address: listeners[0].local_addr().unwrap(),
            module_address: listeners[1].local_addr().unwrap(),
            endpoints,
            module_servers,
            proxies,
            policy,
            child,
            to_relay,
            from_relay,
            rendezvous,
            lifeline: None,
            log,
            listeners,
            next: 0,
            _directory: directory,
        };
        assert!(matches!(bench.hear().await, FromRelay::Hello { state: RelayState::Fresh, .. }));
        let unix = UnixListener::bind(&bench.rendezvous).unwrap();
        let configure = Configure {
            generation: 1,
            state: "000002".into(),
            control_uid: nix::unistd::getuid().as_raw(),
            listeners: vec![
                ListenerInfo { role: Role::Endpoint, address: bench.endpoint_address },
                ListenerInfo { role: Role::ModuleServer, address: bench.module_address },
            ],
            lifeline: with_lifeline,
            notes: false,
            takes_over,
            policy: bench.policy.clone(),
        };
        let mut descriptors = vec![bench.listeners[0].as_fd(), bench.listeners[1].as_fd(), unix.as_fd()];
        let (reader, writer) = std::io::pipe().unwrap();
        if with_lifeline {
            descriptors.push(reader.as_fd());
        }
        bench.lifeline = with_lifeline.then_some(writer);
        bench.to_relay.send(&ToRelay::Configure(Box::new(configure)), &descriptors).await.unwrap();
        assert!(matches!(bench.hear().await, FromRelay::Done(RelayState::Ready)));
        bench.tell(ToRelay::Activate).await;
        bench
    }

    /// Sends a message that is answered with "done".
    pub(crate) async fn tell(&mut self, message: ToRelay) {
        self.to_relay.send(&message, &[]).await.unwrap();
        let answer = self.hear().await;
        assert!(matches!(answer, FromRelay::Done(_)), "{answer:?}");
    }

    pub(crate) async fn hear(&mut self) -> FromRelay {
        timeout(TEST_TIMEOUT, self.from_relay.receive()).await.expect("the relay says nothing").unwrap().0
    }

    /// Closes both ports, as control does, for every process that holds them.
    pub(crate) fn close_listeners(&self) {
        for listener in &self.listeners {
            socket2::SockRef::from(listener).shutdown(std::net::Shutdown::Both).unwrap();
        }
    }

    /// Sends the policy as it stands now.
    pub(crate) async fn push_policy(&mut self) {
        self.tell(ToRelay::Policy(Box::new(self.policy.clone()))).await;
    }

    async fn ask(&mut self, query: Query) -> Reply {
        self.next += 1;
        let id = self.next;
        self.to_relay.send(&ToRelay::Ask { id, query }, &[]).await.unwrap();
        match self.hear().await {
            FromRelay::Reply { id: answered, reply } if answered == id => reply,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn counts(&mut self) -> RelayCounts {
        match self.ask(Query::Counts).await {
            Reply::Counts(counts) => counts,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn metrics(&mut self) -> String {
        match self.ask(Query::Metrics).await {
            Reply::Metrics(text) => text,
            other => panic!("{other:?}"),
        }
    }

    /// Polls the counts until they are as wanted: the relay tells nobody of its own accord.
    pub(crate) async fn until(&mut self, what: &str, wanted: impl Fn(&RelayCounts) -> bool) {
        let deadline = tokio::time::Instant::now() + TEST_TIMEOUT;
        loop {
            let counts = self.counts().await;
            if wanted(&counts) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "never {what}: {counts:?}\n{}", self.log());
            tokio::task::yield_now().await;
        }
    }

    /// Waits for a line of the log.
    pub(crate) async fn logged(&self, words: &str) {
        let deadline = tokio::time::Instant::now() + TEST_TIMEOUT;
        while !self.log().contains(words) {
            assert!(tokio::time::Instant::now() < deadline, "never logged '{words}':\n{}", self.log());
            tokio::task::yield_now().await;
        }
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn endpoint(&self, id: &str) -> Certified {
        self.endpoints.leaf(&format!("spiffe://zone/endpoint/{id}"), (-1, 24))
    }

    pub(crate) fn module_server(&self, name: &str) -> Certified {
        self.module_servers.leaf(&format!("spiffe://zone/module-server/{name}"), (-1, 24))
    }

    /// A client configuration that shows this certificate, with tickets of its own.
    pub(crate) fn client(&self, certified: &Certified) -> Arc<ClientConfig> {
        let anchors = [self.proxies.pem.clone()];
        let expectation =
            Expectation::new(label("zone"), Role::ZoneProxy, None, &anchors, Versions::Tls12).unwrap();
        client(expectation, Some((&certified.chain, &certified.key)), Versions::Tls12).unwrap()
    }

    pub(crate) async fn dial_endpoint_port(&self, certified: &Certified) -> std::io::Result<Stream> {
        dial(self.endpoint_address, self.client(certified), None).await
    }

    pub(crate) async fn dial_module_port(&self, certified: &Certified) -> std::io::Result<Stream> {
        dial(self.module_address, self.client(certified), None).await
    }

    /// A park of an endpoint, from its handshake to the 101.
    pub(crate) async fn park(&self, id: &str) -> Parked {
        self.park_as(id, 7).await
    }

    pub(crate) async fn park_as(&self, id: &str, instance: u128) -> Parked {
        let stream = self.dial_endpoint_port(&self.endpoint(id)).await.unwrap();
        let mut parked = Parked { stream, bytes: Vec::new() };
        parked.send(&park_request(instance)).await;
        assert_eq!(parked.response().await.status, 101);
        parked
    }

    /// A Module Server's connection that has sent a CONNECT.
    pub(crate) async fn call(&self, target: &str) -> Parked {
        let stream = self.dial_module_port(&self.module_server("inside")).await.unwrap();
        let mut caller = Parked { stream, bytes: Vec::new() };
        caller.send(&connect_request(target)).await;
        caller
    }

    /// A session over a fresh park: caller, endpoint.
    pub(crate) async fn session(&self, id: &str) -> (Parked, Parked) {
        let mut endpoint = self.park(id).await;
        let mut caller = self.call(&format!("{id}:ssh")).await;
        assert_eq!(endpoint.request().await.method, "CONNECT");
        endpoint.send(ACCEPT).await;
        assert_eq!(caller.response().await.status, 200);
        (caller, endpoint)
    }
}

pub(crate) const ACCEPT: &str = "HTTP/1.1 200 OK\r\nZone-End-To-End: off\r\n\r\n";

pub(crate) fn park_request(instance: u128) -> String {
    format!(
        "GET /v1/park HTTP/1.1\r\nHost: p1\r\nConnection: Upgrade\r\nUpgrade: ptth/1\r\nZone-Instance: {instance:032x}\r\n\r\n"
    )
}

pub(crate) fn connect_request(target: &str) -> String {
    format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")
}

pub(crate) fn label(text: &str) -> Label {
    text.parse().unwrap()
}

pub(crate) async fn dial(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    from: Option<IpAddr>,
) -> std::io::Result<Stream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(from) = from {
        socket.bind(SocketAddr::new(from, 0))?;
    }
    let stream = socket.connect(address).await?;
    let name = rustls::pki_types::ServerName::from(address.ip());
    timeout(TEST_TIMEOUT, TlsConnector::from(config).connect(name, stream)).await.expect("no handshake")
}

/// A raw client on either port.
pub(crate) struct Parked {
    pub(crate) stream: Stream,
    pub(crate) bytes: Vec<u8>,
}

impl Parked {
    pub(crate) async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Reads more; 0 at the end. An error is an end without `close_notify`.
    pub(crate) async fn more(&mut self) -> std::io::Result<usize> {
        timeout(TEST_TIMEOUT, self.stream.read_buf(&mut self.bytes)).await.expect("nothing came")
    }

    pub(crate) async fn response(&mut self) -> ResponseHead {
        loop {
            if let Some((head, length)) = parse_response(&self.bytes, HeadLimits::default()).unwrap() {
                self.bytes.drain(..length);
                return head;
            }
            assert_ne!(self.more().await.unwrap(), 0, "closed instead of an answer");
        }
    }

    pub(crate) async fn request(&mut self) -> RequestHead {
        loop {
            if let Some((head, length)) = parse_request(&self.bytes, HeadLimits::default()).unwrap() {
                self.bytes.drain(..length);
                return head;
            }
            assert_ne!(self.more().await.unwrap(), 0, "closed instead of a request");
        }
    }

    pub(crate) async fn exactly(&mut self, text: &[u8]) {
        while self.bytes.len() < text.len() {
            assert_ne!(
                self.more().await.unwrap(),
                0,
                "closed after {:?}",
                String::from_utf8_lossy(&self.bytes)
            );
        }
        assert_eq!(self.bytes.drain(..text.len()).collect::<Vec<_>>(), text);
    }

    /// Reads to the end: what came, and whether the end was clean.
    pub(crate) async fn end(&mut self) -> (Vec<u8>, bool) {
        loop {
            match self.more().await {
                Ok(0) => return (std::mem::take(&mut self.bytes), true),
                Ok(_) => {}
                Err(_) => return (std::mem::take(&mut self.bytes), false),
            }
        }
    }
}

fn collect(mut stderr: std::process::ChildStderr) -> Arc<std::sync::Mutex<String>> {
    let log = Arc::new(std::sync::Mutex::new(String::new()));
    let into = Arc::clone(&log);
    std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(n @ 1..) = std::io::Read::read(&mut stderr, &mut chunk) {
            into.lock().unwrap().push_str(&String::from_utf8_lossy(&chunk[..n]));
        }
    });
    log
}
