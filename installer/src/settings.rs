//! `/etc/zone-installer/installer.toml`: the settings of the installer itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::paths::Paths;
use crate::trusted_file::{self, NotTrusted};

/// The longest file, bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// The bounds of the idle time of the menu, seconds.
const IDLE_SECONDS: std::ops::RangeInclusive<u64> = 5..=600;
/// The options that may be handed to rpm(8).
const RPM_OPTIONS: [&str; 1] = ["--nodeps"];

/// The settings; what the file leaves out is at its default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// Which tool installs packages.
    pub(crate) package_manager: PackageManager,
    /// Options for rpm(8): `--nodeps` on hosts where packages came by other ways.
    pub(crate) rpm_options: Vec<String>,
    /// Seconds without input after which the menu logs out.
    pub(crate) idle_timeout: u64,
    /// What this host is, for the header of the menu.
    pub(crate) role: String,
}

/// Which tool installs packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PackageManager {
    /// The one that this host's packages came by.
    Auto,
    /// dpkg(1).
    Dpkg,
    /// rpm(8).
    Rpm,
}

/// The settings can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// The file is not root's alone.
    #[error(transparent)]
    NotTrusted(#[from] NotTrusted),
    /// The file holds something wrong.
    #[error("{path}: {why}: mend the file, or remove it for the defaults")]
    Wrong {
        /// The file.
        path: String,
        /// What is wrong in it, one line.
        why: String,
    },
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            package_manager: PackageManager::Auto,
            rpm_options: Vec::new(),
            idle_timeout: *IDLE_SECONDS.end(),
            role: "Zone Server".to_owned(),
        }
    }
}

impl Settings {
    /// Reads the file; the defaults where there is none.
    pub(crate) fn read(paths: &Paths) -> Result<Self, SettingsError> {
        let Some(text) = trusted_file::read_optional(&paths.settings, MAX_FILE_BYTES)? else {
            return Ok(Self::default());
        };
        Self::parse(&text)
            .map_err(|why| SettingsError::Wrong { path: paths.settings.display().to_string(), why })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let settings: Self = toml::from_str(text).map_err(|error| error.message().replace('\n', ": "))?;
        if let Some(option) = settings.rpm_options.iter().find(|own| !RPM_OPTIONS.contains(&own.as_str())) {
            return Err(format!("rpm_options: {option:?} is not allowed, only {}", RPM_OPTIONS.join(", ")));
        }
        if !IDLE_SECONDS.contains(&settings.idle_timeout) {
            return Err(format!(
                "idle_timeout: must be from {} to {} seconds",
                IDLE_SECONDS.start(),
                IDLE_SECONDS.end()
            ));
        }
        if settings.role.len() > 24 || settings.role.chars().any(|c| c.is_control() || !c.is_ascii()) {
            return Err("role: must be at most 24 plain characters".to_owned());
        }
        Ok(settings)
    }

    /// Time without input after which the menu logs out.
    pub(crate) fn idle(&self) -> Duration {
        Duration::from_secs(self.idle_timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../installer.example.toml");

    #[test]
    fn the_example_file_shows_exactly_the_defaults() {
        assert_eq!(Settings::parse(EXAMPLE).unwrap(), Settings::default());
        let example: toml::Table = EXAMPLE.parse().unwrap();
        let known = toml::Table::try_from(Settings::default()).unwrap();
        assert_eq!(example.keys().collect::<Vec<_>>(), known.keys().collect::<Vec<_>>());
    }

    #[test]
    fn wrong_settings_are_refused_by_name() {
        for (text, named) in [
            ("idle_timeout = 601", "idle_timeout"),
            ("idle_timeout = 0", "idle_timeout"),
            ("rpm_options = [\"--root=/x\"]", "--root=/x"),
            ("package_manager = \"apt\"", "apt"),
            ("role = \"a\\u001b[2J\"", "role"),
            ("rpm_option = []", "rpm_option"),
        ] {
            let why = Settings::parse(text).unwrap_err();
            assert!(why.contains(named) && !why.contains('\n'), "{why}");
        }
    }
}
