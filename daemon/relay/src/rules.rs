//! The policy, made ready to be applied: server configurations, admission, networks and spans of time.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rustls::ServerConfig;
use rustls::server::ProducesTickets;
use zone_channel::Policy;
use zone_protocol::head::HeadLimits;
use zone_protocol::identity::{Label, Role};
use zone_protocol::tls::TlsError;
use zone_protocol::tls::certificate::{Anchor, NameHash, removed_anchors};
use zone_protocol::tls::config::{Leaves, server};
use zone_protocol::tls::policy::Versions;
use zone_protocol::tls::tickets::{PortTickets, TicketKeys};
use zone_protocol::tls::verifier::Admission;
use zone_protocol::trust::{Anchors, Retired};
use zone_settings::{Limits, seconds};

/// What one port goes by.
#[derive(Debug)]
pub(crate) struct PortRules {
    /// For the handshake.
    pub(crate) tls: Arc<ServerConfig>,
    /// Asked again after every handshake.
    pub(crate) admission: Arc<Admission>,
    /// Networks that may connect; empty means any.
    pub(crate) networks: Vec<IpNet>,
}

/// What the whole relay goes by. Replaced as one when the policy changes.
#[derive(Debug)]
pub(crate) struct Rules {
    /// The proxy's name, for `Proxy-Status`.
    pub(crate) name: Label,
    /// Who vouches for whom, to tell a change of it.
    pub(crate) anchors: Anchors,
    /// Anchors that were taken out and are to come back nowhere.
    retired: Vec<Retired>,
    /// For 17486.
    pub(crate) endpoint: PortRules,
    /// For 17487.
    pub(crate) module_server: PortRules,
    /// Where PROXY headers come from.
    pub(crate) balancers: Vec<IpNet>,
    /// Upper bounds.
    pub(crate) limits: Limits,
    /// Timeouts of time.
    pub(crate) timeouts: Timeouts,
    /// Of request and response heads.
    pub(crate) head: HeadLimits,
}

/// `zone_settings::Timeouts` as durations, as far as the relay needs them; each is described there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    pub(crate) proxy_header: Duration,
    pub(crate) handshake: Duration,
    pub(crate) head: Duration,
    pub(crate) idle_connection: Duration,
    pub(crate) ping_after: Duration,
    pub(crate) connect: Duration,
    pub(crate) session_idle: Duration,
    pub(crate) drain: Duration,
    pub(crate) release: Duration,
    pub(crate) hand_over: Duration,
    pub(crate) orphan: Duration,
}

impl Rules {
    /// Compiles a policy; fails where certificates, keys or anchors are unusable.
    pub(crate) fn new(policy: &Policy) -> Result<Self, TlsError> {
        let versions = if policy.tls13 { Versions::Tls12And13 } else { Versions::Tls12 };
        let identity = &policy.identity;
        let leaves = Leaves::from_pem(
            (&identity.rsa.chain, &identity.rsa.key),
            (&identity.ec.chain, &identity.ec.key),
            &versions.provider(),
        )?;
        let port = |role: Role, networks: &[IpNet], keys: &TicketKeys| -> Result<PortRules, TlsError> {
            let admission = Admission::new(policy.zone.clone(), role, &policy.trust, true, versions)?;
            let tickets = PortTickets::new(role.as_str(), keys)
                .ok_or_else(|| TlsError::Policy("the ticket keys are malformed".into()))?;
            let tickets: Arc<dyn ProducesTickets> = Arc::new(tickets);
            let tls = server(leaves.clone(), Some(Arc::clone(&admission)), Some(tickets), versions)?;
            Ok(PortRules { tls, admission, networks: networks.to_vec() })
        };
        let (networks, keys, timeouts) = (&policy.allowed_networks, &policy.tickets, &policy.timeouts);
        Ok(Self {
            name: policy.name.clone(),
            anchors: policy.trust.anchors.clone(),
            retired: policy.trust.retired.clone(),
            endpoint: port(Role::Endpoint, &networks.endpoint, &keys.endpoint)?,
            module_server: port(Role::ModuleServer, &networks.module_server, &keys.module_server)?,
            balancers: policy.balancers.clone(),
            limits: policy.limits.clone(),
            timeouts: Timeouts {
                proxy_header: seconds(timeouts.proxy_header),
                handshake: seconds(timeouts.handshake),
                head: seconds(timeouts.head),
                idle_connection: seconds(timeouts.idle_connection),
                ping_after: seconds(timeouts.ping_after),
                connect: seconds(timeouts.connect),
                session_idle: seconds(timeouts.session_idle),
                drain: seconds(timeouts.drain),
                release: seconds(timeouts.release),
                hand_over: seconds(timeouts.hand_over),
                orphan: seconds(timeouts.orphan),
            },
            head: HeadLimits { bytes: policy.limits.head_bytes, fields: policy.limits.head_fields },
        })
    }

    /// Of one of the two ports.
    pub(crate) fn port(&self, port: Port) -> &PortRules {
        match port {
            Port::Endpoint => &self.endpoint,
            Port::ModuleServer => &self.module_server,
        }
    }

    /// Who vouched for this port's callers under the rules `before` and does no more.
    pub(crate) fn removed_anchors(&self, before: &Self, port: Port) -> RemovedAnchors {
        let of = |anchors: &Anchors| match port {
            Port::Endpoint => anchors.endpoint.clone(),
            Port::ModuleServer => anchors.module_server.clone(),
        };
        let admission = &self.port(port).admission;
        let mut removed = RemovedAnchors::default();
        for anchor in removed_anchors(&of(&before.anchors), &of(&self.anchors)) {
            let retired =
                self.retired.iter().any(|r| r.fingerprint.eq_ignore_ascii_case(&anchor.fingerprint));
            if retired && !admission.denies(&anchor.certificate) {
                removed.retired.push(anchor);
            } else {
                removed.cut.insert(anchor.subject);
            }
        }
        removed
    }

    /// Whether this address may connect to this port at all.
    pub(crate) fn allows(&self, port: Port, address: IpAddr) -> bool {
        let networks = &self.port(port).networks;
        networks.is_empty() || contains(networks, address)
    }

    /// Whether a PROXY header is due from this address.
    pub(crate) fn is_balancer(&self, address: IpAddr) -> bool {
        contains(&self.balancers, address)
    }

    /// What the pairing goes by.
    pub(crate) fn pairing(policy: &Policy) -> zone_pairing::Limits {
        let (limits, timeouts) = (&policy.limits, &policy.timeouts);
        zone_pairing::Limits {
            parks_per_endpoint: limits.parks_per_endpoint,
            per_endpoint_sessions: limits.sessions_per_endpoint,
            waiting_per_endpoint: limits.waiting_per_endpoint,
            waiting_total: limits.waiting,
            endpoints: limits.endpoints,
            ping_after: seconds(timeouts.ping_after),
            pong_within: seconds(timeouts.pong),
            first_byte_within: seconds(timeouts.first_byte),
            answer_within: seconds(timeouts.answer),
            attempts: limits.attempts,
            remember_endpoint: seconds(timeouts.remember_endpoint),
            settle: seconds(timeouts.settle),
        }
    }
}

/// Anchors that were taken out. Nobody whom they vouch for is let in any more.
#[derive(Debug, Default)]
pub(crate) struct RemovedAnchors {
    /// The subjects of those whose sessions end as well.
    cut: HashSet<NameHash>,
    /// Those that are retired in an orderly way: a session that has begun goes on.
    retired: Vec<Anchor>,
}

impl RemovedAnchors {
    /// Whether a chain with these issuers may not come in any more.
    pub(crate) fn refuse(&self, issuers: &[NameHash]) -> bool {
        self.end(issuers) || self.retired_among(issuers).next().is_some()
    }

    /// Whether whoever showed a chain with these issuers is to go, sessions and all.
    pub(crate) fn end(&self, issuers: &[NameHash]) -> bool {
        issuers.iter().any(|issuer| self.cut.contains(issuer))
    }

    /// Those among these issuers after which a connection takes no further session.
    pub(crate) fn retired_among(&self, issuers: &[NameHash]) -> impl Iterator<Item = &Anchor> {
        self.retired.iter().filter(|anchor| issuers.contains(&anchor.subject))
    }
}

fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// One of the relay's two ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Port {
    /// 17486.
    Endpoint,
    /// 17487.
    ModuleServer,
}

impl Port {
    /// The port of a role; nobody else dials a relay.
    pub(crate) fn of(role: Role) -> Option<Self> {
        match role {
            Role::Endpoint => Some(Self::Endpoint),
            Role::ModuleServer => Some(Self::ModuleServer),
            _ => None,
        }
    }

    /// Who connects there.
    pub(crate) fn role(self) -> Role {
        match self {
            Self::Endpoint => Role::Endpoint,
            Self::ModuleServer => Role::ModuleServer,
        }
    }

    /// For logs and metrics.
    pub(crate) fn label(self) -> &'static str {
        self.role().as_str()
    }
}
