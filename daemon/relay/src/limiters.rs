//! What the relay counts against the limits of its policy: connections, sessions, waiting CONNECTs and event streams.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use zone_accept::{Limiter, Permit, Unauthenticated, UnauthenticatedLimit, source_of};
use zone_protocol::identity::Label;
use zone_settings::Limits;

use crate::rules::Port;

/// A limit that is reached: which, and how many there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{limit} are open already (limits.{key})")]
pub(crate) struct LimitReached {
    /// Its name among `limits`.
    pub(crate) key: &'static str,
    /// Its value.
    pub(crate) limit: usize,
}

/// Counts what there is. The limits are given with each question, for a change of rules changes them.
#[derive(Debug, Default)]
pub(crate) struct Limiters {
    connections: Arc<Limiter<()>>,
    ports: Arc<Limiter<Port>>,
    unauthenticated_endpoints: Arc<UnauthenticatedLimit>,
    unauthenticated_module_servers: Arc<UnauthenticatedLimit>,
    sources: Arc<Limiter<(Port, IpAddr)>>,
    endpoints: Arc<Limiter<Label>>,
    module_servers: Arc<Limiter<Label>>,
    sessions: Shared,
    waiting: Arc<Limiter<Label>>,
    event_streams: Shared,
    /// Sessions that relays carry whose place this one has taken.
    sessions_elsewhere: AtomicUsize,
}

/// To be one of all connections, and one of its port's.
#[derive(Debug)]
#[expect(dead_code, reason = "permits are held, not read: dropping them gives them back")]
pub(crate) struct ConnectionPermit {
    all: Permit<()>,
    port: Permit<Port>,
}

/// To be one of all things of a kind, and one of a Module Server's.
#[derive(Debug)]
#[expect(dead_code, reason = "permits are held, not read: dropping them gives them back")]
pub(crate) struct SharedPermit {
    all: Permit<()>,
    own: Permit<Label>,
}

/// The permits that a connection holds as long as it lives.
#[derive(Debug)]
#[expect(dead_code, reason = "permits are held, not read: dropping them gives them back")]
pub(crate) struct Permits {
    /// To be one of all connections.
    pub(crate) connection: ConnectionPermit,
    /// To be one of its source's.
    pub(crate) source: Permit<(Port, IpAddr)>,
    /// To be one of its identity's.
    pub(crate) identity: Permit<Label>,
}

impl Limiters {
    /// For a connection whose peer has authenticated.
    pub(crate) fn connection(&self, port: Port, limits: &Limits) -> Result<ConnectionPermit, LimitReached> {
        let elsewhere = self.elsewhere();
        let all = Limit::of("connections", limits.connections).less(2 * elsewhere);
        let share = Limit::of("port_share_percent", limits.connections_per_port()).less(elsewhere);
        Ok(ConnectionPermit {
            all: acquire(&self.connections, (), all)?,
            port: acquire(&self.ports, port, share)?,
        })
    }

    /// For a connection that has not authenticated, of so many on its port; another one may have to make room. Module Servers
    /// wait for a place, for many CONNECTs at the same time are no flood.
    pub(crate) async fn unauthenticated(
        &self,
        port: Port,
        address: IpAddr,
        limit: usize,
    ) -> Result<Unauthenticated, LimitReached> {
        match port {
            Port::Endpoint => {
                let reached = LimitReached { key: "unauthenticated_connections", limit };
                self.unauthenticated_endpoints.enter(address, limit, Instant::now()).ok_or(reached)
            }
            Port::ModuleServer => Ok(self.unauthenticated_module_servers.wait(address, limit).await),
        }
    }

    /// How many connections there are.
    pub(crate) fn connections(&self) -> usize {
        // Each permit holds the limiter that gave it.
        Arc::strong_count(&self.connections) - 1
    }

    /// For a connection from this address, which shares its limit with its neighbours (see [`source_of`]).
    pub(crate) fn source(
        &self,
        port: Port,
        address: IpAddr,
        limits: &Limits,
    ) -> Result<Permit<(Port, IpAddr)>, LimitReached> {
        let limit = match port {
            Port::Endpoint => {
                Limit::of("endpoint_connections_per_source", limits.endpoint_connections_per_source)
            }
            Port::ModuleServer => {
                Limit::of("module_server_connections_per_source", limits.module_server_connections_per_source)
            }
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
        let (limiter, limit) = match port {
            Port::Endpoint => {
                (&self.endpoints, Limit::of("connections_per_endpoint", limits.connections_per_endpoint))
            }
            Port::ModuleServer => {
                let limit = Limit::of("connections_per_module_server", limits.connections_per_module_server);
                (&self.module_servers, limit)
            }
        };
        acquire(limiter, name.clone(), limit)
    }

    /// For a session of this Module Server, from its CONNECT on.
    pub(crate) fn session(&self, caller: &Label, limits: &Limits) -> Result<SharedPermit, LimitReached> {
        let all = Limit::of("sessions", limits.sessions).less(self.elsewhere());
        let own = Limit::of("sessions_per_module_server", limits.sessions_per_module_server);
        self.sessions.acquire(caller, all, own)
    }

    /// So many sessions of other relays count as if they were here, each with its two connections.
    pub(crate) fn set_elsewhere(&self, sessions: usize) {
        self.sessions_elsewhere.store(sessions, Ordering::Relaxed);
    }

    fn elsewhere(&self) -> usize {
        self.sessions_elsewhere.load(Ordering::Relaxed)
    }

    /// For a CONNECT of this Module Server that has no session yet. How many wait in all, and for one endpoint, is counted
    /// where they wait.
    pub(crate) fn waiting(&self, caller: &Label, limits: &Limits) -> Result<Permit<Label>, LimitReached> {
        let own = Limit::of("waiting_per_module_server", limits.waiting_per_module_server);
        acquire(&self.waiting, caller.clone(), own)
    }

    /// For a stream of presence events to this Module Server.
    pub(crate) fn event_stream(&self, caller: &Label, limits: &Limits) -> Result<SharedPermit, LimitReached> {
        let own = Limit::of("event_streams_per_module_server", limits.event_streams_per_module_server);
        self.event_streams.acquire(caller, Limit::of("event_streams", limits.event_streams), own)
    }
}

/// Counts in all and for each Module Server, so that one of them leaves something for the others.
#[derive(Debug, Default)]
struct Shared {
    all: Arc<Limiter<()>>,
    each: Arc<Limiter<Label>>,
}

/// A limit with its name among `limits`, and how many may be held of it here.
#[derive(Debug, Clone, Copy)]
struct Limit {
    name: &'static str,
    limit: usize,
    here: usize,
}

impl Limit {
    fn of(name: &'static str, limit: usize) -> Self {
        Self { name, limit, here: limit }
    }

    /// The same where so many are held elsewhere.
    fn less(self, elsewhere: usize) -> Self {
        Self { here: self.limit.saturating_sub(elsewhere), ..self }
    }
}

impl Shared {
    fn acquire(&self, caller: &Label, all: Limit, each: Limit) -> Result<SharedPermit, LimitReached> {
        Ok(SharedPermit {
            all: acquire(&self.all, (), all)?,
            own: acquire(&self.each, caller.clone(), each)?,
        })
    }
}

fn acquire<K: Eq + std::hash::Hash + Clone>(
    limiter: &Arc<Limiter<K>>,
    key: K,
    limit: Limit,
) -> Result<Permit<K>, LimitReached> {
    let Limit { name, limit, here } = limit;
    limiter.acquire(key, here).ok_or(LimitReached { key: name, limit })
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
        assert_eq!(neighbour.unwrap_err(), LimitReached { key: "endpoint_connections_per_source", limit: 1 });
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
        assert_eq!(limiters.identity(Port::Endpoint, &name, &limits).unwrap_err().limit, 1);
    }

    #[test]
    fn sessions_that_another_relay_still_carries_count_with_their_connections() {
        let limiters = Limiters::default();
        let limits = Limits { sessions: 3, connections: 5, port_share_percent: 100, ..Limits::default() };
        let caller: Label = "inside".parse().unwrap();
        let session = || limiters.session(&caller, &limits);
        let connection = || limiters.connection(Port::Endpoint, &limits);
        limiters.set_elsewhere(2);
        let held = (session().unwrap(), connection().unwrap());
        assert_eq!(session().unwrap_err(), LimitReached { key: "sessions", limit: 3 });
        assert_eq!(connection().unwrap_err(), LimitReached { key: "connections", limit: 5 });
        limiters.set_elsewhere(1);
        assert!(session().is_ok() && connection().is_ok());
        drop(held);
    }

    #[test]
    fn a_limit_that_was_lowered_lets_nobody_in_until_enough_have_left() {
        let limiters = Limiters::default();
        let connect = |connections| {
            let limits = Limits { connections, port_share_percent: 100, ..Limits::default() };
            limiters.connection(Port::Endpoint, &limits)
        };
        let (one, two) = (connect(2).unwrap(), connect(2).unwrap());
        assert_eq!(connect(1).unwrap_err(), LimitReached { key: "connections", limit: 1 });
        drop(one);
        assert!(connect(1).is_err());
        drop(two);
        assert!(connect(1).is_ok());
    }

    #[test]
    fn a_port_that_has_its_share_leaves_the_rest_to_the_other() {
        let limiters = Limiters::default();
        let limits = Limits { connections: 8, ..Limits::default() };
        let endpoints: Vec<_> =
            std::iter::from_fn(|| limiters.connection(Port::Endpoint, &limits).ok()).collect();
        assert_eq!(endpoints.len(), 6);
        let reached = limiters.connection(Port::Endpoint, &limits).unwrap_err();
        assert_eq!(reached.to_string(), "6 are open already (limits.port_share_percent)");
        let module_servers: Vec<_> =
            std::iter::from_fn(|| limiters.connection(Port::ModuleServer, &limits).ok()).collect();
        assert_eq!(module_servers.len(), 2);
    }

    #[test]
    fn a_module_server_leaves_something_for_the_others() {
        let (limiters, limits) = (Limiters::default(), Limits::default());
        let name = |text: &str| text.parse::<Label>().unwrap();
        let (greedy, modest) = (name("greedy"), name("modest"));
        let sessions: Vec<_> = std::iter::from_fn(|| limiters.session(&greedy, &limits).ok()).collect();
        let waiting: Vec<_> = std::iter::from_fn(|| limiters.waiting(&greedy, &limits).ok()).collect();
        let streams: Vec<_> = std::iter::from_fn(|| limiters.event_stream(&greedy, &limits).ok()).collect();
        assert_eq!((sessions.len(), waiting.len(), streams.len()), (3_000, 768, 48));
        assert_eq!(limiters.session(&greedy, &limits).unwrap_err().key, "sessions_per_module_server");
        assert!(limiters.session(&modest, &limits).is_ok());
        assert!(
            limiters.waiting(&modest, &limits).is_ok() && limiters.event_stream(&modest, &limits).is_ok()
        );
    }
}
