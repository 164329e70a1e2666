//! Rules for iptables-restore(8) and ip6tables-restore(8).

use std::fmt::Write as _;

use zone_firewall_protocol::Purpose;

use super::opening::Opening;
use crate::desired::Family;

/// Rules of chain INPUT that pass these openings, drop all others to these ports, and leave everything else alone.
pub(super) fn text(openings: &[Opening], ports: &[(Purpose, u16)], family: Family) -> String {
    let (program, name) = match family {
        Family::V4 => ("iptables-restore", "IPv4"),
        Family::V6 => ("ip6tables-restore", "IPv6"),
    };
    let mut text = format!(
        "# Zone Proxy: TCP ports of this host, {name}. '{program} --noflush FILE' adds the rules at the end of INPUT.\n\
         # Where yours drop before that, take the lines with ACCEPT in front of those.\n*filter\n"
    );
    for opening in openings.iter().filter(|opening| opening.family == family) {
        let by = opening.interface.as_ref().map(|name| format!("-i {name} "));
        let source = opening.source.map(|network| format!("-s {network} "));
        let destination = opening.destination.map(|address| format!("-d {address} "));
        let _ = writeln!(
            text,
            "-A INPUT {}{}{}-p tcp -m tcp --dport {} -m comment --comment \"Zone Proxy {}\" -j ACCEPT",
            source.unwrap_or_default(),
            destination.unwrap_or_default(),
            by.unwrap_or_default(),
            opening.port,
            opening.purpose
        );
    }
    for (purpose, port) in ports {
        let _ = writeln!(
            text,
            "-A INPUT ! -i lo -p tcp -m tcp --dport {port} --tcp-flags FIN,SYN,RST,ACK SYN \
             -m comment --comment \"Zone Proxy {purpose}, all others\" -j DROP"
        );
    }
    text + "COMMIT\n"
}
