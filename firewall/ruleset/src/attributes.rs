//! The attributes of a netlink message: each has a number, and there is a table of them wherever attributes stand side by side.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{DefaultNla, Emitable as _, NlasIterator};

use crate::model::Name;

/// Bytes that are no ruleset, or not all of one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The lengths of messages or attributes don't fit into each other.
    #[error("the netlink messages are broken: {0}")]
    Framing(#[from] netlink_packet_core::DecodeError),
    /// An attribute without which nothing can be said is not there, or is not as long as it has to be.
    #[error("a netlink message about a {about} has no {attribute}")]
    Missing {
        /// What the message is about.
        about: &'static str,
        /// The attribute.
        attribute: &'static str,
    },
    /// A family of tables that is not known here.
    #[error("family {0} of a table is not known")]
    Family(u8),
    /// Something is said to be in a table, chain or set that was not there before.
    #[error("a {about} is in {place}, which was not there before")]
    Orphan {
        /// The kind of thing, such as `rule`.
        about: &'static str,
        /// What it should be in.
        place: Name,
    },
    /// Something is there a second time.
    #[error("there are two of the {about} {name}")]
    Twice {
        /// The kind of thing, such as `table`.
        about: &'static str,
        /// Its name.
        name: Name,
    },
    /// There are more rules than are read.
    #[error("there are more than {limit} rules")]
    TooManyRules {
        /// How many are read.
        limit: usize,
    },
}

/// Attributes by their numbers, of which there are `N`. Those with higher numbers, of newer kernels, are left out.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a, const N: usize>([Option<&'a [u8]>; N]);

impl<'a, const N: usize> Attributes<'a, N> {
    /// Reads them. Where one number is there twice, the last one counts, as it does in the kernel.
    pub fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut table = [None; N];
        for attribute in NlasIterator::new(bytes) {
            let attribute = attribute?;
            let (kind, length) = (usize::from(attribute.kind()), usize::from(attribute.length()));
            if let Some(slot) = table.get_mut(kind) {
                *slot = attribute.into_inner().get(4..length);
            }
        }
        Ok(Self(table))
    }

    /// The bytes of an attribute.
    #[must_use]
    pub fn bytes(&self, number: usize) -> Option<&'a [u8]> {
        *self.0.get(number)?
    }

    /// One byte.
    #[must_use]
    pub fn u8(&self, number: usize) -> Option<u8> {
        Some(u8::from_ne_bytes(self.array(number)?))
    }

    /// Two bytes in the network's order.
    #[must_use]
    pub fn u16(&self, number: usize) -> Option<u16> {
        Some(u16::from_be_bytes(self.array(number)?))
    }

    /// Four bytes in the network's order.
    #[must_use]
    pub fn u32(&self, number: usize) -> Option<u32> {
        Some(u32::from_be_bytes(self.array(number)?))
    }

    /// Four bytes in the machine's order, as rtnetlink has them.
    #[must_use]
    pub fn native_u32(&self, number: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(self.array(number)?))
    }

    /// Eight bytes in the network's order.
    #[must_use]
    pub fn u64(&self, number: usize) -> Option<u64> {
        Some(u64::from_be_bytes(self.array(number)?))
    }

    /// A name.
    #[must_use]
    pub fn name(&self, number: usize) -> Option<Name> {
        self.bytes(number).map(Name::new)
    }

    /// A text up to its NUL. Bytes that are no UTF-8 are replaced.
    #[must_use]
    pub fn text(&self, number: usize) -> Option<String> {
        self.bytes(number).map(text)
    }

    /// An address, of IPv4 or IPv6 by its length.
    #[must_use]
    pub fn address(&self, number: usize) -> Option<IpAddr> {
        match self.bytes(number)?.len() {
            4 => Some(IpAddr::V4(Ipv4Addr::from(self.array::<4>(number)?))),
            16 => Some(IpAddr::V6(Ipv6Addr::from(self.array::<16>(number)?))),
            _ => None,
        }
    }

    fn array<const L: usize>(&self, number: usize) -> Option<[u8; L]> {
        self.bytes(number)?.try_into().ok()
    }
}

/// The attributes that a list has as its elements (`NFTA_LIST_ELEM`), each as its bytes.
pub(crate) fn list(bytes: &[u8]) -> impl Iterator<Item = Result<&[u8], DecodeError>> {
    const ELEM: u16 = 1;
    NlasIterator::new(bytes).filter_map(|attribute| match attribute {
        Ok(attribute) if attribute.kind() == ELEM => {
            let length = usize::from(attribute.length());
            attribute.into_inner().get(4..length).map(Ok)
        }
        Ok(_) => None,
        Err(error) => Some(Err(error.into())),
    })
}

/// Bytes up to the first NUL as text. Those that are no UTF-8 are replaced.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Appends an attribute to a message.
pub(crate) fn append(message: &mut Vec<u8>, number: usize, value: &[u8]) {
    let attribute = DefaultNla::new(u16::try_from(number).unwrap_or(0), value.to_vec());
    let at = message.len();
    message.resize(at + attribute.buffer_len(), 0);
    attribute.emit(&mut message[at..]);
}
