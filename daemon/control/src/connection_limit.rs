//! Connection limits on port 17488, before TLS: how many connections, from where.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use zone_accept::{Limiter, Permit, Unauthenticated, UnauthenticatedLimit, source_of};
use zone_settings::Limits;

/// Counts connections in all and for each source.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConnectionLimit {
    total: Arc<Limiter<()>>,
    sources: Arc<Limiter<IpAddr>>,
    unauthenticated: Arc<UnauthenticatedLimit>,
}

/// Why a connection is refused before its handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is not from an allowed network.
    Network,
    /// `limits.control_connections` is reached.
    Total,
    /// `limits.control_connections_per_source` is reached.
    Source,
    /// `limits.control_unauthenticated_connections` is reached, by connections in the midst of their handshakes.
    Unauthenticated,
}

impl Refused {
    /// A short word for metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Total => "limit",
            Self::Source => "limit_per_source",
            Self::Unauthenticated => "unauthenticated_limit",
        }
    }

    /// One line for the log.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Network => "not from one of control.allowed_networks",
            Self::Total => "limits.control_connections is reached",
            Self::Source => "limits.control_connections_per_source is reached",
            Self::Unauthenticated => "limits.control_unauthenticated_connections is reached",
        }
    }
}

/// The permission of one connection to be open. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    _total: Permit<()>,
    _source: Permit<IpAddr>,
}

impl ConnectionLimit {
    /// A place for a connection that has not authenticated, or why there is none.
    pub(crate) fn newcomer(
        &self,
        from: IpAddr,
        networks: &[IpNet],
        limits: &Limits,
    ) -> Result<Unauthenticated, Refused> {
        let from = from.to_canonical();
        if !networks.is_empty() && !networks.iter().any(|network| network.contains(&from)) {
            return Err(Refused::Network);
        }
        // It takes its place among the others when it has authenticated; where there is none, a handshake is of no use.
        self.authenticated(from, limits)?;
        let place =
            self.unauthenticated.enter(from, limits.control_unauthenticated_connections, Instant::now());
        place.ok_or(Refused::Unauthenticated)
    }

    /// A permit for a connection that has authenticated, or why there is none.
    pub(crate) fn authenticated(&self, from: IpAddr, limits: &Limits) -> Result<ConnectionPermit, Refused> {
        let total = self.total.acquire((), limits.control_connections).ok_or(Refused::Total)?;
        let from = source_of(from.to_canonical());
        let source = self.sources.acquire(from, limits.control_connections_per_source);
        Ok(ConnectionPermit { _total: total, _source: source.ok_or(Refused::Source)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(total: usize, source: usize) -> Limits {
        Limits { control_connections: total, control_connections_per_source: source, ..Limits::default() }
    }

    #[test]
    fn a_source_that_has_all_its_permits_keeps_nobody_else_out() {
        let limit = ConnectionLimit::default();
        let limits = limits(10, 2);
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let held: Vec<_> = (0..2).map(|_| limit.authenticated(one, &limits).unwrap()).collect();
        assert_eq!(limit.authenticated(one, &limits).unwrap_err(), Refused::Source);
        assert_eq!(limit.newcomer(one, &[], &limits).unwrap_err(), Refused::Source);
        let mapped = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(limit.authenticated(mapped, &limits).unwrap_err(), Refused::Source);
        assert!(limit.authenticated("192.0.2.2".parse().unwrap(), &limits).is_ok());
        drop(held);
        assert!(limit.authenticated(one, &limits).is_ok());
    }

    #[test]
    fn addresses_of_one_ipv6_64_are_one_source() {
        let limit = ConnectionLimit::default();
        let limits = limits(10, 1);
        let _held = limit.authenticated("2001:db8::1".parse().unwrap(), &limits).unwrap();
        let neighbour = limit.authenticated("2001:db8::2".parse().unwrap(), &limits);
        assert_eq!(neighbour.unwrap_err(), Refused::Source);
        assert!(limit.authenticated("2001:db8:0:1::1".parse().unwrap(), &limits).is_ok());
    }

    #[test]
    fn the_total_and_the_networks_bound_everybody() {
        let limit = ConnectionLimit::default();
        let networks = ["10.0.0.0/8".parse().unwrap()];
        let limits = limits(1, 10);
        let inside: IpAddr = "10.1.2.3".parse().unwrap();
        let outside = limit.newcomer("192.0.2.1".parse().unwrap(), &networks, &limits);
        assert_eq!(outside.unwrap_err(), Refused::Network);
        let _newcomers: Vec<_> =
            (0..10).map(|_| limit.newcomer(inside, &networks, &limits).unwrap()).collect();
        let _held = limit.authenticated(inside, &limits).unwrap();
        assert_eq!(limit.newcomer(inside, &networks, &limits).unwrap_err(), Refused::Total);
    }
}
