//! Fields of a C struct, in the machine's byte order, by their place in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::Family;
use crate::uapi;

/// The struct of an extension of iptables. The kernel rounds its size up to eight bytes (`XT_ALIGN`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// A struct of this size; `None` if there are not as many bytes as that.
    pub(crate) fn of(bytes: &'a [u8], size: usize) -> Option<Self> {
        (bytes.len() == size.next_multiple_of(8)).then_some(Self(bytes))
    }

    pub(crate) fn bytes(self, at: usize, length: usize) -> Option<&'a [u8]> {
        self.0.get(at..at.checked_add(length)?)
    }

    pub(crate) fn u8(self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    pub(crate) fn u16(self, at: usize) -> Option<u16> {
        Some(u16::from_ne_bytes(self.array(at)?))
    }

    pub(crate) fn u32(self, at: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(self.array(at)?))
    }

    pub(crate) fn u64(self, at: usize) -> Option<u64> {
        Some(u64::from_ne_bytes(self.array(at)?))
    }

    /// Two numbers of 16 bits, one behind the other.
    pub(crate) fn pair(self, at: usize) -> Option<(u16, u16)> {
        Some((self.u16(at)?, self.u16(at + 2)?))
    }

    /// Two ports in the network's order, one behind the other.
    pub(crate) fn ports(self, at: usize) -> Option<(u16, u16)> {
        Some((u16::from_be_bytes(self.array(at)?), u16::from_be_bytes(self.array(at + 2)?)))
    }

    /// A `union nf_inet_addr` that holds an address of this family.
    pub(crate) fn address(self, at: usize, family: Family) -> Option<IpAddr> {
        match family {
            Family::Ip => Some(IpAddr::V4(Ipv4Addr::from(self.array::<4>(at)?))),
            Family::Ip6 => Some(IpAddr::V6(Ipv6Addr::from(self.array::<16>(at)?))),
            _ => None,
        }
    }

    pub(crate) fn array<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.bytes(at, N)?.try_into().ok()
    }
}

/// An extension of iptables: its name, its revision, and what `understood` makes of its struct. ebtables and arptables have others of
/// the same names, which are not understood.
pub(crate) fn extension<T>(
    bytes: &[u8],
    family: Family,
    understood: impl FnOnce(&str, u32, &[u8], Family) -> Option<T>,
) -> Option<(String, u32, Option<T>)> {
    let attributes = uapi::extension::attributes(bytes).ok()?;
    let name = attributes.text(uapi::extension::NAME)?;
    let revision = attributes.u32(uapi::extension::REV)?;
    let info = attributes.bytes(uapi::extension::INFO).unwrap_or_default();
    let what = match family {
        Family::Ip | Family::Ip6 | Family::Inet => understood(&name, revision, info, family),
        Family::Arp | Family::Bridge | Family::Netdev => None,
    };
    Some((name, revision, what))
}
