//! Why the rules can't be read.

use std::io::ErrorKind;

use crate::attributes::DecodeError;
use crate::netlink::NetlinkError;

/// There is no such protocol of netlink (errno(3)).
const EPROTONOSUPPORT: i32 = 93;
/// There is no netlink.
const EAFNOSUPPORT: i32 = 97;
/// How often the rules are read again, if they are changed while they are read.
pub(crate) const ATTEMPTS: usize = 20;

/// Why there is no ruleset.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The rules are for those with `CAP_NET_ADMIN` only.
    #[error(
        "this process may not read the kernel's rules, which takes CAP_NET_ADMIN: run it as root, and in a container that has it"
    )]
    NotPermitted,
    /// The kernel has no nf_tables, or no netfilter at all.
    #[error(
        "the kernel has no nftables: {0}; the kernel needs nf_tables: load that module, or use a kernel with it"
    )]
    NoTables(#[source] NetlinkError),
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
            NetlinkError::Open(failure)
                if matches!(failure.raw_os_error(), Some(EPROTONOSUPPORT | EAFNOSUPPORT)) =>
            {
                Self::NoTables(NetlinkError::Open(failure))
            }
            error => Self::Netlink(error),
        }
    }
}

impl ReadError {
    /// What it means that the very first question is refused, to which there is nothing that could be wrong: that nobody
    /// answers for nf_tables.
    pub(crate) fn of_first_question(self) -> Self {
        match self {
            Self::Netlink(refused @ NetlinkError::Refused(_)) => Self::NoTables(refused),
            error => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Error;

    #[test]
    fn a_missing_right_is_told_from_a_kernel_without_nftables() {
        let refused = |code| ReadError::from(NetlinkError::Refused(Error::from_raw_os_error(code)));
        let denied = refused(1).of_first_question().to_string();
        assert!(denied.contains("CAP_NET_ADMIN") && !denied.contains("nf_tables"), "{denied}");
        let lacks = ReadError::from(NetlinkError::Open(Error::from_raw_os_error(EPROTONOSUPPORT)));
        for lacks in [lacks, refused(22).of_first_question()] {
            let lacks = lacks.to_string();
            assert!(
                lacks.contains("the kernel needs nf_tables") && !lacks.contains("CAP_NET_ADMIN"),
                "{lacks}"
            );
        }
        assert!(matches!(refused(22), ReadError::Netlink(_)), "any other question may be wrong itself");
    }
}
