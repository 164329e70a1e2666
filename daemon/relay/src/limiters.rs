//! What the relay counts against the limits of its policy: connections, sessions and event streams.

use std::net::IpAddr;
use std::sync::Arc;

use zone_accept::{Limiter, Permit, source_of};
use zone_protocol::identity::Label;
use zone_settings::Limits;

use crate::rules::Port;

/// A limit that is reached: how many there may be, and are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LimitReached(pub(crate) usize);

/// Counts what there is. The limits are given with each question, for a change of rules changes them.
#[derive(Debug, Default)]
pub(crate) struct Limiters {
    connections: Arc<Limiter<()>>,
    sources: Arc<Limiter<(Port, IpAddr)>>,
    endpoints: Arc<Limiter<Label>>,
    module_servers: Arc<Limiter<Label>>,
    sessions: Arc<Limiter<()>>,
    event_streams: Arc<Limiter<()>>,
}

/// The permits that a connection holds as long as it lives.
#[derive(Debug)]
#[expect(dead_code, reason = "permits are held, not read: dropping them gives them back")]
pub(crate) struct Permits {
    /// To be one of all connections.
    pub(crate) connection: Permit<()>,
    /// To be one of its source's.
    pub(crate) source: Permit<(Port, IpAddr)>,
    /// To be one of its identity's.
    pub(crate) identity: Permit<Label>,
}

impl Limiters {
    /// For a connection, whoever it is.
    pub(crate) fn connection(&self, limits: &Limits) -> Result<Permit<()>, LimitReached> {
        acquire(&self.connections, (), limits.connections)
    }

    /// For a connection from this address, which shares its limit with its neighbours (see [`source_of`]).
    pub(crate) fn source(
        &self,
        port: Port,
        address: IpAddr,
        limits: &Limits,
    ) -> Result<Permit<(Port, IpAddr)>, LimitReached> {
        let limit = match port {
            Port::Endpoint => limits.endpoint_connections_per_source,
            Port::ModuleServer => limits.module_server_connections_per_source,
        };
        acquire(&self.sources, (port, source_of(address)), limit)
    }

    /// For a connection of the one who showed a certificate of this name on this port.
    pub(crate) fn identity(
        &self,
        port: Port,
        name: &Label,
        limits: &Limits,
    ) -> Result<Permit<Label>, LimitReached> {
        match port {
            Port::Endpoint => acquire(&self.endpoints, name.clone(), limits.connections_per_endpoint),
            Port::ModuleServer => {
                acquire(&self.module_servers, name.clone(), limits.connections_per_module_server)
            }
        }
    }

    /// For a session, from its CONNECT on.
    pub(crate) fn session(&self, limits: &Limits) -> Result<Permit<()>, LimitReached> {
        acquire(&self.sessions, (), limits.sessions)
    }

    /// For a stream of presence events.
    pub(crate) fn event_stream(&self, limits: &Limits) -> Result<Permit<()>, LimitReached> {
        acquire(&self.event_streams, (), limits.event_streams)
    }
}

fn acquire<K: Eq + std::hash::Hash + Clone>(
    limiter: &Arc<Limiter<K>>,
    key: K,
    limit: usize,
) -> Result<Permit<K>, LimitReached> {
    limiter.acquire(key, limit).ok_or(LimitReached(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn neighbours_share_the_limit_of_their_source_and_the_ports_do_not() {
        let limiters = Limiters::default();
        let limits = Limits {
            endpoint_connections_per_source: 1,
            module_server_connections_per_source: 2,
            ..Limits::default()
        };
        let first = limiters.source(Port::Endpoint, address("2001:db8::1"), &limits).unwrap();
        let neighbour = limiters.source(Port::Endpoint, address("2001:db8::ffff:2"), &limits);
        assert_eq!(neighbour.unwrap_err(), LimitReached(1));
        let other_port = limiters.source(Port::ModuleServer, address("2001:db8::1"), &limits);
        let elsewhere = limiters.source(Port::Endpoint, address("2001:db8:0:1::1"), &limits);
        assert!(other_port.is_ok() && elsewhere.is_ok());
        drop(first);
        assert!(limiters.source(Port::Endpoint, address("2001:db8::ffff:2"), &limits).is_ok());
    }

    #[test]
    fn an_endpoint_and_a_module_server_of_one_name_are_counted_apart() {
        let limiters = Limiters::default();
        let limits =
            Limits { connections_per_endpoint: 1, connections_per_module_server: 1, ..Limits::default() };
        let name: Label = "host-7".parse().unwrap();
        let endpoint = limiters.identity(Port::Endpoint, &name, &limits);
        let module_server = limiters.identity(Port::ModuleServer, &name, &limits);
        assert!(endpoint.is_ok() && module_server.is_ok());
        assert_eq!(limiters.identity(Port::Endpoint, &name, &limits).unwrap_err(), LimitReached(1));
    }

    #[test]
    fn a_limit_that_was_lowered_lets_nobody_in_until_enough_have_left() {
        let limiters = Limiters::default();
        let limits = |connections| Limits { connections, ..Limits::default() };
        let (one, two) = (limiters.connection(&limits(2)).unwrap(), limiters.connection(&limits(2)).unwrap());
        assert_eq!(limiters.connection(&limits(1)).unwrap_err(), LimitReached(1));
        drop(one);
        assert_eq!(limiters.connection(&limits(1)).unwrap_err(), LimitReached(1));
        drop(two);
        assert!(limiters.connection(&limits(1)).is_ok());
    }
}
