//! What this host says of itself, for offers and payloads.

use std::fs;
use std::sync::OnceLock;

/// The host's name.
pub(crate) fn name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The operating system, as `/etc/os-release` named it when it was first asked for: later the file may be closed.
pub(crate) fn operating_system() -> String {
    static NAME: OnceLock<String> = OnceLock::new();
    let read = || {
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        name.map_or_else(|| "unknown".to_owned(), |name| name.trim_matches('"').to_owned())
    };
    NAME.get_or_init(read).clone()
}
