//! What a process of the proxy may reach, as root writes it down.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where packets may go: an address, a port and a transport, such as `10.0.0.5:6514/tcp` or `[fd00::5]:514/udp`.
///
/// ```
/// use zone_firewall_protocol::{Destination, Transport};
///
/// let destination: Destination = "[fd00::5]:514/udp".parse()?;
/// assert_eq!((destination.port, destination.transport), (514, Transport::Udp));
/// assert_eq!(destination.to_string(), "[fd00::5]:514/udp");
/// assert!("logs.example:514/udp".parse::<Destination>().is_err());
/// # Ok::<(), zone_firewall_protocol::DestinationError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Destination {
    /// The address. An IPv4 address that was written as an IPv6 one is an IPv4 address here, as it is in packets.
    pub address: IpAddr,
    /// The port, not 0.
    pub port: u16,
    /// The transport.
    pub transport: Transport,
}

/// What a port belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// Connections, such as those of syslog over TLS.
    Tcp,
    /// Datagrams, which nobody confirms.
    Udp,
}

impl Transport {
    /// As nft(8) and `/etc/services` call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A text names no destination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// It has another form.
    #[error("'{0}' is no destination such as \"10.0.0.5:6514/tcp\" or \"[fd00::5]:514/udp\"")]
    Form(String),
    /// It has a name where the address belongs.
    #[error("'{0}' names a host: write its address, for the firewall looks no name up")]
    Name(String),
    /// It has another transport.
    #[error("'{0}' ends with neither /tcp nor /udp")]
    Transport(String),
    /// No packet goes there.
    #[error("'{0}' is no address and port that packets go to")]
    Nowhere(String),
}

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        let (place, transport) =
            text.rsplit_once('/').ok_or_else(|| DestinationError::Transport(text.to_owned()))?;
        let transport = match transport {
            "tcp" => Transport::Tcp,
            "udp" => Transport::Udp,
            _ => return Err(DestinationError::Transport(text.to_owned())),
        };
        let socket: SocketAddr = place.parse().map_err(|_| {
            let named = place.rsplit_once(':').is_some_and(|(host, port)| {
                port.parse::<u16>().is_ok()
                    && host.chars().any(char::is_alphabetic)
                    && !host.contains([':', '['])
            });
            let text = text.to_owned();
            if named { DestinationError::Name(text) } else { DestinationError::Form(text) }
        })?;
        let address = socket.ip().to_canonical();
        if socket.port() == 0 || address.is_unspecified() || address.is_multicast() {
            return Err(DestinationError::Nowhere(text.to_owned()));
        }
        Ok(Self { address, port: socket.port(), transport })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", SocketAddr::new(self.address, self.port), self.transport.as_str())
    }
}

impl TryFrom<String> for Destination {
    type Error = DestinationError;

    fn try_from(text: String) -> Result<Self, DestinationError> {
        text.parse()
    }
}

impl From<Destination> for String {
    fn from(destination: Destination) -> Self {
        destination.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        text.parse::<Destination>().unwrap_err().to_string()
    }

    #[test]
    fn a_destination_is_printed_as_it_is_written() {
        for text in ["10.0.0.5:6514/tcp", "[fd00::5]:514/udp", "127.0.0.1:1/tcp"] {
            assert_eq!(text.parse::<Destination>().unwrap().to_string(), text);
        }
        assert_eq!(
            "[::ffff:10.0.0.5]:514/udp".parse::<Destination>().unwrap().to_string(),
            "10.0.0.5:514/udp"
        );
    }

    #[test]
    fn what_is_wrong_with_a_destination_is_said() {
        assert!(error("logs.example.net:514/udp").contains("names a host: write its address"));
        assert!(error("10.0.0.5:514").contains("ends with neither /tcp nor /udp"));
        assert!(error("10.0.0.5:514/sctp").contains("ends with neither /tcp nor /udp"));
        for text in [
            "10.0.0.5/tcp",
            "fd00::5:514/udp",
            "10.0.0.0/8:514/udp",
            "10.0.0.5:65536/tcp",
            "/tcp",
            "[fe80::1%eth0]:1/tcp",
        ] {
            assert!(error(text).contains("is no destination such as"), "{text}: {}", error(text));
        }
        for text in ["0.0.0.0:514/udp", "10.0.0.5:0/tcp", "[ff02::1]:514/udp"] {
            assert!(error(text).contains("that packets go to"), "{text}");
        }
    }
}
