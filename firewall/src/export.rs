//! The desired rules in the languages of those who write them elsewhere: on a firewall in front of the host, or in rules of their
//! own on it. TCP ports alone, without the limit per source and without what leaves the host.
//!
//! Each export says the same: which openings of connections pass. Where a language is one of the host's own, the export also
//! drops all others to our ports, so that it is worth as much as our table.

mod csv;
mod firewalld;
mod iptables;
mod nft;
mod opening;
mod panos;

use std::net::IpAddr;

use zone_firewall_protocol::{ExportFormat, Purpose};

use crate::desired::{Desired, Family, Refusal};
use opening::openings;

/// The desired rules as text. Wildcards that a port listens on stand for `addresses`, unless that is empty. Refused where a
/// firewall in front of the host would have to open a port to all that is behind it.
pub(crate) fn export(
    desired: &Desired,
    format: ExportFormat,
    addresses: &[IpAddr],
) -> Result<String, Refusal> {
    let openings: Vec<_> = openings(desired, addresses);
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

#[cfg(test)]
mod tests;
