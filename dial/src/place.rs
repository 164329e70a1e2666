//! Where to dial: a host and a port.

use std::fmt;
use std::net::SocketAddr;

/// A host, by name or address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Name or address; an IPv6 address stands without brackets.
    pub host: String,
    /// TCP or UDP port.
    pub port: u16,
}

impl Place {
    /// Reads `host:port`, where an IPv6 address stands in brackets. `None` where it is something else.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok()?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let place = Self { host: bracketed.unwrap_or(host).to_owned(), port };
        let is_good = match bracketed {
            Some(_) => place.address().is_some_and(|address| address.is_ipv6()),
            None => !host.is_empty() && !host.contains([':', '[', ']']),
        };
        is_good.then_some(place)
    }

    /// The address, where the host is one and no name.
    pub fn address(&self) -> Option<SocketAddr> {
        match self.host.parse() {
            Ok(host) => Some(SocketAddr::new(host, self.port)),
            // With a scope (RFC 4007), as link-local addresses have it.
            Err(_) => format!("[{}]:{}", self.host, self.port).parse().ok(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address() {
            Some(address) => address.fmt(f),
            None => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_read_back_as_they_were_written() {
        for text in ["proxy.example:17486", "192.0.2.1:1", "[2001:db8::1]:65535", "[fe80::1%2]:1"] {
            assert_eq!(Place::parse(text).map(|place| place.to_string()).as_deref(), Some(text));
        }
        for text in
            ["", ":1", "proxy", "proxy:", "proxy:65536", "2001:db8::1:80", "[proxy]:1", "[192.0.2.1]:1"]
        {
            assert_eq!(Place::parse(text), None, "{text}");
        }
    }
}
