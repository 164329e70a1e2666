//! nft(8): how rules are changed. What there is, is read from the kernel itself.

use std::borrow::Cow;
use std::path::PathBuf;

use nftables::schema::{NfObject, Nftables};
use serde_json::Value;

use crate::run::{RunError, run};
use crate::slave_name::with_slave_names;

/// The ruleset can't be read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NftError {
    /// There is no nft.
    #[error("there is no nft(8) on this host: install the package nftables")]
    NoTool,
    /// The kernel does not let us.
    #[error(
        "this process may not use nftables: {0}; it takes CAP_NET_ADMIN: run it as root, and in a container that has it"
    )]
    NotPermitted(RunError),
    /// The kernel has no nftables.
    #[error(
        "the kernel has no nftables: {0}; the kernel needs nf_tables: load that module, or use a kernel with it"
    )]
    NoKernel(RunError),
    /// nft was ended by a signal, which is a fault of nft.
    #[error(
        "{0}; this is a fault of nft: install a newer nftables, and see what is unusual in 'nft list ruleset'"
    )]
    Crashed(RunError),
    /// nft does not end.
    #[error("{0}; the host is overloaded, or its ruleset very large: try again")]
    TooSlow(RunError),
    /// nft can't be started.
    #[error("{0}; install the package nftables again")]
    NotStarted(RunError),
    /// nft failed for another reason.
    #[error("nft failed, and nothing was changed: {0}")]
    Failed(RunError),
    /// What nft printed is no JSON.
    #[error("nft printed a ruleset that can't be read: {0}; an nft that was built with JSON is needed")]
    Unreadable(serde_json::Error),
    /// The transaction was refused, and nothing of it took effect.
    #[error("the kernel refused the change of rules, and none was made: {0}")]
    Refused(RunError),
}

impl NftError {
    /// What it was that kept nft from reading or changing rules. The kernel's reasons come as the words of strerror(3).
    fn of(error: RunError, changing: bool) -> Self {
        let complaint = match &error {
            RunError::Failed { complaint, .. } => complaint.clone(),
            RunError::Crashed { .. } => return Self::Crashed(error),
            RunError::TimedOut { .. } => return Self::TooSlow(error),
            RunError::Start { .. } => return Self::NotStarted(error),
        };
        let says = |words: &[&str]| words.iter().any(|words| complaint.contains(words));
        if says(&["Operation not permitted", "Permission denied"]) {
            Self::NotPermitted(error)
        } else if says(&[
            "Protocol not supported",
            "Unable to initialize Netlink socket",
            "cache initialization failed",
        ]) {
            Self::NoKernel(error)
        } else if changing {
            Self::Refused(error)
        } else {
            Self::Failed(error)
        }
    }
}

/// A table as nft lists it, to be put back.
pub(crate) fn list_table(family: &str, name: &str) -> Result<Value, NftError> {
    let printed = run(&program()?, &["-j", "list", "table", family, name], b"")
        .map_err(|error| NftError::of(error, false))?;
    serde_json::from_slice(&printed).map_err(NftError::Unreadable)
}

/// Carries out all commands or none.
pub(crate) fn transact(commands: Vec<NfObject<'static>>) -> Result<(), NftError> {
    let document = Nftables { objects: Cow::Owned(commands) };
    transact_raw(&with_slave_names(serde_json::to_value(document).map_err(NftError::Unreadable)?))
}

/// The same for a document that holds what nft itself has listed.
pub(crate) fn transact_raw(document: &Value) -> Result<(), NftError> {
    run(&program()?, &["-j", "-f", "-"], document.to_string().as_bytes())
        .map_err(|error| NftError::of(error, true))?;
    Ok(())
}

/// nft is looked for each time, so that a broker that lacks it says so to whoever asks.
fn program() -> Result<PathBuf, NftError> {
    zone_tool::find("nft").ok_or(NftError::NoTool)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(complaint: &str) -> String {
        let program = PathBuf::from("/usr/sbin/nft");
        NftError::of(RunError::Failed { program, code: Some(1), complaint: complaint.to_owned() }, false)
            .to_string()
    }

    #[test]
    fn each_failure_of_nft_says_what_its_user_can_do() {
        let denied = told("netlink: Error: cache initialization failed: Operation not permitted");
        assert!(denied.contains("CAP_NET_ADMIN") && !denied.contains("kernel"), "{denied}");
        for lacking in [
            "nft: Unable to initialize Netlink socket: Protocol not supported",
            "cache initialization failed: Invalid argument",
        ] {
            let lacking = told(lacking);
            assert!(
                lacking.contains("the kernel needs nf_tables") && !lacking.contains("CAP_NET_ADMIN"),
                "{lacking}"
            );
        }
        assert_eq!(told("disk on fire"), "nft failed, and nothing was changed: /usr/sbin/nft: disk on fire");
        let crashed =
            RunError::Crashed { program: "/usr/sbin/nft".into(), signal: 6, complaint: String::new() };
        let crashed = NftError::of(crashed, true).to_string();
        assert!(
            crashed.contains("crashed (signal 6)") && crashed.contains("install a newer nftables"),
            "{crashed}"
        );
        let refused = RunError::Failed {
            program: "/usr/sbin/nft".into(),
            code: Some(1),
            complaint: "No such file".to_owned(),
        };
        assert!(NftError::of(refused, true).to_string().starts_with("the kernel refused the change"));
    }
}
