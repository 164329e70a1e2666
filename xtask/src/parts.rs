//! Packages that are unpacked and never installed, because installing one would start its service.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Uid, User};

use crate::report::{Context, Result, headline, say};
use crate::{children, tools, workspace};

/// A program whose package is unpacked.
struct Part {
    package: &'static str,
    /// Where it is in the package, without the first slash.
    program: &'static str,
    /// What is said while it is fetched.
    headline: &'static str,
    /// What it is for, after the package's name.
    purpose: &'static str,
}

const SSHD: Part = Part {
    package: "openssh-server",
    program: "usr/sbin/sshd",
    headline: "The ssh server",
    purpose: "is what the demo's endpoint offers; only unpacked, as installing it would start it",
};
const HAPROXY: Part = Part {
    package: "haproxy",
    program: "usr/sbin/haproxy",
    headline: "HAProxy",
    purpose: "is what the relay's figures are compared with; only unpacked, as installing it would start it",
};

impl Part {
    /// What starts the program with the libraries that came with it. sshd runs itself again for each client and wants
    /// its full path.
    fn start_script(&self) -> String {
        format!(
            r#"#!/bin/sh
here=$(cd "$(dirname "$0")" && pwd)
LD_LIBRARY_PATH=$(find "$here" -name '*.so.*' -exec dirname {{}} + | sort -u | tr '\n' ':')$LD_LIBRARY_PATH
export LD_LIBRARY_PATH
exec "$here/{}" "$@"
"#,
            self.program
        )
    }

    /// The name of that script.
    fn start_name(&self) -> String {
        format!("start-{}", self.program.rsplit('/').next().unwrap_or(self.program))
    }

    /// The directory of the unpacked package, which is fetched once.
    fn unpacked(&self) -> Result<PathBuf> {
        let Self { package, headline: title, purpose, .. } = self;
        let place = dir().join(package);
        if place.join(self.start_name()).is_file() {
            return Ok(place);
        }
        headline(title);
        say(&format!("   {package}   {purpose}"));
        let draft = dir().join(format!("{package}.draft"));
        let _ = fs::remove_dir_all(&draft);
        fs::create_dir_all(&draft).or_fail(|| format!("can't make {}", draft.display()))?;
        if Uid::effective().is_root() {
            tools::update_lists()?;
        }
        let mut libraries = fetch(package, &draft)?;
        while let missing @ [_, ..] = missing_libraries(&draft, self.program)?.as_slice() {
            let Some(library) = libraries.pop() else {
                let missing = missing.join(", ");
                return Err(
                    format!("{package} lacks {missing}, and no package it depends on brings it").into()
                );
            };
            libraries.extend(fetch(&library, &draft)?);
        }
        let start = draft.join(self.start_name());
        fs::write(&start, self.start_script()).or_fail(|| format!("can't write {}", start.display()))?;
        fs::set_permissions(&start, fs::Permissions::from_mode(0o755))
            .or_fail(|| format!("can't make {} executable", start.display()))?;
        let _ = fs::remove_dir_all(&place);
        fs::rename(&draft, &place).or_fail(|| format!("can't move {} into place", draft.display()))?;
        Ok(place)
    }
}

/// Where unpacked packages are.
pub(crate) fn dir() -> PathBuf {
    workspace::target().join("parts")
}

/// The directory of the unpacked ssh server, which `start-sshd` in it starts; fetched once.
pub(crate) fn openssh_server() -> Result<PathBuf> {
    SSHD.unpacked()
}

/// The directory of the unpacked HAProxy, which `start-haproxy` in it starts; fetched once.
pub(crate) fn haproxy() -> Result<PathBuf> {
    HAPROXY.unpacked()
}

/// Downloads a package, unpacks it, and returns the libraries it depends on that are not installed.
fn fetch(package: &str, into: &Path) -> Result<Vec<String>> {
    let download = dir().join("download");
    let _ = fs::remove_dir_all(&download);
    fs::create_dir_all(&download).or_fail(|| format!("can't make {}", download.display()))?;
    let mut apt = Command::new("apt-get");
    apt.current_dir(&download).args(["download", "-q", package]);
    if Uid::effective().is_root() {
        // As root, apt downloads as a user of its own, which must be able to write here.
        match User::from_name("_apt") {
            Ok(Some(user)) if workspace::closed_to_others(&download).is_none() => {
                chown(&download, Some(user.uid.as_raw()), None)
                    .or_fail(|| format!("can't hand {} to _apt", download.display()))?;
            }
            _ => {
                apt.args(["-o", "APT::Sandbox::User=root"]);
            }
        }
    }
    let status = apt.status().or_fail(|| "can't start apt-get; this needs Debian 12".to_owned())?;
    let file = fs::read_dir(&download).ok().and_then(|entries| {
        entries.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|e| e == "deb"))
    });
    let (true, Some(file)) = (status.success(), file) else {
        return Err(format!(
            "apt-get download {package} failed; if apt has no lists yet, run as root: apt-get update"
        )
        .into());
    };
    children::output(Command::new("dpkg").arg("-x").arg(&file).arg(into))?;
    let depends = children::output(Command::new("dpkg-deb").arg("-f").arg(&file).arg("Depends"))?;
    let _ = fs::remove_dir_all(&download);
    Ok(library_names(&depends).into_iter().filter(|name| !is_installed(name)).collect())
}

/// The plain libraries in a `Depends:` field.
fn library_names(depends: &str) -> Vec<String> {
    depends
        .split([',', '|'])
        .filter_map(|one| one.split_whitespace().next())
        .map(|name| name.split(':').next().unwrap_or(name).to_owned())
        .filter(|name| name.starts_with("lib") && !name.starts_with("libpam-"))
        .collect()
}

fn is_installed(package: &str) -> bool {
    children::output(Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Status}\n", package]))
        .is_ok_and(|status| status.lines().any(|line| line == "installed"))
}

/// The libraries that the unpacked program asks for in vain.
fn missing_libraries(root: &Path, program: &str) -> Result<Vec<String>> {
    let shared =
        children::output(Command::new("find").arg(root).args(["-name", "*.so.*", "-printf", "%h\n"]))?;
    let found = children::output(
        Command::new("ldd")
            .arg(root.join(program))
            .env("LD_LIBRARY_PATH", shared.lines().collect::<Vec<_>>().join(":")),
    )?;
    let missing = found.lines().filter(|line| line.contains("not found"));
    Ok(missing.filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_picked_from_dependencies() {
        let depends =
            "adduser, libpam-modules, openssh-client (= 1:9.2), libwrap0 (>= 7.6-4~), debconf | libfoo1:any";
        assert_eq!(library_names(depends), ["libwrap0", "libfoo1"]);
    }
}
