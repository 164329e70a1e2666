//! `cargo xtask package`: debs and rpms from the same binaries, their sums and a signature.
//!
//! What is in the packages is [`contents`]; scripts, metadata and configuration lie in `packaging/` and `systemd/`.

mod build;
mod check;
mod contents;
mod deb;
mod elf;
mod files;
mod licences;
mod release;
mod rpm;
mod sign;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

pub(crate) use self::build::folder;
pub(crate) use self::check::Checks;
use self::contents::Package;
use self::files::{name_of, packages_in};
use self::release::Release;
use crate::report::{Context, Result, headline, say, seconds};
use crate::{children, tools, workspace};

/// The revision that is built unless another is asked for.
pub(crate) const FIRST_REVISION: u32 = 1;
/// Builds both packages in both formats, as each of the revisions, and signs everything in the folder.
pub(crate) fn run(revisions: &[u32]) -> Result<()> {
    tools::ensure(tools::PACKAGE)?;
    let begin = Instant::now();
    headline("Binaries and manual pages");
    build::programs()?;
    build::manual()?;
    licences::write_list()?;
    headline("Packages");
    let out = packages();
    fs::create_dir_all(&out).or_fail(|| format!("can't make {}", out.display()))?;
    drop_packages_of_earlier_binaries(&out)?;
    let (version, epoch) = (env!("CARGO_PKG_VERSION"), epoch()?);
    for &revision in revisions {
        let release = Release { version, revision, epoch };
        for package in Package::ALL {
            for file in [deb::build(package, &release, &out)?, rpm::build(package, &release, &out)?] {
                let size = file.metadata().map_or(0, |meta| meta.len() / 1024);
                say(&format!("   {:42} {size:6} KiB", name_of(&file)));
            }
        }
    }
    sign::all(&out, version, epoch)?;
    say(&format!("Packages are in {}, made in {}.", out.display(), seconds(begin.elapsed())));
    Ok(())
}

/// Builds the programs of the packages and their peers, and returns the folder that they are in.
pub(crate) fn programs() -> Result<PathBuf> {
    tools::ensure(tools::PACKAGE)?;
    build::programs()?;
    Ok(folder())
}

/// Looks at the packages of the first revision: every finding that is not explained beside it counts as failed.
pub(crate) fn check() -> Result<Checks> {
    tools::ensure(tools::PACKAGE)?;
    check::run(&packages(), FIRST_REVISION)
}

/// Where the packages are when they are done.
pub(crate) fn packages() -> PathBuf {
    workspace::target().join("packages")
}

/// When the commit was made, or what `SOURCE_DATE_EPOCH` says (reproducible-builds.org).
fn epoch() -> Result<u64> {
    let text = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => children::output(Command::new("git").arg("-C").arg(workspace::root()).args([
            "log",
            "-1",
            "--format=%ct",
        ]))?,
    };
    text.trim().parse().or_fail(|| format!("'{}' is not a time in seconds", text.trim()))
}

/// Packages that hold other binaries than the ones built last would not be what their sums claim to go with.
fn drop_packages_of_earlier_binaries(out: &Path) -> Result<()> {
    let modified = |path: &Path| path.metadata().and_then(|meta| meta.modified()).ok();
    let newest = build::PROGRAMS.iter().filter_map(|name| modified(&build::stripped(name))).max();
    for file in packages_in(out)? {
        if modified(&file) < newest {
            fs::remove_file(&file).or_fail(|| format!("can't remove {}", file.display()))?;
        }
    }
    Ok(())
}
