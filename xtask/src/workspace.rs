//! Where the checkout and its build output are.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::children;
use crate::report::{Result, say};

/// The programs that make up the product, each named like its package.
pub(crate) const PROGRAMS: [&str; 4] = ["zone-proxy", "zone-relay", "zone-module", "zone-endpoint"];

/// The checkout's top directory.
pub(crate) fn root() -> PathBuf {
    let manifest =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    manifest.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Cargo's target directory.
pub(crate) fn target() -> PathBuf {
    root().join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// `cargo`, started in the checkout.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(args);
    for name in ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH"] {
        command.env_remove(name);
    }
    command
}

/// Builds the product's programs as they ship.
pub(crate) fn build_programs() -> Result<()> {
    let mut command = cargo(&["build", "--release"]);
    for program in PROGRAMS {
        command.args(["-p", program]);
    }
    say("Building the four programs (optimised; the first time takes some minutes).");
    children::succeed(&mut command)
}

/// Builds all tests, and the lab beside them.
pub(crate) fn build_tests() -> Result<()> {
    children::succeed(&mut cargo(&["build", "--workspace", "--all-targets"]))
}

/// The first directory on the way to `path`, itself included, that other users may not pass through.
pub(crate) fn closed_to_others(path: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let mut steps: Vec<_> = path.ancestors().collect();
    steps.reverse();
    let closed = |dir: &&&Path| {
        dir.metadata().is_ok_and(|meta| meta.is_dir() && meta.permissions().mode() & 0o001 == 0)
    };
    steps.iter().find(closed).map(|dir| dir.to_path_buf())
}
