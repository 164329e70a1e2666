//! What the packages of one run have in common.

use std::process::Command;

use crate::children;
use crate::report::Result;

/// Where mail about the packages goes. The name is reserved (RFC 2606): set it before packages leave development.
pub(crate) const MAINTAINER: &str = "maintainers@zone-proxy.example";

/// What the packages of one run have in common.
pub(crate) struct Release {
    pub(crate) version: &'static str,
    pub(crate) revision: u32,
    /// Seconds since 1970 of the commit: the only time that is in the packages.
    pub(crate) epoch: u64,
}

/// `date`, for the commit's time.
pub(crate) fn date(release: &Release, format: &str) -> Result<String> {
    let mut date = Command::new("date");
    date.args(["--utc", "--date", &format!("@{}", release.epoch), format]).env("LC_ALL", "C");
    Ok(children::output(&mut date)?.trim().to_owned())
}
