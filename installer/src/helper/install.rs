//! Installs the proxy: all of it, or nothing.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::host::Host;
use super::package_manager::Identity;
use super::report::{progress, untouched};
use super::{configuration, facts, preflight, proxy, remove, units};
use crate::packages::{Catalogue, Entry, Format, PACKAGE, PackageError, stage};
use crate::paths::Paths;
use crate::protocol::{ControlPort, Failure, Grade, HostState, Reply};
use crate::version::Version;

/// Verifies, checks this host, installs, opens 17488, starts, and waits until it is served.
pub(super) fn install(host: &Host, version: &Version, control: &ControlPort) -> Result<Reply, Failure> {
    ready(host)?;
    let staged = verified(host, version)?;
    let saved = configuration::save(&host.paths).map_err(untouched)?;
    match carry_out(host, &staged, control) {
        Ok(payload) => {
            keep(&host.paths, &staged).unwrap_or_else(|why| progress(format!("no way back is kept: {why}")));
            Ok(Reply::Installed { version: version.clone(), payload })
        }
        Err(why) => {
            progress(format!("failed: {why}"));
            progress("undoing what was done");
            let mut left = remove::take_away(host);
            if saved.held_something() {
                left.extend(saved.restore().err().map(|error| error.to_string()));
            }
            let host = if left.is_empty() { HostState::Undone } else { HostState::Left(left) };
            Err(Failure { why, host })
        }
    }
}

fn carry_out(host: &Host, staged: &Path, control: &ControlPort) -> Result<serde_json::Value, String> {
    let failed = |error: &dyn std::error::Error| error.to_string();
    progress("installing the package");
    host.manager.install(staged).map_err(|error| failed(&error))?;
    progress("writing where 17488 is served");
    configuration::set_control(&host.paths, control).map_err(|error| failed(&error))?;
    proxy::check_configuration().map_err(|error| failed(&error))?;
    progress("opening 17488 in the firewall");
    proxy::firewall_apply().map_err(|error| failed(&error))?;
    progress("starting the proxy");
    units::start().map_err(|error| failed(&error))?;
    proxy::wait_until_served().map_err(|error| failed(&error))?;
    progress("17488 is served");
    proxy::payload().map_err(|error| failed(&error))
}

/// Refuses hosts that fail preflight.
fn ready(host: &Host) -> Result<(), Failure> {
    progress("looking at this host");
    let verdicts = preflight::judge(&facts::gather(&host.paths, &host.settings));
    for verdict in verdicts.iter().filter(|verdict| verdict.grade == Grade::Warn) {
        progress(format!("warning: {}: {}", verdict.check, verdict.found));
    }
    let failed: Vec<_> = verdicts.iter().filter(|verdict| verdict.grade == Grade::Fail).collect();
    let Some(first) = failed.first() else { return Ok(()) };
    let help = if first.help.is_empty() { String::new() } else { format!(": {}", first.help) };
    let more = match failed.len() {
        1 => String::new(),
        more => format!(" ({} more: 'zone-installer preflight' shows all)", more - 1),
    };
    Err(untouched(format!("{}: {}{help}{more}", first.check, first.found)))
}

/// The package of a version, verified, in root's own folder.
pub(super) fn verified(host: &Host, version: &Version) -> Result<PathBuf, Failure> {
    let catalogue = Catalogue::read(&host.paths).map_err(untouched)?;
    progress(format!("signature good: {} ({})", catalogue.signed_by.file, catalogue.comment));
    catalogue.signed_by.warning().into_iter().for_each(progress);
    let entry = catalogue.find(version, host.manager.format()).map_err(untouched)?;
    let staged = stage(&host.paths, entry).map_err(untouched)?;
    let checked = host.manager.identify(&staged).map_err(untouched).and_then(|identity| {
        is_wanted(entry, &identity).map_err(untouched)?;
        room(&identity)
    });
    if let Err(failure) = checked {
        // It is of no use to anybody; the next attempt empties the stage too.
        let _ = fs::remove_dir_all(host.paths.stage());
        return Err(failure);
    }
    progress(format!("package good: {}", entry.file));
    Ok(staged)
}

/// A signed file name is a promise about what is in the file.
fn is_wanted(entry: &Entry, identity: &Identity) -> Result<(), PackageError> {
    let wanted = format!("{PACKAGE} {} {}", entry.version, entry.architecture);
    if identity.name == wanted {
        return Ok(());
    }
    Err(PackageError::SomethingElse {
        file: entry.file.clone(),
        found: identity.name.chars().filter(|c| !c.is_control()).take(100).collect(),
        wanted,
    })
}

/// The old and the new files lie side by side for a moment.
fn room(identity: &Identity) -> Result<(), Failure> {
    for (folder, needed) in
        [("/usr", identity.size.max(preflight::MIN_ROOM_USR_BYTES)), ("/var", preflight::MIN_ROOM_VAR_BYTES)]
    {
        let room = facts::room(Path::new(folder)).unwrap_or(u64::MAX);
        if room < needed {
            let (room, needed) = (room >> 20, needed >> 20);
            return Err(untouched(format!(
                "{folder} has room for {room} MiB only: make room for {needed} MiB"
            )));
        }
    }
    Ok(())
}

/// Keeps the package that is installed now, for the way back from a failed upgrade.
pub(super) fn keep(paths: &Paths, staged: &Path) -> Result<(), String> {
    let kept = paths.kept();
    let keep = || -> std::io::Result<()> {
        if kept.exists() {
            fs::remove_dir_all(&kept)?;
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&kept)?;
        fs::rename(staged, kept.join(staged.file_name().unwrap_or_default()))?;
        fs::remove_dir_all(paths.stage())
    };
    keep().map_err(|error| format!("{}: {error}", kept.display()))
}

/// The kept package of a version.
pub(super) fn kept(paths: &Paths, version: &Version, format: Format) -> Option<PathBuf> {
    let end = format!(".{format}");
    fs::read_dir(paths.kept()).ok()?.flatten().map(|entry| entry.path()).find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.contains(&version.to_string()) && name.ends_with(&end)
    })
}
