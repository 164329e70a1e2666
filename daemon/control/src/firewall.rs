//! The host's firewall, as far as the proxy has a hand in it.

use std::fmt;

/// Who opens the relay ports in the host's firewall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Firewall {
    /// The admin: the proxy leaves the firewall alone.
    #[default]
    None,
}

impl fmt::Display for Firewall {
    /// As [`zone_protocol::provisioning::PortStatus::firewall`] has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
        }
    }
}

impl Firewall {
    /// Opens ports; an error undoes the provisioning that wanted them.
    pub fn open(self, _ports: &[u16]) -> Result<(), String> {
        match self {
            Self::None => Ok(()),
        }
    }

    /// Closes ports.
    pub fn close(self, _ports: &[u16]) {
        match self {
            Self::None => {}
        }
    }
}
