//! Why a process may not serve.

use std::io;

/// Why a process is not as powerless as it must be.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// Nobody of that name.
    #[error(
        "there is no user '{0}' on this host: create it (`systemd-sysusers` does, once the package is installed), or name another one"
    )]
    NoSuchUser(String),
    /// The user database failed.
    #[error("user '{name}' can't be looked up: {source}")]
    Lookup {
        /// The name that was looked up.
        name: String,
        /// What the user database said.
        source: io::Error,
    },
    /// Root can't be dropped to.
    #[error("user '{0}' is root: name an ordinary user, one that owns nothing else")]
    IsRoot(String),
    /// A step was refused.
    #[error(
        "privileges can't be dropped: {step}: {why}; start it as root with CAP_SETUID, CAP_SETGID and CAP_SETPCAP, or as an ordinary user"
    )]
    Step {
        /// What was to be given up.
        step: &'static str,
        /// What the kernel said.
        why: String,
    },
    /// What the kernel shows is not what was meant.
    #[error("not served with privileges: {}", .0.join("; "))]
    Held(Vec<String>),
    /// The kernel does not show it.
    #[error("what this process holds can't be read from /proc ({0}): mount it")]
    Unreadable(io::Error),
}
