//! From an accepted socket to a connection that is known and authorised: its real source, the limits, its first
//! bytes, the handshake, and who it is.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::time::timeout;
use zone_accept::{HandshakeError, Permit, handshake};
use zone_protocol::identity::Label;

use crate::connection::{Connection, MAX_TLS_BUFFER_BYTES};
use crate::connections::Registered;
use crate::context::Context;
use crate::identity;
use crate::limiters::{LimitReached, Permits};
use crate::proxy_protocol::{self, Opening, ProxyHeader, ProxyProtocolError};
use crate::rules::{Port, Rules};

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
    /// There are as many connections as there may be in all.
    #[error("the limit for all connections is reached")]
    ConnectionLimit,
    /// Its address is in none of the networks that may connect.
    #[error("its network is not among the allowed ones")]
    Network,
    /// A balancer did not say whose connection it is.
    #[error(transparent)]
    ProxyProtocol(#[from] ProxyProtocolError),
    /// There are as many connections of its source as there may be.
    #[error("{0} connections of this source are open already")]
    SourceLimit(usize),
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
            Self::ConnectionLimit => "limit",
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

/// Takes an accepted socket as far as its identity. `connection` is its permit to be one of all connections.
pub(crate) async fn admit(
    context: &Context,
    port: Port,
    mut stream: TcpStream,
    peer: SocketAddr,
    connection: Permit<()>,
) -> Result<AdmittedConnection, NotAdmitted> {
    let rules = context.rules();
    let peer = real_source(&rules, port, &mut stream, peer).await?;
    let source = context.limiters.source(port, peer.ip(), &rules.limits);
    let source = source.map_err(|LimitReached(limit)| AdmissionRefusal::SourceLimit(limit).of(peer))?;
    await_tls(&rules, &stream, peer).await?;
    // Small writes are whole messages here; waiting for more would delay keystrokes.
    let _ = stream.set_nodelay(true);
    let tls = rules.port(port).tls.clone();
    let stream = handshake(stream, tls, rules.timeouts.handshake, Some(MAX_TLS_BUFFER_BYTES)).await;
    let (stream, registered, identity) = stream
        .map_err(AdmissionRefusal::from)
        .and_then(|stream| identify(context, &rules, port, Box::new(stream)))
        .map_err(|refusal| refusal.of(peer))?;
    context.metrics.accepted(port);
    Ok(AdmittedConnection { stream, peer, registered, permits: Permits { connection, source, identity } })
}

/// The address that a connection really comes from.
async fn real_source(
    rules: &Rules,
    port: Port,
    stream: &mut TcpStream,
    peer: SocketAddr,
) -> Result<SocketAddr, NotAdmitted> {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let balancer = port == Port::Endpoint && rules.is_balancer(peer.ip());
    let source = if balancer {
        match proxy_protocol::read(stream, rules.timeouts.proxy_header).await {
            Ok(ProxyHeader::Source(source)) => source,
            Ok(ProxyHeader::Probe) => return Err(NotAdmitted::Probe),
            Err(error) => return Err(AdmissionRefusal::from(error).of(peer)),
        }
    } else {
        peer
    };
    if rules.allows(port, source.ip()) { Ok(source) } else { Err(AdmissionRefusal::Network.of(source)) }
}

/// Waits for the first bytes, which TLS is to judge; the deadline of the handshake bounds this too. Behind a
/// balancer's header another one is refused just as well.
async fn await_tls(rules: &Rules, stream: &TcpStream, peer: SocketAddr) -> Result<(), NotAdmitted> {
    match timeout(rules.timeouts.handshake, proxy_protocol::peek(stream)).await {
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
        Err(LimitReached(limit)) => Err(AdmissionRefusal::IdentityLimit { name: name.clone(), limit }),
    }
}
