//! The host that packets come to.

mod read;

use std::net::IpAddr;

pub use read::HostError;
use zone_ruleset::Name;

/// Its devices and addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// Its devices, the loopback device among them.
    pub interfaces: Vec<Interface>,
}

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number for it.
    pub index: u32,
    /// Its name.
    pub name: Name,
    /// Its group (`ip link set group`).
    pub group: u32,
    /// Its type (`ARPHRD_*`): 1 for Ethernet, 772 for loopback.
    pub kind: u16,
    /// The kind of a virtual device (`IFLA_INFO_KIND`), such as `bridge`, `veth`, `vrf`.
    pub virtual_kind: Option<String>,
    /// The number of the bridge, VRF or bond that it belongs to.
    pub master: Option<u32>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl Interface {
    /// Whether it is the loopback device.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.kind == 772
    }
}

impl Host {
    /// A device by name.
    #[must_use]
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name.as_bytes() == name.as_bytes())
    }
}
