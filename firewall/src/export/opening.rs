//! What passes, in the one form that all languages are written from.

use std::net::IpAddr;

use ipnet::IpNet;
use zone_firewall_protocol::{PortRule, Purpose};

use crate::config::InterfaceName;
use crate::desired::{Desired, Family, listens, sources};

/// Openings of connections that pass, as fine as the least of the languages can tell them apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opening {
    /// What the port is for.
    pub(super) purpose: Purpose,
    /// The port that they go to.
    pub(super) port: u16,
    /// The family of their addresses.
    pub(super) family: Family,
    /// The device that they come in by; `None` for any.
    pub(super) interface: Option<InterfaceName>,
    /// The network that they come from; `None` for any of the family.
    pub(super) source: Option<IpNet>,
    /// The address that they go to; `None` for any of this host.
    pub(super) destination: Option<IpAddr>,
}

/// All that passes, port by port and family by family. Wildcards that a port listens on stand for `addresses`, unless that is
/// empty.
pub(super) fn openings(desired: &Desired, addresses: &[IpAddr]) -> Vec<Opening> {
    desired.open.iter().flat_map(|rule| of_port(desired, rule, addresses)).collect()
}

fn of_port(desired: &Desired, rule: &PortRule, addresses: &[IpAddr]) -> Vec<Opening> {
    let interfaces = or_any(desired.interfaces(rule).to_vec());
    let mut openings = Vec::new();
    for family in Family::ALL {
        let (Some(destinations), Some(sources)) = (listens(rule, family), sources(rule, family)) else {
            continue;
        };
        let destinations = if destinations.is_empty() && !addresses.is_empty() {
            addresses.iter().copied().filter(|address| Family::of(*address) == family).map(Some).collect()
        } else {
            or_any(destinations)
        };
        for source in or_any(sources) {
            for destination in &destinations {
                openings.extend(interfaces.iter().map(|interface| Opening {
                    purpose: rule.purpose,
                    port: rule.port,
                    family,
                    interface: interface.clone(),
                    source,
                    destination: *destination,
                }));
            }
        }
    }
    openings
}

/// An empty list means any.
fn or_any<T>(list: Vec<T>) -> Vec<Option<T>> {
    if list.is_empty() { vec![None] } else { list.into_iter().map(Some).collect() }
}
