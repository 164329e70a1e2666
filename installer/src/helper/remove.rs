//! Removes the proxy, in whatever state it is, and all that it left: files, users, units, rules.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::facts::{self, FOLDERS};
use super::host::Host;
use super::report::{progress, untouched};
use super::{proxy, run, units};
use crate::protocol::{Failure, HostState, Reply};

/// The time for a user to be removed.
const USERDEL_TIMEOUT: Duration = Duration::from_secs(15);

/// Removes it.
pub(super) fn remove(host: &Host) -> Result<Reply, Failure> {
    if !host.manager.knows().map_err(untouched)? && facts::leftovers(&host.paths, &host.manager).is_empty() {
        return Err(untouched("zone-proxy is not installed, and nothing is left of it"));
    }
    let left = take_away(host);
    if left.is_empty() {
        return Ok(Reply::Removed);
    }
    Err(Failure {
        why: "zone-proxy is not wholly removed: mend what is named, then remove again".to_owned(),
        host: HostState::Left(left),
    })
}

/// Takes all away, and returns what is left, one line each.
pub(super) fn take_away(host: &Host) -> Vec<String> {
    let mut trouble = Vec::new();
    // The packages that were verified or kept are ours alone; room is what a full disk lacks for the rest.
    for folder in [host.paths.stage(), host.paths.kept()] {
        trouble.extend(delete(&folder));
    }
    progress("stopping the proxy");
    trouble.extend(units::stop().err().map(|error| error.to_string()));
    if zone_tool::find("zone-firewall").is_some() {
        progress("closing its ports in the firewall");
        if let Err(error) = proxy::firewall_remove() {
            // Without the package nobody could take the rules out any more.
            trouble.push(error.to_string());
            return trouble;
        }
    }
    if host.manager.knows().unwrap_or(true) {
        progress("removing the package");
        trouble.extend(host.manager.remove().err().map(|error| error.to_string()));
    }
    for folder in FOLDERS.map(PathBuf::from).iter().chain([&host.paths.proxy_configuration]) {
        trouble.extend(delete(folder));
    }
    for user in facts::users() {
        let removed = run::run("userdel", &[user], USERDEL_TIMEOUT).and_then(run::Finished::good);
        trouble.extend(removed.err().map(|error| error.to_string()));
    }
    trouble.extend(units::forget().err().map(|error| error.to_string()));
    let left = facts::leftovers(&host.paths, &host.manager);
    if left.is_empty() {
        // Whatever failed on the way, the end is as it should be.
        return Vec::new();
    }
    trouble.extend(left.into_iter().map(|what| format!("{what} is still there")));
    trouble
}

/// Deletes a file or a folder with all in it, following no link.
fn delete(path: &Path) -> Option<String> {
    let deleted = match path.symlink_metadata() {
        Err(error) => Err(error),
        Ok(about) if about.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    match deleted {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Some(format!("{} can't be deleted: {error}", path.display()))
        }
        _ => None,
    }
}
