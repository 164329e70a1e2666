//! Goes to a newer package. Configuration and provisioning stay, and so do sessions: a relay outlives the control
//! process. If the new one does not serve, the old one comes back.

use std::fs;
use std::path::Path;

use super::configuration::{self, Saved};
use super::host::Host;
use super::package_manager::Installed;
use super::report::{progress, untouched};
use super::{install, proxy, units};
use crate::packages::PackageError;
use crate::protocol::{Failure, HostState, Reply};
use crate::version::Version;

/// The unit of the control process.
const CONTROL_UNIT: &str = "zone-proxy.service";

/// Verifies, upgrades, and waits until the new version serves what the old one did.
pub(super) fn upgrade(host: &Host, version: &Version) -> Result<Reply, Failure> {
    let installed = host.installed()?;
    if *version == installed {
        return Err(untouched(format!("{installed} is installed already")));
    }
    if *version < installed {
        return Err(untouched(PackageError::Older { wanted: version.clone(), installed }));
    }
    let staged = install::verified(host, version)?;
    let back = install::kept(&host.paths, &installed, host.manager.format());
    if back.is_none() {
        progress(format!("warning: no copy of {installed} is kept: there is no way back from this upgrade"));
    }
    let saved = configuration::save(&host.paths).map_err(untouched)?;
    let state = proxy::status().ok().and_then(|status| status["state"].as_str().map(str::to_owned));
    match carry_out(host, &staged, state.as_deref()) {
        Ok(()) => {
            install::keep(&host.paths, &staged)
                .unwrap_or_else(|why| progress(format!("no way back is kept: {why}")));
            Ok(Reply::Upgraded { from: installed, to: version.clone() })
        }
        Err(why) => {
            progress(format!("failed: {why}"));
            // Its room may be what is lacking.
            let _ = fs::remove_dir_all(host.paths.stage());
            Err(Failure { why, host: go_back(host, back.as_deref(), &saved, &installed) })
        }
    }
}

fn carry_out(host: &Host, staged: &Path, state: Option<&str>) -> Result<(), String> {
    progress("installing the package");
    host.manager.install(staged).map_err(|error| error.to_string())?;
    let now = bring_up()?;
    match state {
        Some(before) if before != now => {
            Err(format!("the proxy was {before} and is {now} after the upgrade"))
        }
        _ => Ok(()),
    }
}

/// Rules, units and the running program are those of the package that is installed now.
fn bring_up() -> Result<String, String> {
    let told = |error: proxy::ProxyError| error.to_string();
    proxy::check_configuration().map_err(told)?;
    proxy::firewall_apply().map_err(told)?;
    progress("starting the proxy");
    units::start().map_err(|error| error.to_string())?;
    if runs_a_replaced_program() {
        units::act("restart", CONTROL_UNIT).map_err(|error| error.to_string())?;
    }
    proxy::wait_until_served().map_err(told)
}

/// The kernel shows the program of a process as deleted once its file was replaced.
fn runs_a_replaced_program() -> bool {
    units::property(CONTROL_UNIT, "MainPID")
        .and_then(|pid| fs::read_link(format!("/proc/{pid}/exe")).ok())
        .is_some_and(|program| program.to_string_lossy().ends_with(" (deleted)"))
}

fn go_back(host: &Host, back: Option<&Path>, saved: &Saved, version: &Version) -> HostState {
    let Some(back) = back else {
        return HostState::Left(vec![format!(
            "no copy of {version} is kept to go back to: install a good version"
        )]);
    };
    progress(format!("going back to {version}"));
    // Where the new package could not even be unpacked, the package manager has kept the old one.
    let kept = matches!(host.manager.installed(), Ok(Installed::Yes(now)) if now == *version);
    let installed = if kept { Ok(()) } else { host.manager.go_back(back) };
    let returned = installed.map_err(|error| error.to_string()).and_then(|()| {
        saved.restore().map_err(|error| error.to_string())?;
        bring_up()
    });
    match returned {
        Ok(_) => HostState::Undone,
        Err(why) => HostState::Left(vec![format!("{version} could not be brought back: {why}")]),
    }
}
