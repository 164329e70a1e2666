//! The proxy's units, by systemctl(1).

use std::path::Path;
use std::time::Duration;

use super::run::{self, RunError};
use crate::protocol::UnitStatus;

/// What runs for as long as the proxy is installed, in the order in which it is started.
pub(super) const ENABLED: [&str; 4] =
    ["zone-firewall.socket", "zone-firewall-restore.service", "zone-relay.socket", "zone-proxy.service"];
/// Everything that may run, in the order in which it is stopped.
const STOPPED: [&str; 8] = [
    "zone-proxy.service",
    "zone-relay.socket",
    "zone-relay@*.service",
    "zone-relay-end.socket",
    "zone-relay-end@*.service",
    "zone-firewall.socket",
    "zone-firewall.service",
    "zone-firewall-restore.service",
];
/// The time for a question to systemd.
const QUERY_TIMEOUT: Duration = Duration::from_secs(15);
/// The time for units to start or to stop.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(120);

/// Units did not start, or did not stop.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnitError {
    /// systemctl(1) failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A unit failed, and said why.
    #[error("{unit} does not start: {why}")]
    Failed {
        /// The unit that failed.
        unit: &'static str,
        /// The last line that it logged.
        why: String,
    },
}

impl UnitError {
    /// systemctl(1) only says where to look for the cause.
    fn from_start(error: RunError) -> Self {
        let failed = |unit: &&str| {
            matches!(property(unit, "ActiveState").as_deref(), Some("failed" | "activating"))
                && property(unit, "Result").is_some_and(|result| result != "success")
        };
        let unit = ENABLED.into_iter().find(|unit| failed(unit));
        unit.and_then(|unit| Some(Self::Failed { unit, why: last_log_line(unit)? }))
            .unwrap_or(Self::Run(error))
    }
}

/// Whether this host was booted by systemd, sd_booted(3).
pub(super) fn booted() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Enables and starts all.
pub(super) fn start() -> Result<(), UnitError> {
    systemctl(&["daemon-reload"], QUERY_TIMEOUT)?;
    systemctl(&[&["enable", "--quiet"], &ENABLED[..]].concat(), QUERY_TIMEOUT)?;
    systemctl(&[&["start"], &ENABLED[..]].concat(), CHANGE_TIMEOUT).map_err(UnitError::from_start)
}

/// Stops and disables all, whatever of it there is.
pub(super) fn stop() -> Result<(), RunError> {
    if !booted() {
        return Ok(());
    }
    systemctl(&[&["stop"], &loadable(&STOPPED)[..]].concat(), CHANGE_TIMEOUT)?;
    let enabled = loadable(&ENABLED);
    if !enabled.is_empty() {
        systemctl(&[&["disable", "--quiet"], &enabled[..]].concat(), QUERY_TIMEOUT)?;
    }
    Ok(())
}

/// Forgets what units were and how they failed, once their files are gone.
pub(super) fn forget() -> Result<(), RunError> {
    if !booted() {
        return Ok(());
    }
    systemctl(&["daemon-reload"], QUERY_TIMEOUT)?;
    // There may be nothing that failed, which is no error here.
    run::run("systemctl", &[&["reset-failed"], &STOPPED[..]].concat(), QUERY_TIMEOUT)?;
    Ok(())
}

/// Does something to one unit.
pub(super) fn act(verb: &str, unit: &str) -> Result<(), RunError> {
    systemctl(&[verb, unit], CHANGE_TIMEOUT)
}

/// How each unit is.
pub(super) fn statuses() -> Vec<UnitStatus> {
    ENABLED
        .iter()
        .map(|name| UnitStatus {
            name: (*name).to_owned(),
            active: property(name, "ActiveState").unwrap_or_else(|| "unknown".to_owned()),
            enabled: property(name, "UnitFileState").unwrap_or_else(|| "unknown".to_owned()),
        })
        .collect()
}

/// The last line that a unit's own processes logged.
pub(super) fn last_log_line(unit: &str) -> Option<String> {
    let own = format!("_SYSTEMD_UNIT={unit}");
    let shown = ["--quiet", "--no-pager", "--output=cat", "--lines=1", &own];
    let said = run::run("journalctl", &shown, QUERY_TIMEOUT).ok()?.good().ok()?;
    (!said.trim().is_empty()).then(|| run::tail(&said))
}

/// A property of a unit; `None` where it has none.
pub(super) fn property(unit: &str, name: &str) -> Option<String> {
    let shown = run::run("systemctl", &["show", "--property", name, "--value", unit], QUERY_TIMEOUT).ok()?;
    let value = shown.good().ok()?.trim().to_owned();
    (!value.is_empty()).then_some(value)
}

/// Those whose files exist: systemctl fails on others. Patterns match what runs, and may match nothing.
fn loadable<'a>(units: &[&'a str]) -> Vec<&'a str> {
    let there = |unit: &str| {
        unit.contains('*') || property(unit, "LoadState").is_some_and(|state| state != "not-found")
    };
    units.iter().copied().filter(|unit| there(unit)).collect()
}

fn systemctl(arguments: &[&str], timeout: Duration) -> Result<(), RunError> {
    run::run("systemctl", arguments, timeout)?.good().map(drop)
}
