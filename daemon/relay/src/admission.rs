//! From an accepted socket to a connection that is known and authorised: its real source, the limits, its first
//! bytes, the handshake, and who it is.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use zone_accept::{HandshakeError, Permit, Unauthenticated, handshake};
use zone_protocol::identity::Label;

use crate::connection::{Connection, MAX_TLS_BUFFER_BYTES};
use crate::connections::Registered;
use crate::context::Context;
use crate::identity;
use crate::limiters::{LimitReached, Permits};
use crate::proxy_protocol::{self, Opening, ProxyHeader, ProxyProtocolError};
use crate::rules::{Port, Rules};

/// A connection that was just accepted, of which nothing is known.
#[derive(Debug)]
pub(crate) struct Newcomer {
    stream: TcpStream,
    peer: SocketAddr,
    unauthenticated: Unauthenticated,
    /// By then its handshake has ended, with all that comes before it.
    deadline: Instant,
}

/// A connection that passed its handshake, with all that goes with it.
#[derive(Debug)]
pub(crate) struct AdmittedConnection {
    /// The TLS connection.
    pub(crate) stream: Connection,
    /// The address that it really comes from.
    pub(crate) peer: SocketAddr,
    /// Its entry among the connections.
    pub(crate) registered: Registered,
    /// Its permits.
    pub(crate) permits: Permits,
}

/// Why an accepted connection goes no further.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotAdmitted {
    /// A balancer looked whether the port is open.
    #[error("a balancer's health probe")]
    Probe,
    /// It is refused.
    #[error("{peer}: {refusal}")]
    Refused {
        /// Where it comes from, as far as that was known.
        peer: SocketAddr,
        /// What was wrong, at which step.
        refusal: AdmissionRefusal,
    },
}

/// What was wrong with a connection, at the step that it came to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdmissionRefusal {
    /// There are as many connections as there may be, in all or on this port.
    #[error(transparent)]
    ConnectionLimit(LimitReached),
    /// There are as many connections that have not authenticated as there may be, each in the midst of its handshake.
    #[error(transparent)]
    UnauthenticatedLimit(LimitReached),
    /// It had not authenticated when another connection needed its place.
    #[error(
        "it made room for another connection before it had authenticated (limits.unauthenticated_connections)"
    )]
    Evicted,
    /// Its address is in none of the networks that may connect.
    #[error("its network is not among the allowed ones")]
    Network,
    /// A balancer did not say whose connection it is.
    #[error(transparent)]
    ProxyProtocol(#[from] ProxyProtocolError),
    /// There are as many connections of its source as there may be.
    #[error("{} connections of this source are open already", .0.limit)]
    SourceLimit(LimitReached),
    /// Only balancers may say where a connection comes from.
    #[error("a PROXY protocol header from an address that is not in balancer.networks")]
    UnexpectedProxyHeader,
    /// Its handshake failed, or it is nobody who may come in.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// There are as many connections of its identity as there may be.
    #[error("{name} has {limit} connections open already")]
    IdentityLimit {
        /// The name in its certificate.
        name: Label,
        /// How many it may have.
        limit: usize,
    },
}

impl AdmissionRefusal {
    /// A short word for metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::ConnectionLimit(_) => "limit",
            Self::UnauthenticatedLimit(_) => "unauthenticated_limit",
            Self::Evicted => "evicted",
            Self::Network => "network",
            Self::ProxyProtocol(_) | Self::UnexpectedProxyHeader => "proxy_header",
            Self::SourceLimit(_) => "source_limit",
            Self::Handshake(error) => error.label(),
            Self::IdentityLimit { .. } => "identity_limit",
        }
    }

    fn of(self, peer: SocketAddr) -> NotAdmitted {
        NotAdmitted::Refused { peer, refusal: self }
    }
}

impl Newcomer {
    /// A connection that was accepted now, if there is room for it, or will be soon.
    pub(crate) async fn new(
        context: &Context,
        port: Port,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Result<Self, AdmissionRefusal> {
        let (rules, now) = (context.rules(), Instant::now());
        let limiters = &context.limiters;
        // It takes its place among the others when it has authenticated; where there is none, a handshake is of no use.
        limiters.connection(port, &rules.limits).map_err(AdmissionRefusal::ConnectionLimit)?;
        let places = context.descriptors.unauthenticated(&rules.limits);
        let unauthenticated = limiters.unauthenticated(port, peer.ip(), places).await;
        let unauthenticated = unauthenticated.map_err(AdmissionRefusal::UnauthenticatedLimit)?;
        unauthenticated.look_for_first_byte(&stream, now.into_std());
        Ok(Self { stream, peer, unauthenticated, deadline: now + rules.timeouts.handshake })
    }
}

/// Takes a connection as far as its identity, unless it has to make room before.
pub(crate) async fn admit(
    context: &Context,
    port: Port,
    newcomer: Newcomer,
) -> Result<AdmittedConnection, NotAdmitted> {
    let Newcomer { stream, peer, unauthenticated, deadline } = newcomer;
    tokio::select! {
        biased;
        () = unauthenticated.evicted() => Err(AdmissionRefusal::Evicted.of(peer)),
        admitted = authenticate(context, port, stream, peer, &unauthenticated, deadline) => {
            if admitted.is_ok() {
                context.metrics.accepted(port);
            }
            admitted
        }
    }
}

async fn authenticate(
    context: &Context,
    port: Port,
    mut stream: TcpStream,
    peer: SocketAddr,
    unauthenticated: &Unauthenticated,
    deadline: Instant,
) -> Result<AdmittedConnection, NotAdmitted> {
    let rules = context.rules();
    let peer = real_source(&rules, port, &mut stream, peer, deadline).await?;
    unauthenticated.comes_from(peer.ip());
    let source = || context.limiters.source(port, peer.ip(), &rules.limits);
    source().map_err(|reached| AdmissionRefusal::SourceLimit(reached).of(peer))?;
    await_tls(&stream, peer, deadline).await?;
    unauthenticated.spoke(std::time::Instant::now());
    // Small writes are whole messages here; waiting for more would delay keystrokes.
    let _ = stream.set_nodelay(true);
    let tls = rules.port(port).tls.clone();
    let (limit, turns) = (Some(MAX_TLS_BUFFER_BYTES), &context.handshake_turns);
    let stream = handshake(stream, tls, deadline, limit, turns, unauthenticated).await;
    let (stream, registered, identity) = stream
        .map_err(AdmissionRefusal::from)
        .and_then(|stream| identify(context, &rules, port, Box::new(stream)))
        .map_err(|refusal| refusal.of(peer))?;
    let connection = context.limiters.connection(port, &rules.limits);
    let connection = connection.map_err(|reached| AdmissionRefusal::ConnectionLimit(reached).of(peer))?;
    let source = source().map_err(|reached| AdmissionRefusal::SourceLimit(reached).of(peer))?;
    let permits = Permits { connection, source, identity };
    Ok(AdmittedConnection { stream, peer, registered, permits })
}

/// The address that a connection really comes from.
async fn real_source(
    rules: &Rules,
    port: Port,
    stream: &mut TcpStream,
    peer: SocketAddr,
    deadline: Instant,
) -> Result<SocketAddr, NotAdmitted> {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let source = if proxy_protocol::is_due(rules, port, peer.ip()) {
        let deadline = deadline.min(Instant::now() + rules.timeouts.proxy_header);
        match proxy_protocol::read(stream, deadline).await {
            Ok(ProxyHeader::Source(source)) => source,
            Ok(ProxyHeader::Probe) => return Err(NotAdmitted::Probe),
            Err(error) => return Err(AdmissionRefusal::from(error).of(peer)),
        }
    } else {
        peer
    };
    if rules.allows(port, source.ip()) { Ok(source) } else { Err(AdmissionRefusal::Network.of(source)) }
}

/// Waits for the first bytes, which TLS is to judge. Behind a balancer's header another one is refused just as well.
async fn await_tls(stream: &TcpStream, peer: SocketAddr, deadline: Instant) -> Result<(), NotAdmitted> {
    match timeout_at(deadline, proxy_protocol::peek(stream)).await {
        Ok(Opening::Bytes) => Ok(()),
        Ok(Opening::Probe) => Err(NotAdmitted::Probe),
        Ok(Opening::Header) => Err(AdmissionRefusal::UnexpectedProxyHeader.of(peer)),
        Err(_) => Err(AdmissionRefusal::from(HandshakeError::TooSlow).of(peer)),
    }
}

type Identified = (Connection, Registered, Permit<Label>);

/// `before` is what the handshake went by. Whatever has changed since is asked here.
fn identify(
    context: &Context,
    before: &Rules,
    port: Port,
    stream: Connection,
) -> Result<Identified, AdmissionRefusal> {
    let (leaf, issuers) = identity::peer(&stream)?;
    let registered = context.connections.register(port, leaf, issuers.clone());
    let rules = context.rules();
    identity::authorise(&registered.leaf, &issuers, port, &rules, before)?;
    let name = &registered.leaf.identity.name;
    match context.limiters.identity(port, name, &rules.limits) {
        Ok(permit) => Ok((stream, registered, permit)),
        Err(LimitReached { limit, .. }) => Err(AdmissionRefusal::IdentityLimit { name: name.clone(), limit }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::ClientConfig;
    use rustls::pki_types::ServerName;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsConnector;
    use zone_channel::Policy;
    use zone_protocol::identity::Role;
    use zone_protocol::tls::config::client;
    use zone_protocol::tls::policy::Versions;
    use zone_protocol::tls::verifier::Expectation;

    use super::*;
    use crate::fixtures::{Authority, Certified, policy};

    /// A relay's context, and a socket for its endpoint port.
    struct Bench {
        context: Arc<Context>,
        listener: TcpListener,
        proxies: Authority,
        endpoints: Authority,
    }

    impl Bench {
        async fn start(change: impl FnOnce(&mut Policy)) -> Self {
            let (proxies, endpoints) = (Authority::new("proxies"), Authority::new("endpoints"));
            let mut policy = policy(&proxies, &[&endpoints], &[&Authority::new("module servers")]);
            policy.timeouts.handshake = 0.3;
            change(&mut policy);
            let context = Context::new(Rules::new(&policy).unwrap(), Rules::pairing(&policy));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            Self { context, listener, proxies, endpoints }
        }

        async fn connect(&self) -> (TcpStream, TcpStream, SocketAddr) {
            let dial = TcpStream::connect(self.listener.local_addr().unwrap());
            let (client, accepted) = tokio::join!(dial, self.listener.accept());
            let (stream, peer) = accepted.unwrap();
            (client.unwrap(), stream, peer)
        }

        async fn admit(
            &self,
            stream: TcpStream,
            peer: SocketAddr,
        ) -> Result<AdmittedConnection, NotAdmitted> {
            let newcomer = Newcomer::new(&self.context, Port::Endpoint, stream, peer).await.unwrap();
            admit(&self.context, Port::Endpoint, newcomer).await
        }

        /// What becomes of a connection that begins with these bytes and waits.
        async fn after(&self, bytes: &[u8]) -> NotAdmitted {
            let (mut client, stream, peer) = self.connect().await;
            client.write_all(bytes).await.unwrap();
            self.admit(stream, peer).await.unwrap_err()
        }

        fn client(&self, certified: &Certified) -> Arc<ClientConfig> {
            let anchors = [self.proxies.pem.clone()];
            let zone = "zone".parse().unwrap();
            let expectation =
                Expectation::new(zone, Role::ZoneProxy, None, &anchors, Versions::Tls12).unwrap();
            client(expectation, Some((&certified.chain, &certified.key)), Versions::Tls12).unwrap()
        }

        /// What becomes of an endpoint's connection.
        async fn endpoint(&self, id: &str) -> Result<AdmittedConnection, NotAdmitted> {
            let config = self.client(&self.endpoints.leaf(&format!("spiffe://zone/endpoint/{id}")));
            let (client, stream, peer) = self.connect().await;
            let name = ServerName::from(std::net::IpAddr::from([127, 0, 0, 1]));
            let dial = TlsConnector::from(config).connect(name, client);
            let (admitted, client) = tokio::join!(self.admit(stream, peer), dial);
            drop(client);
            admitted
        }
    }

    /// The word for metrics and the line for a person.
    fn refused(error: &NotAdmitted) -> (&'static str, String) {
        match error {
            NotAdmitted::Refused { refusal, .. } => (refusal.label(), refusal.to_string()),
            NotAdmitted::Probe => panic!("a probe"),
        }
    }

    #[tokio::test]
    async fn an_endpoint_is_known_by_its_certificate_and_leaves_no_trace() {
        let bench = Bench::start(|p| p.limits.endpoint_connections_per_source = 1).await;
        for _ in 0..2 {
            let admitted = bench.endpoint("host-7").await.unwrap();
            assert_eq!(admitted.registered.leaf.identity.name.as_str(), "host-7");
            assert_eq!(bench.context.connections.count(Port::Endpoint), 1);
            drop(admitted);
            assert_eq!(bench.context.connections.count(Port::Endpoint), 0);
        }
    }

    #[tokio::test]
    async fn one_source_gets_no_more_connections_than_its_limit_and_silent_ones_take_none_of_them() {
        let bench = Bench::start(|p| p.limits.endpoint_connections_per_source = 1).await;
        let (_client, stream, peer) = bench.connect().await;
        let context = Arc::clone(&bench.context);
        let newcomer = Newcomer::new(&context, Port::Endpoint, stream, peer).await.unwrap();
        let silent =
            tokio::spawn(async move { admit(&context, Port::Endpoint, newcomer).await.unwrap_err() });
        let first = bench.endpoint("host-7").await.unwrap();
        let error = bench.endpoint("host-8").await.unwrap_err();
        assert_eq!(refused(&error), ("source_limit", "1 connections of this source are open already".into()));
        assert_eq!(refused(&silent.await.unwrap()).0, "handshake_timeout");
        drop(first);
        bench.endpoint("host-8").await.unwrap();
    }

    #[tokio::test]
    async fn silent_connections_make_room_for_each_other_and_take_no_place_of_an_endpoint() {
        let bench = Bench::start(|p| {
            (p.limits.connections, p.limits.port_share_percent) = (1, 100);
            p.limits.unauthenticated_connections = 2;
            p.timeouts.handshake = 60.0;
        })
        .await;
        let mut silent = Vec::new();
        for _ in 0..5 {
            let (client, stream, peer) = bench.connect().await;
            let newcomer = Newcomer::new(&bench.context, Port::Endpoint, stream, peer).await.unwrap();
            let context = Arc::clone(&bench.context);
            let end = tokio::spawn(async move { admit(&context, Port::Endpoint, newcomer).await });
            silent.push((client, end));
        }
        let _endpoint = bench.endpoint("host-7").await.unwrap();
        for (_, end) in silent.drain(..4) {
            assert_eq!(refused(&end.await.unwrap().unwrap_err()).0, "evicted");
        }
        assert!(!silent[0].1.is_finished(), "the newest is left");
        let (_client, stream, peer) = bench.connect().await;
        let refusal = Newcomer::new(&bench.context, Port::Endpoint, stream, peer).await.unwrap_err();
        assert_eq!(refusal.to_string(), "1 are open already (limits.connections)");
    }

    /// A byte now and then, a PROXY header or a slow hello: none of it moves the deadline.
    #[tokio::test]
    async fn whatever_comes_before_the_end_of_a_handshake_is_within_one_deadline() {
        let bench = Bench::start(|p| {
            p.balancers = vec!["127.0.0.1/32".parse().unwrap()];
            p.timeouts.handshake = 1.0;
        })
        .await;
        let (mut client, stream, peer) = bench.connect().await;
        let began = Instant::now();
        let newcomer = Newcomer::new(&bench.context, Port::Endpoint, stream, peer).await.unwrap();
        let dribble = async move {
            let header = b"PROXY TCP4 203.0.113.7 192.0.2.1 4242 17486\r\n";
            for byte in header.iter().chain(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").chain(&[7; 500])
            {
                let _ = client.write_all(&[*byte]).await;
                tokio::time::sleep(std::time::Duration::from_millis(15)).await;
            }
        };
        let admitted = tokio::select! {
            admitted = admit(&bench.context, Port::Endpoint, newcomer) => admitted,
            () = dribble => panic!("it was let in for as long as it liked"),
        };
        assert_eq!(refused(&admitted.unwrap_err()).0, "handshake_timeout");
        assert!(began.elapsed() < std::time::Duration::from_secs(3), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn one_identity_gets_no_more_connections_than_its_limit_and_another_is_not_touched() {
        let bench = Bench::start(|p| p.limits.connections_per_endpoint = 1).await;
        let _first = bench.endpoint("host-7").await.unwrap();
        let error = bench.endpoint("host-7").await.unwrap_err();
        assert_eq!(refused(&error), ("identity_limit", "host-7 has 1 connections open already".into()));
        assert_eq!(bench.context.connections.count(Port::Endpoint), 1, "a refused one stays registered");
        bench.endpoint("host-8").await.unwrap();
    }

    #[tokio::test]
    async fn a_network_that_may_not_connect_is_refused_by_the_address_that_a_balancer_tells() {
        let allow = |p: &mut Policy| p.allowed_networks.endpoint = vec!["192.0.2.0/24".parse().unwrap()];
        let bench = Bench::start(allow).await;
        assert_eq!(refused(&bench.after(b"\x16").await).0, "network");
        let balanced = |p: &mut Policy| {
            allow(p);
            p.balancers = vec!["127.0.0.1/32".parse().unwrap()];
        };
        let bench = Bench::start(balanced).await;
        let error = bench.after(b"PROXY TCP4 203.0.113.7 192.0.2.1 4242 17486\r\n").await;
        assert_eq!(error.to_string(), "203.0.113.7:4242: its network is not among the allowed ones");
        let passed = bench.after(b"PROXY TCP4 192.0.2.7 192.0.2.1 4242 17486\r\nGET / HTTP/1.1\r\n").await;
        assert_eq!(refused(&passed).0, "tls");
        assert_eq!(refused(&bench.after(b"\x16\x03\x01\x00\x05abcdefghijkl").await).0, "proxy_header");
    }

    #[tokio::test]
    async fn only_a_balancer_may_send_a_proxy_header() {
        let bench = Bench::start(|_| {}).await;
        let error = bench.after(b"PROXY TCP4 203.0.113.7 192.0.2.1 4242 17486\r\n").await;
        assert_eq!(refused(&error).0, "proxy_header");
        assert!(error.to_string().contains("not in balancer.networks"), "{error}");
    }

    #[tokio::test]
    async fn a_connection_that_closes_before_its_first_byte_is_a_probe_and_no_refusal() {
        let bench = Bench::start(|_| {}).await;
        let (client, stream, peer) = bench.connect().await;
        drop(client);
        assert!(matches!(bench.admit(stream, peer).await, Err(NotAdmitted::Probe)));
    }
}
