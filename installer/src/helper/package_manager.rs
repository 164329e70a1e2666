//! The host's package manager.

use std::path::Path;
use std::time::Duration;

use super::run::{self, RunError};
use crate::packages::{Format, PACKAGE};
use crate::settings::{PackageManager, Settings};
use crate::version::Version;

/// The time for a question to the package database.
const QUERY_TIMEOUT: Duration = Duration::from_secs(30);
/// The time for packages to be unpacked, and for their scripts.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(300);
/// dpkg(1) keeps configuration that an admin changed, without asking.
const KEEP_CONFIGURATION: [&str; 2] = ["--force-confdef", "--force-confold"];

/// Packages can't be handled.
#[derive(Debug, thiserror::Error)]
pub(super) enum ManagerError {
    /// There is neither dpkg(1) nor rpm(8).
    #[error("this host has neither dpkg nor rpm: no package can be installed here")]
    None,
    /// A tool failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A package can't be installed.
    #[error("{tool} can't install {file}: {complaint}")]
    Install {
        /// The tool of package management.
        tool: &'static str,
        /// The package.
        file: String,
        /// What the tool complained about, one line.
        complaint: String,
    },
    /// A tool said what nobody expects.
    #[error("{tool} said {said:?} about {PACKAGE}: look at the package database, and repair it first")]
    UnexpectedAnswer {
        /// The tool of package management.
        tool: &'static str,
        /// What it said.
        said: String,
    },
}

/// The package manager in use.
#[derive(Debug, Clone)]
pub(super) struct Manager {
    format: Format,
    rpm_options: Vec<String>,
}

/// What the package database says about the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Installed {
    /// There is none.
    No,
    /// It is there, whole.
    Yes(Version),
    /// An installation or a removal broke off.
    Half,
}

/// What a package file says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// Name, version and architecture, separated by blanks.
    pub(super) name: String,
    /// What it takes when unpacked, bytes.
    pub(super) size: u64,
}

impl Manager {
    /// The one that the settings name, or the one that this host's packages came by.
    pub(super) fn find(settings: &Settings) -> Result<Self, ManagerError> {
        let dpkg = zone_tool::find("dpkg").is_some();
        let used = |status: &str| std::fs::metadata(status).is_ok_and(|about| about.len() > 0);
        let format = match settings.package_manager {
            PackageManager::Dpkg => Format::Deb,
            PackageManager::Rpm => Format::Rpm,
            PackageManager::Auto if dpkg && used("/var/lib/dpkg/status") => Format::Deb,
            PackageManager::Auto if zone_tool::find("rpm").is_some() => Format::Rpm,
            PackageManager::Auto if dpkg => Format::Deb,
            PackageManager::Auto => return Err(ManagerError::None),
        };
        Ok(Self { format, rpm_options: settings.rpm_options.clone() })
    }

    /// What it installs.
    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Whether the proxy is installed.
    pub(super) fn installed(&self) -> Result<Installed, ManagerError> {
        let (tool, found) = match self.format {
            Format::Deb => {
                let shown = "--showformat=${db:Status-Abbrev} ${Version}";
                ("dpkg-query", run::run("dpkg-query", &["--show", shown, PACKAGE], QUERY_TIMEOUT)?)
            }
            Format::Rpm => {
                let shown = ["-q", "--qf", "ii %{VERSION}-%{RELEASE}\n", PACKAGE];
                ("rpm", run::run("rpm", &shown, QUERY_TIMEOUT)?)
            }
        };
        // Both end with 1 where they know no such package.
        if !found.status.success() {
            return Ok(Installed::No);
        }
        state(&found.output)
            .ok_or_else(|| ManagerError::UnexpectedAnswer { tool, said: run::tail(&found.output) })
    }

    /// What a package file says about itself.
    pub(super) fn identify(&self, file: &Path) -> Result<Identity, ManagerError> {
        let file = file.to_string_lossy();
        let (tool, said) = match self.format {
            Format::Deb => {
                let shown = "--showformat=${Package} ${Version} ${Architecture}\t${Installed-Size}";
                ("dpkg-deb", run::run("dpkg-deb", &["--show", shown, &file], QUERY_TIMEOUT)?.good()?)
            }
            Format::Rpm => {
                let shown = "%{NAME} %{VERSION}-%{RELEASE} %{ARCH}\t%{SIZE}";
                (
                    "rpm",
                    run::run("rpm", &["-qp", "--nosignature", "--qf", shown, &file], QUERY_TIMEOUT)?
                        .good()?,
                )
            }
        };
        let unit = if self.format == Format::Deb { 1024 } else { 1 };
        said.trim()
            .split_once('\t')
            .and_then(|(name, size)| {
                Some(Identity { name: name.to_owned(), size: size.parse::<u64>().ok()?.saturating_mul(unit) })
            })
            .ok_or_else(|| ManagerError::UnexpectedAnswer { tool, said: run::tail(&said) })
    }

    /// Installs a package file, or upgrades to it.
    pub(super) fn install(&self, file: &Path) -> Result<(), ManagerError> {
        self.change(file, false)
    }

    /// Goes back to an earlier package.
    pub(super) fn go_back(&self, file: &Path) -> Result<(), ManagerError> {
        self.change(file, true)
    }

    fn change(&self, file: &Path, back: bool) -> Result<(), ManagerError> {
        let path = file.to_string_lossy();
        let (tool, arguments): (_, Vec<&str>) = match self.format {
            Format::Deb => ("dpkg", [&KEEP_CONFIGURATION[..], &["--install", &path]].concat()),
            Format::Rpm => {
                let options = self.rpm_options.iter().map(String::as_str);
                let back: &[&str] = if back { &["--oldpackage", "--replacepkgs"] } else { &[] };
                (
                    "rpm",
                    ["-U"].into_iter().chain(options).chain(back.iter().copied()).chain([&*path]).collect(),
                )
            }
        };
        let finished = run::run(tool, &arguments, CHANGE_TIMEOUT)?;
        if finished.status.success() {
            return Ok(());
        }
        let file = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Err(ManagerError::Install { tool, file, complaint: complaint(&finished.errors) })
    }

    /// Removes the proxy with its configuration, in whatever state it is.
    pub(super) fn remove(&self) -> Result<(), ManagerError> {
        match self.format {
            Format::Deb => {
                let arguments = ["--force-remove-reinstreq", "--purge", PACKAGE];
                run::run("dpkg", &arguments, CHANGE_TIMEOUT)?.good()?;
            }
            Format::Rpm => {
                let mut arguments = vec!["-e"];
                arguments.extend(self.rpm_options.iter().map(String::as_str));
                arguments.push(PACKAGE);
                run::run("rpm", &arguments, CHANGE_TIMEOUT)?.good()?;
            }
        }
        Ok(())
    }

    /// Whether the package database still knows the proxy at all, if only its configuration.
    pub(super) fn knows(&self) -> Result<bool, ManagerError> {
        if self.format == Format::Rpm {
            return Ok(self.installed()? != Installed::No);
        }
        let shown =
            run::run("dpkg-query", &["--show", "--showformat=${db:Status-Abbrev}", PACKAGE], QUERY_TIMEOUT)?;
        Ok(shown.status.success() && !shown.output.trim().ends_with('n'))
    }
}

/// What a tool said, without the lines in which dpkg(1) sums up, unless it said nothing else.
fn complaint(errors: &str) -> String {
    let sums_up = |line: &&str| {
        line.starts_with("Errors were encountered")
            || line.starts_with("dpkg: error processing")
            || line.ends_with("subprocess returned error exit status 1")
            || line.trim() == PACKAGE
    };
    let cause: Vec<&str> = errors.lines().filter(|line| !sums_up(line) && !line.trim().is_empty()).collect();
    if cause.is_empty() { run::tail(errors) } else { run::tail(&cause.join("\n")) }
}

/// dpkg-query's three letters are what is wanted, what is, and an error; `rc` has left only configuration.
fn state(said: &str) -> Option<Installed> {
    let said = said.trim();
    let (letters, version) = said.split_once(char::is_whitespace).unwrap_or((said, ""));
    match letters.get(1..2)? {
        "n" | "c" => Some(Installed::No),
        "i" if letters.len() == 2 => version.trim().parse().ok().map(Installed::Yes),
        _ => Some(Installed::Half),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_of_a_failed_installation_is_shown_rather_than_its_sum() {
        let said = "the new one is broken\ndpkg: error processing package zone-proxy (--install):\n installed \
                    zone-proxy package post-installation script subprocess returned error exit status 1\nErrors were \
                    encountered while processing:\n zone-proxy\n";
        assert_eq!(complaint(said), "the new one is broken");
        assert!(complaint(said.split_once('\n').unwrap().1).starts_with("dpkg: error"));
    }

    #[test]
    fn the_package_database_is_understood() {
        assert_eq!(state("ii  0.1.0-1"), Some(Installed::Yes("0.1.0-1".parse().unwrap())));
        assert_eq!(state("ii 0.1.0-1.el9\n"), Some(Installed::Yes("0.1.0-1.el9".parse().unwrap())));
        assert_eq!(state("un  "), Some(Installed::No));
        assert_eq!(state("rc  0.1.0-1"), Some(Installed::No));
        assert_eq!(state("iF  0.1.0-1"), Some(Installed::Half));
        assert_eq!(state("iU  0.1.0-1"), Some(Installed::Half));
        assert_eq!(state("iHR 0.1.0-1"), Some(Installed::Half));
        assert_eq!(state(""), None);
    }
}
