//! Whether the host's firewall lets the log reach its syslog server, as far as root's file says so: `output.allow` of
//! `firewall.toml` names all that this daemon may connect and send to.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use zone_firewall_protocol::{Destination, Transport};

use crate::config::{self, Log, Syslog};

/// Root's file, beside our own.
const FIREWALL_TOML: &str = "firewall.toml";
/// Which resolvers the C library asks (resolv.conf(5)).
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// In front of each line.
pub(crate) const PREFIX: &str = "note: ";
/// The port of resolvers.
const DNS_PORT: u16 = 53;

/// What root has to add before the log gets out, a line each; nothing where there is no such file, for then no rule of ours holds
/// the log back. `config` is the file that the settings are from.
pub(crate) fn advice(log: &Log, config: &Path) -> Vec<String> {
    if log.to != config::Destination::Syslog {
        return Vec::new();
    }
    let path = config.with_file_name(FIREWALL_TOML);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            return vec![format!(
                "{PREFIX}{} can't be read: {error}; see to it that output.allow names the syslog server",
                path.display()
            )];
        }
    };
    let allowed = match allowed(&text) {
        Ok(allowed) => allowed,
        Err(why) => {
            return vec![format!("{PREFIX}{}: {why}; 'zone-firewall plan' says more", path.display())];
        }
    };
    let resolvers = fs::read_to_string(RESOLV_CONF).map(|text| resolvers(&text)).unwrap_or_default();
    let told = missing(&log.syslog, &allowed, &resolvers);
    told.into_iter()
        .map(|(why, add)| {
            format!(
                "{PREFIX}{why}: add {add} to output.allow in {}, and run 'zone-firewall apply' as root",
                path.display()
            )
        })
        .collect()
}

/// `output.allow` of the text of root's file.
fn allowed(text: &str) -> Result<Vec<Destination>, String> {
    let table: toml::Table =
        text.parse().map_err(|error: toml::de::Error| error.message().replace('\n', ": "))?;
    let list = table.get("output").and_then(|section| section.get("allow"));
    let entries = list.and_then(toml::Value::as_array).into_iter().flatten();
    entries
        .map(|entry| {
            let text = entry.as_str().ok_or_else(|| format!("output.allow: {entry} is no text"))?;
            text.parse().map_err(|error| format!("output.allow: {error}"))
        })
        .collect()
}

/// The addresses after `nameserver`, as far as they are of other hosts.
fn resolvers(text: &str) -> Vec<IpAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok())?
    });
    named.filter(|address: &IpAddr| !address.is_loopback()).collect()
}

/// What is not allowed and has to be, each with what to add.
fn missing(syslog: &Syslog, allowed: &[Destination], resolvers: &[IpAddr]) -> Vec<(String, String)> {
    let transport = match syslog.transport {
        config::Transport::Tcp => Transport::Tcp,
        config::Transport::Udp => Transport::Udp,
    };
    let port = syslog.port;
    if let Ok(address) = syslog.host.parse::<IpAddr>() {
        let server = Destination { address: address.to_canonical(), port, transport };
        // Datagrams to this host are let through.
        let local = transport == Transport::Udp && address.is_loopback();
        return if local || allowed.contains(&server) {
            Vec::new()
        } else {
            vec![(
                format!("the host's firewall drops what goes to the syslog server {server}"),
                format!("\"{server}\""),
            )]
        };
    }
    let mut missing = Vec::new();
    if !allowed.iter().any(|one| (one.port, one.transport) == (port, transport)) {
        missing.push((
            format!(
                "the host's firewall drops what goes to the syslog server {}, port {port}/{}",
                syslog.host,
                transport.as_str()
            ),
            format!("each of its addresses as \"ADDRESS:{port}/{}\"", transport.as_str()),
        ));
    }
    for resolver in resolvers {
        let ways = [Transport::Udp, Transport::Tcp].map(|transport| Destination {
            address: resolver.to_canonical(),
            port: DNS_PORT,
            transport,
        });
        let lacks: Vec<_> =
            ways.iter().filter(|way| !allowed.contains(way)).map(|way| format!("\"{way}\"")).collect();
        if !lacks.is_empty() {
            missing.push((
                format!(
                    "{} is a name, and the host's firewall drops questions to the resolver {resolver} (unless /etc/hosts has \
                     the name, which needs none)",
                    syslog.host
                ),
                lacks.join(" and "),
            ));
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(host: &str, transport: config::Transport, allow: &[&str], resolver: &str) -> Vec<String> {
        let syslog = Syslog { host: host.to_owned(), port: 6514, transport, ..Syslog::default() };
        let allow: Vec<_> = allow.iter().map(|text| text.parse().unwrap()).collect();
        missing(&syslog, &allow, &resolvers(resolver)).into_iter().map(|(_, add)| add).collect()
    }

    #[test]
    fn a_server_by_address_has_to_be_allowed_with_its_port_and_transport() {
        use config::Transport::{Tcp, Udp};
        assert_eq!(told("10.0.0.5", Tcp, &[], ""), ["\"10.0.0.5:6514/tcp\""]);
        assert_eq!(told("fd00::5", Udp, &["10.0.0.5:6514/udp"], ""), ["\"[fd00::5]:6514/udp\""]);
        assert_eq!(told("10.0.0.5", Tcp, &["10.0.0.5:6514/udp"], "").len(), 1);
        assert!(told("10.0.0.5", Tcp, &["10.0.0.5:6514/tcp"], "nameserver 10.0.0.3\n").is_empty());
        assert!(told("127.0.0.1", Udp, &[], "").is_empty());
        assert_eq!(told("127.0.0.1", Tcp, &[], "").len(), 1);
    }

    #[test]
    fn a_server_by_name_needs_its_addresses_and_its_resolver_unless_that_is_on_this_host() {
        let resolver = "# comment\nsearch example\nnameserver 10.0.0.3\nnameserver 127.0.0.53\n";
        let named = |allow: &[&str], resolver| told("logs.example", config::Transport::Tcp, allow, resolver);
        assert_eq!(
            named(&[], resolver),
            ["each of its addresses as \"ADDRESS:6514/tcp\"", "\"10.0.0.3:53/udp\" and \"10.0.0.3:53/tcp\""]
        );
        assert_eq!(named(&["10.0.0.5:6514/tcp", "10.0.0.3:53/udp"], resolver), ["\"10.0.0.3:53/tcp\""]);
        assert!(named(&["10.0.0.5:6514/tcp"], "nameserver 127.0.0.53\n").is_empty());
    }

    #[test]
    fn a_wrong_entry_of_roots_file_is_named() {
        assert_eq!(allowed("[control]\nopen = true\n"), Ok(Vec::new()));
        assert!(
            allowed("[output]\nallow = [\"logs.example:1/tcp\"]\n").unwrap_err().contains("names a host")
        );
        assert!(allowed("[output]\nallow = [7]\n").unwrap_err().contains("7 is no text"));
    }
}
