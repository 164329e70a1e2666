//! What the relays go by under a state, and which ports they serve.

use std::net::SocketAddr;
use std::rc::Rc;

use zone_channel::{ListenerInfo, Policy};
use zone_protocol::identity::Role;
use zone_protocol::provisioning::Provisioning;

use crate::config::Config;
use crate::relay::Wanted;
use crate::state::State;
use crate::tls::PortTicketKeys;

/// The rules of the relays; `None` before provisioning.
pub(crate) fn policy(config: &Config, state: &State, tickets: &PortTicketKeys) -> Option<Policy> {
    let document = &state.membership.as_ref()?.document;
    Some(Policy {
        zone: document.zone.clone(),
        name: document.name.clone(),
        identity: state.identity.clone(),
        trust: document.trust.clone(),
        tickets: tickets.relay.clone(),
        tls13: config.tls.tls13,
        allowed_networks: document.allowed_networks.clone(),
        balancers: config.balancer.networks.clone(),
        limits: config.limits_with(&document.limits),
        timeouts: config.timeouts.clone(),
        log: Some(config.log.level),
        on_stop: config.relay.on_stop,
    })
}

/// What the relays are to serve, by which rules; `None` before provisioning.
pub(crate) fn wanted(config: &Config, state: &State, tickets: &PortTicketKeys) -> Option<Wanted> {
    let membership = state.membership.as_ref()?;
    Some(Wanted {
        state: membership.id.clone(),
        ports: ports(&membership.document),
        policy: Rc::new(policy(config, state, tickets)?),
    })
}

/// Every address of both relay ports.
fn ports(document: &Provisioning) -> Vec<ListenerInfo> {
    let of = |role: Role| {
        let addresses = document.listen.of(role).into_iter().flatten();
        let port = document.ports.of(role).copied().unwrap_or_default();
        addresses.map(move |ip| ListenerInfo { role, address: SocketAddr::new(*ip, port) })
    };
    of(Role::Endpoint).chain(of(Role::ModuleServer)).collect()
}
