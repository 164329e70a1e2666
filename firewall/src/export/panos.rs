//! Commands for the configuration mode of PAN-OS (`set`), for a firewall in front of the host.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use ipnet::IpNet;

use super::opening::Opening;
use crate::desired::Family;

/// Objects for addresses and services, and one security rule for each port and family. Each opening has its destination. Zones are `any`: which ones there are is
/// not known here. No line is a comment, since the command line knows none.
pub(super) fn text(openings: &[Opening]) -> String {
    let (mut objects, mut rules) = (BTreeSet::new(), String::new());
    for group in openings.chunk_by(|one, next| (one.port, one.family) == (next.port, next.family)) {
        let Some(first) = group.first() else { continue };
        let (port, purpose, family) = (first.port, first.purpose, first.family);
        objects.insert(format!("set service zone-proxy-tcp-{port} protocol tcp port {port}\n"));
        let mut named = |networks: BTreeSet<IpNet>| {
            let names = networks.into_iter().map(|network| {
                let name = object(network);
                objects.insert(format!("set address {name} ip-netmask {network}\n"));
                name
            });
            list(&names.collect::<Vec<_>>())
        };
        // The source is always named, so that a rule is about one family whatever it says of the destination.
        let source =
            named(group.iter().map(|opening| opening.source.unwrap_or_else(|| all(family))).collect());
        let destinations: BTreeSet<_> =
            group.iter().filter_map(|opening| opening.destination).map(IpNet::from).collect();
        let destination = named(destinations);
        let rule = format!("set rulebase security rules zone-proxy-{purpose}-{}", family.as_str());
        let _ = writeln!(
            rules,
            "{rule} from any to any source {source} destination {destination} application any \
             service zone-proxy-tcp-{port} action allow"
        );
        let devices: BTreeSet<_> = group.iter().filter_map(|opening| opening.interface.clone()).collect();
        if !devices.is_empty() {
            let names: Vec<_> = devices.iter().map(ToString::to_string).collect();
            let _ = writeln!(rules, "{rule} description \"The host takes it by {} only\"", names.join(", "));
        }
    }
    objects.into_iter().collect::<String>() + &rules
}

fn all(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::V4(ipnet::Ipv4Net::default()),
        Family::V6 => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

/// The name of the object for a network, of the characters that names may have, and different for each.
fn object(network: IpNet) -> String {
    format!("zone-proxy-{}", network.to_string().replace(':', "-").replace('/', "_"))
}

fn list(names: &[String]) -> String {
    match names {
        [one] => one.clone(),
        _ => format!("[ {} ]", names.join(" ")),
    }
}
