//! Who listens on TCP ports of this host, as the kernel has it (proc(5), `/proc/net/tcp`).

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zone_firewall_protocol::{Finding, FindingKind, Level, PortRule};

use crate::desired::Refusal;

/// The state of a listening socket (TCP_LISTEN, include/net/tcp_states.h).
const LISTEN: &str = "0A";
/// Where sockets are listed; the second one is absent where IPv6 is switched off.
const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];

/// A listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listener {
    /// Its address; a wildcard stands for all of its family.
    pub(crate) address: IpAddr,
    /// Its port.
    pub(crate) port: u16,
    /// The user it belongs to.
    pub(crate) uid: u32,
}

/// All of them, in this network namespace.
pub(crate) fn listeners() -> io::Result<Vec<Listener>> {
    let mut found = Vec::new();
    for table in TABLES {
        match fs::read_to_string(table) {
            Ok(text) => found.extend(text.lines().filter_map(parse)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Refuses a port that is not listened on, on each of its addresses, by one of `users`.
pub(crate) fn all_listen(ports: &[PortRule], listeners: &[Listener], users: &[u32]) -> Result<(), Refusal> {
    for rule in ports {
        for address in &rule.listen {
            let here = on(listeners, *address, rule.port);
            if here.iter().any(|listener| users.contains(&listener.uid)) {
                continue;
            }
            let help = "it is opened only while zone-proxy or zone-relay listens there";
            let who = match here.first() {
                Some(other) => {
                    format!("user id {} listens there, which is neither zone-proxy nor zone-relay", other.uid)
                }
                None => "nobody listens there".to_owned(),
            };
            return Err(Refusal {
                why: format!("port {} on {address} is not opened: {who}", rule.port),
                help: help.to_owned(),
            });
        }
    }
    Ok(())
}

/// Open ports that nobody listens on.
pub(crate) fn not_listening(ports: &[PortRule], listeners: &[Listener]) -> Vec<Finding> {
    let addresses = ports.iter().flat_map(|rule| rule.listen.iter().map(move |address| (rule, *address)));
    let silent = addresses.filter(|(rule, address)| on(listeners, *address, rule.port).is_empty());
    silent
        .map(|(rule, address)| Finding {
            id: format!("{}:{}:not-listening:{address}", Level::Closed, rule.port),
            level: Level::Closed,
            kind: FindingKind::NotListening,
            port: Some(rule.port),
            what: format!("port {} ({}) is open, and nothing listens on {address}", rule.port, rule.purpose),
            help: "start zone-proxy, or close the port".to_owned(),
        })
        .collect()
}

/// Those that take connections to an address, the wildcard of its family among them.
fn on(listeners: &[Listener], address: IpAddr, port: u16) -> Vec<Listener> {
    let wildcard: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let takes = |listener: &&Listener| {
        listener.port == port && (listener.address == address || listener.address == wildcard)
    };
    listeners.iter().filter(takes).copied().collect()
}

fn parse(line: &str) -> Option<Listener> {
    let mut fields = line.split_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    let uid = fields.nth(3)?.parse().ok()?;
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    (state == LISTEN).then_some(Listener { address: parse_address(address)?, port, uid })
}

/// Words of four bytes, each in the byte order of the machine.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let word = |index: usize| {
        let digits = hex.get(index * 8..index * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut octets = [0; 16];
            for index in 0..4 {
                octets[index * 4..index * 4 + 4].copy_from_slice(&word(index)?);
            }
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use zone_firewall_protocol::Purpose;

    fn rule(listen: &str, port: u16) -> PortRule {
        PortRule {
            purpose: Purpose::Endpoint,
            port,
            listen: vec![listen.parse().unwrap()],
            networks: Vec::new(),
            balancers: Vec::new(),
        }
    }

    #[test]
    fn a_socket_that_listens_is_found_with_its_user() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let socket = TcpListener::bind(address).unwrap();
            let local = socket.local_addr().unwrap();
            let own = nix::unistd::getuid().as_raw();
            let expected = Listener { address: local.ip(), port: local.port(), uid: own };
            assert!(listeners().unwrap().contains(&expected));
            let ports = [rule(&local.ip().to_string(), local.port())];
            assert_eq!(all_listen(&ports, &listeners().unwrap(), &[own]), Ok(()));
            let refused = all_listen(&ports, &listeners().unwrap(), &[own + 1]).unwrap_err();
            assert!(refused.why.contains("neither zone-proxy nor zone-relay"), "{refused:?}");
        }
    }

    #[test]
    fn a_wildcard_takes_connections_to_all_addresses_of_its_family_only() {
        let wildcard = [Listener { address: "0.0.0.0".parse().unwrap(), port: 5000, uid: 7 }];
        assert_eq!(all_listen(&[rule("192.0.2.1", 5000)], &wildcard, &[7]), Ok(()));
        assert!(all_listen(&[rule("::1", 5000)], &wildcard, &[7]).is_err());
        let one = [Listener { address: "192.0.2.1".parse().unwrap(), port: 5000, uid: 7 }];
        assert!(all_listen(&[rule("0.0.0.0", 5000)], &one, &[7]).is_err());
        assert_eq!(not_listening(&[rule("0.0.0.0", 5000)], &one).len(), 1);
    }
}
