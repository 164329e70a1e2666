//! The packets that the judge is asked about.

use std::net::IpAddr;

use ipnet::IpNet;

/// A range of numbers or addresses, both ends included. Addresses stand as numbers: IPv4 in the low 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The lowest.
    pub first: u128,
    /// The highest.
    pub last: u128,
}

/// The first packets of TCP connections (SYN without ACK, no fragments, no ECN) that come in by a device. All lists that are empty
/// mean any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Whether they are of IPv6.
    pub v6: bool,
    /// The port that they go to.
    pub port: u16,
    /// Where they come from.
    pub sources: Vec<IpNet>,
    /// The port that they come from.
    pub source_port: Option<u16>,
    /// The addresses that they go to; if empty, those of the device that they come in by.
    pub destinations: Vec<IpAddr>,
    /// The device that they come in by, by its name; `None` asks for each of the host's but the loopback device.
    pub interface: Option<String>,
    /// The hardware address that they come from.
    pub mac: Option<[u8; 6]>,
    /// The mark that they come with; the kernel has 0 unless a program of traffic control says otherwise.
    pub mark: u32,
}

impl Question {
    /// All openings of connections to a port, of one family.
    #[must_use]
    pub fn any(v6: bool, port: u16) -> Self {
        Self {
            v6,
            port,
            sources: Vec::new(),
            source_port: None,
            destinations: Vec::new(),
            interface: None,
            mac: None,
            mark: 0,
        }
    }
}
