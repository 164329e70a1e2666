//! The desired rules in the languages of those who write them elsewhere: on a firewall in front of the host, or in rules of their
//! own on it. TCP ports alone, without the limit per source and without what leaves the host.
//!
//! Each export says the same: which openings of connections pass. Where a language is one of the host's own, the export also
//! drops all others to our ports, so that it is worth as much as our table.

mod csv;
mod firewalld;
mod iptables;
mod nft;
mod panos;

use std::net::IpAddr;

use ipnet::IpNet;
use zone_firewall_protocol::{ExportFormat, PortRule, Purpose};

use crate::config::InterfaceName;
use crate::desired::{Desired, Family, Refusal, listens, sources};

/// Openings of connections that pass, as fine as the least of the languages can tell them apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Opening {
    /// What the port is for.
    purpose: Purpose,
    /// The port that they go to.
    port: u16,
    /// The family of their addresses.
    family: Family,
    /// The device that they come in by; `None` for any.
    interface: Option<InterfaceName>,
    /// The network that they come from; `None` for any of the family.
    source: Option<IpNet>,
    /// The address that they go to; `None` for any of this host.
    destination: Option<IpAddr>,
}

/// The desired rules as text. Wildcards that a port listens on stand for `addresses`, unless that is empty. Refused where a
/// firewall in front of the host would have to open a port to all that is behind it.
pub(crate) fn export(
    desired: &Desired,
    format: ExportFormat,
    addresses: &[IpAddr],
) -> Result<String, Refusal> {
    let openings: Vec<_> = desired.open.iter().flat_map(|rule| openings(desired, rule, addresses)).collect();
    if format == ExportFormat::Panos
        && let Some(anywhere) = openings.iter().find(|opening| opening.destination.is_none())
    {
        let port = anywhere.port;
        return Err(Refusal {
            why: format!(
                "port {port} listens on a wildcard, and a firewall in front would open it to all hosts behind it"
            ),
            help: "say by --address by which addresses others reach this host".to_owned(),
        });
    }
    Ok(match format {
        ExportFormat::Csv => csv::text(&openings),
        ExportFormat::Nft => nft::text(&openings, &ports(desired)),
        ExportFormat::Iptables => iptables::text(&openings, &ports(desired), Family::V4),
        ExportFormat::Ip6tables => iptables::text(&openings, &ports(desired), Family::V6),
        ExportFormat::Firewalld => firewalld::text(&openings),
        ExportFormat::Panos => panos::text(&openings),
    })
}

/// All ports of ours, each with what it is for; what is not open of them is shut.
fn ports(desired: &Desired) -> Vec<(Purpose, u16)> {
    let open = desired.open.iter().map(|rule| (rule.purpose, rule.port));
    let mut ports: Vec<_> = open.chain(desired.closed.iter().copied()).collect();
    ports.sort_by_key(|(_, port)| *port);
    ports
}

fn openings(desired: &Desired, rule: &PortRule, addresses: &[IpAddr]) -> Vec<Opening> {
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

#[cfg(test)]
mod tests;
