//! The programs of an earlier version, for the tests of versions that meet.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::report::{Context, Result, say};
use crate::{children, workspace};

/// The first version that is in use somewhere.
const REVISION: &str = "575d131";

/// Where they are, if they were built.
pub(crate) fn built() -> Option<PathBuf> {
    let programs = folder().join("build/debug");
    (fs::read_to_string(stamp()).ok()? == REVISION
        && workspace::PROGRAMS.iter().all(|name| programs.join(name).is_file()))
    .then_some(programs)
}

/// Builds them once, beside this version's: without optimisation or debug information, which is quickest. A checkout
/// without its history has no earlier version.
pub(crate) fn build() -> Result<()> {
    if built().is_some() {
        return Ok(());
    }
    say(&format!("Building the programs of revision {REVISION}, once; this takes a minute or two."));
    let source = folder().join("source");
    let _ = fs::remove_dir_all(&source);
    fs::create_dir_all(&source).or_fail(|| format!("can't make {}", source.display()))?;
    let archive = folder().join("source.tar");
    let mut git = Command::new("git");
    git.current_dir(workspace::root()).args(["archive", "--output"]).arg(&archive).arg(REVISION);
    children::succeed(&mut git)?;
    children::succeed(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&source))?;
    let mut cargo = workspace::cargo(&["build", "--locked"]);
    cargo.args(workspace::PROGRAMS.map(|name| format!("-p{name}"))).current_dir(&source);
    children::succeed(
        cargo.env("CARGO_TARGET_DIR", folder().join("build")).env("CARGO_PROFILE_DEV_DEBUG", "0"),
    )?;
    let _ = fs::remove_file(&archive);
    fs::write(stamp(), REVISION).or_fail(|| format!("can't write {}", stamp().display()))
}

fn folder() -> PathBuf {
    workspace::target().join("versions")
}

fn stamp() -> PathBuf {
    folder().join("revision")
}
