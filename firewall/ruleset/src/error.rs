//! Why the rules can't be read.

use std::io::ErrorKind;

use crate::attributes::DecodeError;
use crate::netlink::NetlinkError;

/// How often the rules are read again, if they are changed while they are read.
pub(crate) const ATTEMPTS: usize = 20;

/// Why there is no ruleset.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The rules are for those with `CAP_NET_ADMIN` only.
    #[error("the kernel's rules can't be read without CAP_NET_ADMIN")]
    NotPermitted,
    /// The kernel does not answer as it should.
    #[error("the kernel's rules can't be read: {0}")]
    Netlink(#[source] NetlinkError),
    /// The kernel's answer is not understood.
    #[error("the kernel's rules can't be read: {0}")]
    Decode(#[from] DecodeError),
    /// Somebody changes the rules all the time.
    #[error("the kernel's rules were changed {ATTEMPTS} times while they were read")]
    Changing,
}

impl From<NetlinkError> for ReadError {
    fn from(error: NetlinkError) -> Self {
        match error {
            NetlinkError::Refused(refusal) if refusal.kind() == ErrorKind::PermissionDenied => {
                Self::NotPermitted
            }
            error => Self::Netlink(error),
        }
    }
}
