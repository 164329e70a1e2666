//! From an accepted socket to a connection that is admitted and authorised.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Instant;

use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::connections::{Connections, Registered};
use crate::identity::{self, Connection, TLS_BUFFER};
use crate::metrics::Metrics;
use crate::proxy_protocol::{self, Opening, ProxyHeader};
use crate::rules::{Port, Rules};
use crate::switchboard::{Permits, Switchboard};
use crate::{park, routes};
use zone_accept::{HandshakeError, Limiter, LogBudget, Permit, source_of};
use zone_protocol::identity::Label;
use zone_protocol::tls::refusal::Refusal;

/// Log lines of one kind of refusal: so many at once, and so many a second.
const LOG_BURST: f64 = 50.0;
const LOG_PER_SECOND: f64 = 5.0;

/// Everything that the connections of a relay share.
#[derive(Debug)]
pub struct Context {
    rules: RwLock<Arc<Rules>>,
    /// Parks and calls.
    pub switchboard: Arc<Switchboard>,
    /// Who is connected.
    pub connections: Arc<Connections>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Keeps the log readable.
    pub log: LogBudget,
    total: Arc<Limiter<()>>,
    sources: Arc<Limiter<(Port, std::net::IpAddr)>>,
    endpoints: Arc<Limiter<Label>>,
    module_servers: Arc<Limiter<Label>>,
    /// Sessions, from their CONNECT on.
    pub sessions: Arc<Limiter<()>>,
    /// Streams of presence events.
    pub streams: Arc<Limiter<()>>,
    draining: AtomicBool,
    drain: Notify,
}

impl Context {
    /// For a relay that goes by these rules.
    pub fn new(rules: Rules, pairing: zone_pairing::Limits) -> Arc<Self> {
        let metrics = Arc::new(Metrics::new());
        Arc::new(Self {
            switchboard: Switchboard::new(pairing, rules.limits.event_backlog, Arc::clone(&metrics)),
            rules: RwLock::new(Arc::new(rules)),
            connections: Arc::default(),
            metrics,
            log: LogBudget::new(LOG_BURST, LOG_PER_SECOND),
            total: Arc::default(),
            sources: Arc::default(),
            endpoints: Arc::default(),
            module_servers: Arc::default(),
            sessions: Arc::default(),
            streams: Arc::default(),
            draining: AtomicBool::new(false),
            drain: Notify::new(),
        })
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// New rules from now on; connections that they do not admit end.
    pub fn set_rules(&self, rules: Rules, pairing: zone_pairing::Limits) {
        let rules = Arc::new(rules);
        let old = {
            let mut current = self.rules.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, Arc::clone(&rules))
        };
        self.switchboard.set_limits(pairing);
        let (ended, gone) = self.connections.enforce(&rules, &old, time::OffsetDateTime::now_utc());
        for endpoint in gone {
            self.switchboard.report(zone_pairing::Event::Revoke { endpoint: endpoint.shared() });
        }
        if ended > 0 {
            tracing::info!(target: "audit", connections = ended, "connections that the new rules do not admit were ended");
        }
    }

    /// No new sessions from now on; idle connections are let go.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.drain.notify_waiters();
        self.switchboard.report(zone_pairing::Event::Drain { over: self.rules().timeouts.release });
    }

    /// Whether [`Context::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Waits for [`Context::drain`]. Can be cancelled.
    pub async fn drained(&self) {
        let waiting = self.drain.notified();
        if !self.is_draining() {
            waiting.await;
        }
    }

    /// A place among all connections.
    pub fn place(&self) -> Option<Permit<()>> {
        self.total.acquire((), self.rules().limits.connections)
    }

    /// Counts and, within the budget, logs a connection that is refused.
    pub fn refuse(&self, port: Port, peer: SocketAddr, reason: &'static str, why: &dyn std::fmt::Display) {
        self.metrics.refused(port, reason);
        if let Some(swallowed) = self.log.allows(reason, Instant::now()) {
            tracing::warn!(port = port.label(), %peer, reason, swallowed, "refused: {why}");
        }
    }
}

/// A connection that passed its handshake, with all that goes with it.
#[derive(Debug)]
pub struct AdmittedConnection {
    /// The TLS connection.
    pub stream: Connection,
    /// Where it really comes from.
    pub peer: SocketAddr,
    /// Its entry among the connections.
    pub registered: Registered,
    /// Its share of the limits.
    pub permits: Permits,
}

/// Takes an accepted socket as far as its identity, then hands it on to a task that is no larger than it needs
/// to be: handshakes are large and short, parks small and long.
pub async fn serve(
    context: Arc<Context>,
    port: Port,
    mut stream: TcpStream,
    peer: SocketAddr,
    total: Permit<()>,
) {
    let rules = context.rules();
    let Some(peer) = real_source(&context, &rules, port, &mut stream, peer).await else { return };
    let most = match port {
        Port::Endpoint => rules.limits.endpoint_connections_per_source,
        Port::ModuleServer => rules.limits.module_server_connections_per_source,
    };
    let Some(source) = context.sources.acquire((port, source_of(peer.ip())), most) else {
        context.refuse(
            port,
            peer,
            "source_limit",
            &format!("{most} connections of this source are open already"),
        );
        return;
    };
    if !opens_with_tls(&context, &rules, port, &stream, peer).await {
        return;
    }
    // Small writes are whole messages here; waiting for more would delay keystrokes.
    let _ = stream.set_nodelay(true);
    let tls = Arc::clone(&rules.port(port).tls);
    let result = zone_accept::handshake(stream, tls, rules.timeouts.handshake, Some(TLS_BUFFER)).await;
    match result.map_err(Unknown::from).and_then(|stream| identify(&context, &rules, port, Box::new(stream)))
    {
        Ok((stream, registered, identity)) => {
            context.metrics.accepted(port);
            let admitted =
                AdmittedConnection { stream, peer, registered, permits: Permits { total, source, identity } };
            match port {
                Port::Endpoint => drop(tokio::spawn(park::serve(context, admitted))),
                Port::ModuleServer => drop(tokio::spawn(routes::serve(context, admitted))),
            }
        }
        Err(Unknown::Handshake(error)) => context.refuse(port, peer, error.label(), &error),
        Err(Unknown::Limit(name, most)) => {
            let why = format!("{name} has {most} connections open already");
            context.refuse(port, peer, "identity_limit", &why);
        }
    }
}

enum Unknown {
    Handshake(HandshakeError),
    Limit(Label, usize),
}

impl From<HandshakeError> for Unknown {
    fn from(error: HandshakeError) -> Self {
        Self::Handshake(error)
    }
}

impl Context {
    fn identity_places(&self, port: Port) -> (&Arc<Limiter<Label>>, usize) {
        let limits = &self.rules().limits;
        match port {
            Port::Endpoint => (&self.endpoints, limits.connections_per_endpoint),
            Port::ModuleServer => (&self.module_servers, limits.connections_per_module_server),
        }
    }
}

type Identified = (Connection, Registered, Permit<Label>);

/// `before` is what the handshake went by. Whatever has changed since is asked here.
fn identify(
    context: &Context,
    before: &Rules,
    port: Port,
    stream: Connection,
) -> Result<Identified, Unknown> {
    let (leaf, issuers) = identity::peer(&stream)?;
    let registered = context.connections.register(port, leaf, issuers.clone());
    let rules = context.rules();
    identity::authorise(&registered.leaf, &rules.port(port).admission)?;
    if rules.anchors != before.anchors {
        let removed = rules.removed_anchors(before, port);
        if issuers.iter().any(|issuer| removed.contains(issuer)) {
            let identity = registered.leaf.identity.clone();
            return Err(HandshakeError::from(Refusal::UnknownAuthority(identity)).into());
        }
    }
    let name = &registered.leaf.identity.name;
    let (permits, most) = context.identity_places(port);
    match permits.acquire(name.clone(), most) {
        Some(place) => Ok((stream, registered, place)),
        None => Err(Unknown::Limit(name.clone(), most)),
    }
}

/// Whether a connection may go on to its handshake, whose deadline bounds this too. Behind a balancer's header
/// another one is refused just as well.
async fn opens_with_tls(
    context: &Context,
    rules: &Rules,
    port: Port,
    stream: &TcpStream,
    peer: SocketAddr,
) -> bool {
    match timeout(rules.timeouts.handshake, proxy_protocol::peek(stream)).await {
        Ok(Opening::Bytes) => true,
        Ok(Opening::Probe) => {
            context.metrics.probed();
            false
        }
        Ok(Opening::Header) => {
            let why = "a PROXY protocol header from an address that is not in balancer.networks";
            context.refuse(port, peer, "proxy_header", &why);
            false
        }
        Err(_) => {
            let error = HandshakeError::TooSlow;
            context.refuse(port, peer, error.label(), &error);
            false
        }
    }
}

/// Where a connection really comes from, or `None` where it goes no further.
async fn real_source(
    context: &Context,
    rules: &Rules,
    port: Port,
    stream: &mut TcpStream,
    peer: SocketAddr,
) -> Option<SocketAddr> {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let balancer = port == Port::Endpoint && rules.is_balancer(peer.ip());
    if !balancer && !rules.allows(port, peer.ip()) {
        context.refuse(port, peer, "network", &"its network is not among the allowed ones");
        return None;
    }
    if !balancer {
        return Some(peer);
    }
    match proxy_protocol::read(stream, rules.timeouts.proxy_header).await {
        Ok(ProxyHeader::Source(real)) if rules.allows(port, real.ip()) => Some(real),
        Ok(ProxyHeader::Source(real)) => {
            context.refuse(port, real, "network", &"its network is not among the allowed ones");
            None
        }
        Ok(ProxyHeader::Probe) => {
            context.metrics.probed();
            None
        }
        Err(error) => {
            context.refuse(port, peer, "proxy_header", &error);
            None
        }
    }
}
