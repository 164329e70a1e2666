//! Reads the devices and addresses of this host over rtnetlink.

use std::net::IpAddr;

use netlink_sys::protocols::NETLINK_ROUTE;
use zone_ruleset::attributes::{Attributes, DecodeError};
use zone_ruleset::netlink::{Connection, NetlinkError};

use super::{Host, Interface};

/// Why the devices or addresses of this host are not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The kernel does not answer as it should.
    #[error("the devices and addresses of this host can't be read: {0}")]
    Netlink(#[from] NetlinkError),
    /// The kernel's answer is not understood.
    #[error("the devices and addresses of this host can't be read: {0}")]
    Decode(#[from] DecodeError),
}

impl Host {
    /// The devices and addresses of the network namespace that this thread is in. Every address counts, those too that are being
    /// tried or about to go. This needs no right.
    ///
    /// # Errors
    /// If the kernel does not answer, or they are changed all the time.
    pub fn read() -> Result<Self, HostError> {
        /// How often they are read again, if they are changed while they are read.
        const ATTEMPTS: usize = 20;
        let mut read = Self::read_once();
        for _ in 1..ATTEMPTS {
            if !matches!(read, Err(HostError::Netlink(NetlinkError::Interrupted))) {
                break;
            }
            read = Self::read_once();
        }
        read
    }

    fn read_once() -> Result<Self, HostError> {
        let mut connection = Connection::open(NETLINK_ROUTE)?;
        let mut host = Self::default();
        connection.dump(RTM_GETLINK, &[0; IFINFOMSG], |kind, payload| {
            if let (RTM_NEWLINK, Some((header, attributes))) = (kind, payload.split_first_chunk()) {
                host.interfaces.push(link(header, attributes)?);
            }
            Ok::<(), HostError>(())
        })?;
        connection.dump(RTM_GETADDR, &[0; IFADDRMSG], |kind, payload| {
            if let (RTM_NEWADDR, Some((header, attributes))) = (kind, payload.split_first_chunk()) {
                let (index, address) = address(*header, attributes)?;
                let interface = host.interfaces.iter_mut().find(|interface| interface.index == index);
                if let (Some(interface), Some(address)) = (interface, address) {
                    interface.addresses.push(address);
                }
            }
            Ok::<(), HostError>(())
        })?;
        Ok(host)
    }
}

/// Kinds of messages (rtnetlink.h), and the lengths of their headers.
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFINFOMSG: usize = 16;
const IFADDRMSG: usize = 8;

/// A device: `struct ifinfomsg` and `IFLA_*` (if_link.h).
fn link(header: &[u8; IFINFOMSG], attributes: &[u8]) -> Result<Interface, DecodeError> {
    const IFNAME: usize = 3;
    const MASTER: usize = 10;
    const LINKINFO: usize = 18;
    const GROUP: usize = 27;
    const INFO_KIND: usize = 1;
    let [_, _, kind_0, kind_1, index @ .., _, _, _, _, _, _, _, _] = *header;
    let link = Attributes::<{ GROUP + 1 }>::read(attributes)?;
    let virtual_kind = match link.bytes(LINKINFO) {
        Some(info) => Attributes::<{ INFO_KIND + 1 }>::read(info)?.text(INFO_KIND),
        None => None,
    };
    Ok(Interface {
        index: u32::from_ne_bytes(index),
        name: link.name(IFNAME).ok_or(DecodeError::Missing { about: "device", attribute: "name" })?,
        group: link.native_u32(GROUP).unwrap_or(0),
        kind: u16::from_ne_bytes([kind_0, kind_1]),
        virtual_kind,
        master: link.native_u32(MASTER).filter(|master| *master != 0),
        addresses: Vec::new(),
    })
}

/// An address with the number of its device: `struct ifaddrmsg` and `IFA_*` (if_addr.h). Where the link has another end, `ADDRESS`
/// is that one's.
fn address(header: [u8; IFADDRMSG], attributes: &[u8]) -> Result<(u32, Option<IpAddr>), DecodeError> {
    const ADDRESS: usize = 1;
    const LOCAL: usize = 2;
    let [_, _, _, _, index @ ..] = header;
    let address = Attributes::<{ LOCAL + 1 }>::read(attributes)?;
    Ok((u32::from_ne_bytes(index), address.address(LOCAL).or_else(|| address.address(ADDRESS))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_is_there_and_has_the_number_one() {
        let host = Host::read().expect("devices");
        let loopback = host.interface("lo").expect("every host has one");
        assert!(loopback.is_loopback() && loopback.index == 1, "{loopback:?}");
        let addresses = &loopback.addresses;
        assert!(addresses.iter().all(IpAddr::is_loopback), "{addresses:?}");
    }
}
