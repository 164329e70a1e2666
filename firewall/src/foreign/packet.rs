//! What a firewall is asked about.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::desired::Family;

/// An opening of a TCP connection from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packet {
    /// The family of both its addresses.
    pub(crate) family: Family,
    /// The network it comes from; `None` for any.
    pub(crate) source: Option<IpNet>,
    /// The address it goes to; `None` for any of this host.
    pub(crate) destination: Option<IpAddr>,
    /// The port it goes to.
    pub(crate) port: u16,
}
