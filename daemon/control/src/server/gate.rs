//! Admission before TLS: how many connections, from where.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;

use ipnet::IpNet;
use zone_settings::Limits;

/// Counts connections in all and for each source.
#[derive(Debug, Clone, Default)]
pub struct Gate(Rc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    total: Cell<usize>,
    sources: RefCell<HashMap<IpAddr, usize>>,
}

/// Why a connection is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// Not from an allowed network.
    Network,
    /// `limits.control_connections`.
    Total,
    /// `limits.control_connections_per_source`.
    Source,
}

impl Closed {
    /// A short word for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Total => "limit",
            Self::Source => "limit_per_source",
        }
    }

    /// One line for the log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Network => "not from one of control.allowed_networks",
            Self::Total => "limits.control_connections is reached",
            Self::Source => "limits.control_connections_per_source is reached",
        }
    }
}

/// One connection's place; dropping it gives the place back.
#[derive(Debug)]
pub struct Place {
    counts: Rc<Counts>,
    source: IpAddr,
}

impl Gate {
    /// Lets a connection in, or says why not.
    pub fn admit(&self, from: IpAddr, networks: &[IpNet], limits: &Limits) -> Result<Place, Closed> {
        let from = from.to_canonical();
        if !networks.is_empty() && !networks.iter().any(|network| network.contains(&from)) {
            return Err(Closed::Network);
        }
        if self.0.total.get() >= limits.control_connections {
            return Err(Closed::Total);
        }
        let source = source(from);
        let mut sources = self.0.sources.borrow_mut();
        let count = sources.entry(source).or_default();
        if *count >= limits.control_connections_per_source {
            return Err(Closed::Source);
        }
        *count += 1;
        self.0.total.set(self.0.total.get() + 1);
        Ok(Place { counts: Rc::clone(&self.0), source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.counts.total.set(self.counts.total.get().saturating_sub(1));
        let mut sources = self.counts.sources.borrow_mut();
        if let Some(count) = sources.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                sources.remove(&self.source);
            }
        }
    }
}

/// An IPv4 address, or the /64 of an IPv6 one: what one source can hold by itself.
fn source(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(total: usize, source: usize) -> Limits {
        Limits { control_connections: total, control_connections_per_source: source, ..Limits::default() }
    }

    #[test]
    fn a_source_that_has_all_its_places_keeps_nobody_else_out() {
        let gate = Gate::default();
        let limits = limits(10, 2);
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let held: Vec<_> = (0..2).map(|_| gate.admit(one, &[], &limits).unwrap()).collect();
        assert_eq!(gate.admit(one, &[], &limits).unwrap_err(), Closed::Source);
        assert_eq!(
            gate.admit("::ffff:192.0.2.1".parse().unwrap(), &[], &limits).unwrap_err(),
            Closed::Source
        );
        assert!(gate.admit("192.0.2.2".parse().unwrap(), &[], &limits).is_ok());
        drop(held);
        assert!(gate.admit(one, &[], &limits).is_ok());
        assert!(gate.0.sources.borrow().is_empty());
    }

    #[test]
    fn addresses_of_one_ipv6_64_are_one_source() {
        let gate = Gate::default();
        let limits = limits(10, 1);
        let _held = gate.admit("2001:db8::1".parse().unwrap(), &[], &limits).unwrap();
        assert_eq!(gate.admit("2001:db8::2".parse().unwrap(), &[], &limits).unwrap_err(), Closed::Source);
        assert!(gate.admit("2001:db8:0:1::1".parse().unwrap(), &[], &limits).is_ok());
    }

    #[test]
    fn the_total_and_the_networks_bound_everybody() {
        let gate = Gate::default();
        let networks = ["10.0.0.0/8".parse().unwrap()];
        let limits = limits(1, 10);
        let inside: IpAddr = "10.1.2.3".parse().unwrap();
        assert_eq!(
            gate.admit("192.0.2.1".parse().unwrap(), &networks, &limits).unwrap_err(),
            Closed::Network
        );
        let _held = gate.admit(inside, &networks, &limits).unwrap();
        assert_eq!(gate.admit(inside, &networks, &limits).unwrap_err(), Closed::Total);
    }
}
