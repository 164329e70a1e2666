//! A ruleset for nft(8): `nft -f FILE` loads it, and again in place of itself.

use std::fmt::Write as _;

use zone_firewall_protocol::Purpose;

use super::opening::Opening;

/// The table's name; not that of our own, which `zone-firewall` would take for damaged.
const TABLE: &str = "inet zone_proxy_ports";

/// A table that passes these openings, drops all others to these ports, and leaves everything else alone.
pub(super) fn text(openings: &[Opening], ports: &[(Purpose, u16)]) -> String {
    let mut text = format!(
        "# Zone Proxy: TCP ports of this host. 'nft -f FILE' loads it, and again in place of itself.\n\
         # An accept here opens nothing past a chain of yours that drops: take the lines with accept into that one.\n\
         table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n\tchain input {{\n\
         \t\ttype filter hook input priority filter; policy accept;\n\
         \t\tiifname \"lo\" accept\n\
         \t\ttcp flags & (fin | syn | rst | ack) != syn accept\n"
    );
    for opening in openings {
        // In a VRF a device's own name is the second one.
        let by = match &opening.interface {
            None => vec![String::new()],
            Some(name) => ["iifname", "meta sdifname"].map(|key| format!("{key} \"{name}\" ")).into(),
        };
        for by in by {
            let _ = writeln!(
                text,
                "\t\t{by}{}tcp dport {} accept comment \"Zone Proxy {}\"",
                addresses(opening),
                opening.port,
                opening.purpose
            );
        }
    }
    for (purpose, port) in ports {
        let _ = writeln!(text, "\t\ttcp dport {port} drop comment \"Zone Proxy {purpose}, all others\"");
    }
    text + "\t}\n}\n"
}

/// What is asked of the addresses, with a space behind it.
fn addresses(opening: &Opening) -> String {
    let header = opening.family.header();
    let source = opening.source.map(|network| format!("{header} saddr {network} "));
    let destination = opening.destination.map(|address| format!("{header} daddr {address} "));
    match (source, destination) {
        (None, None) => format!("meta nfproto {} ", opening.family.as_str()),
        (source, destination) => source.unwrap_or_default() + &destination.unwrap_or_default(),
    }
}
