//! The host that the helper works on.

use super::package_manager::{Installed, Manager};
use super::report::untouched;
use crate::paths::Paths;
use crate::protocol::Failure;
use crate::settings::Settings;
use crate::version::Version;

/// What every operation works on.
pub(super) struct Host {
    pub(super) paths: Paths,
    pub(super) settings: Settings,
    pub(super) manager: Manager,
}

impl Host {
    /// Reads the settings, and finds the package manager.
    pub(super) fn open() -> Result<Self, Failure> {
        let paths = Paths::default();
        let settings = Settings::read(&paths).map_err(untouched)?;
        let manager = Manager::find(&settings).map_err(untouched)?;
        Ok(Self { paths, settings, manager })
    }

    /// The installed version; a failure if there is none.
    pub(super) fn installed(&self) -> Result<Version, Failure> {
        match self.manager.installed().map_err(untouched)? {
            Installed::Yes(version) => Ok(version),
            Installed::No => {
                Err(untouched("zone-proxy is not installed: 'zone-installer list' shows what there is"))
            }
            Installed::Half => Err(untouched(
                "an earlier installation broke off: 'zone-installer remove', then install again",
            )),
        }
    }
}
