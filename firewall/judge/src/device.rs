//! The device that a packet comes in by.

use std::net::IpAddr;

use crate::bytes::{Byte, known};
use crate::host::Interface;

/// A device, as rules ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    /// Its number, in the machine's order.
    pub(crate) index: [Byte; 4],
    /// Its name, and zeros behind it.
    pub(crate) name: [Byte; 16],
    /// Its group, in the machine's order.
    pub(crate) group: [Byte; 4],
    /// Its type (`ARPHRD_*`), in the machine's order.
    pub(crate) kind: [Byte; 2],
    /// The kind of a virtual device.
    pub(crate) virtual_kind: Option<String>,
    /// The addresses that are its own.
    pub(crate) addresses: Vec<IpAddr>,
    /// Whether it is known which device it is.
    pub(crate) is_known: bool,
}

/// What the device is, for a person.
pub(crate) const INTERFACE: &str = "the device that it comes in by";

impl Device {
    /// A device of the host, or one that is not known.
    pub(crate) fn new(interface: Option<&Interface>) -> Self {
        let Some(interface) = interface else {
            return Self {
                index: [Byte::unknown(INTERFACE).naming(); 4],
                name: [Byte::unknown(INTERFACE).naming(); 16],
                group: [Byte::unknown(INTERFACE).naming(); 4],
                kind: [Byte::unknown(INTERFACE).naming(); 2],
                virtual_kind: None,
                addresses: Vec::new(),
                is_known: false,
            };
        };
        let mut name = [0; 16];
        for (to, from) in name.iter_mut().zip(interface.name.as_bytes()) {
            *to = *from;
        }
        Self {
            index: known(interface.index.to_ne_bytes()).map(|byte| byte.naming().said_to_be(INTERFACE)),
            name: known(name).map(|byte| byte.naming().said_to_be(INTERFACE)),
            group: known(interface.group.to_ne_bytes()).map(Byte::naming),
            kind: known(interface.kind.to_ne_bytes()),
            virtual_kind: interface.virtual_kind.clone(),
            addresses: interface.addresses.clone(),
            is_known: true,
        }
    }
}
