//! Rules of a file, taken by the kernel where they do no harm: in a network namespace that nothing else is in.

use std::io;
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use zone_judge::{Host, Interface};

use crate::run::{RunError, run};

/// The rules of a file can't be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// There is no such file.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the system says about it.
        source: io::Error,
    },
    /// There is no namespace to load them in.
    #[error("a network namespace can't be made: {0}; it takes root")]
    Namespace(nix::Error),
    /// nft is missing.
    #[error("there is no nft(8) on this host: install the package nftables")]
    NoTool,
    /// nft does not take them.
    #[error("the rules can't be loaded: {0}")]
    Refused(RunError),
}

/// Goes to a new network namespace with this thread, and loads the file there. Devices of the host are there by name and number,
/// so that rules can name them.
pub(super) fn load_apart(rules: &Path, host: &Host) -> Result<(), FileError> {
    let path = rules.display().to_string();
    // nft would say the same in more lines, and after everything else was done.
    std::fs::File::open(rules).map_err(|source| FileError::Read { path: path.clone(), source })?;
    let nft = zone_tool::find("nft").ok_or(FileError::NoTool)?;
    unshare(CloneFlags::CLONE_NEWNET).map_err(FileError::Namespace)?;
    if let Some(ip) = zone_tool::find("ip") {
        let devices = host.interfaces.iter().filter(|interface| !interface.is_loopback());
        let commands: String = devices.map(imitation).collect();
        // Of the two ways to make a device one fails. Where both do and a rule needs it, nft says so.
        if let Err(error) = run(&ip, &["-force", "-batch", "-"], commands.as_bytes()) {
            tracing::debug!("imitating devices: {error}");
        }
    }
    run(&nft, &["-f", &path], b"").map_err(FileError::Refused)?;
    Ok(())
}

/// A device of the same name and number: a dummy, or one end of a pair where the kernel has no dummies.
fn imitation(interface: &Interface) -> String {
    /// The other ends have numbers from here on.
    const OTHER_ENDS: u32 = 1_000_000_000;

    let name = interface.name.to_string();
    // What the tool would read as something else is left out; the kernel allows nearly any byte.
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
    if name.is_empty() || !name.chars().all(plain) {
        return String::new();
    }
    let index = interface.index;
    let other = OTHER_ENDS.saturating_add(index);
    format!(
        "link add name {name} index {index} type dummy\n\
         link add name {name} index {index} type veth peer name end{index} index {other}\n"
    )
}
