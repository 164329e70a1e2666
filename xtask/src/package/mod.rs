//! `cargo xtask package`: debs and rpms from the same binaries, their sums and a signature.
//!
//! What is in the packages is [`contents`]; scripts, metadata and configuration lie in `packaging/` and `systemd/`.

mod build;
mod check;
mod contents;
mod deb;
mod elf;
mod licences;
mod rpm;
mod sign;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

pub(crate) use self::build::folder;
pub(crate) use self::check::Checks;
use self::contents::Package;
use crate::report::{Context, Result, headline, say, seconds};
use crate::{children, tools, workspace};

/// The revision that is built unless another is asked for.
pub(crate) const FIRST_REVISION: u32 = 1;
/// Where mail about the packages goes. The name is reserved (RFC 2606): set it before packages leave development.
const MAINTAINER: &str = "maintainers@zone-proxy.example";

/// What the packages of one run have in common.
struct Release {
    version: &'static str,
    revision: u32,
    /// Seconds since 1970 of the commit: the only time that is in the packages.
    epoch: u64,
}

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

/// Where everything that leads to the packages is made.
fn place() -> PathBuf {
    workspace::target().join("package")
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

/// `date`, for the commit's time.
fn date(release: &Release, format: &str) -> Result<String> {
    let mut date = Command::new("date");
    date.args(["--utc", "--date", &format!("@{}", release.epoch), format]).env("LC_ALL", "C");
    Ok(children::output(&mut date)?.trim().to_owned())
}

/// Packages that hold other binaries than the ones built last would not be what their sums claim to go with.
fn drop_packages_of_earlier_binaries(out: &Path) -> Result<()> {
    let modified = |path: &Path| path.metadata().and_then(|meta| meta.modified()).ok();
    let newest = contents::PROGRAMS.iter().filter_map(|name| modified(&build::stripped(name))).max();
    for file in packages_in(out)? {
        if modified(&file) < newest {
            fs::remove_file(&file).or_fail(|| format!("can't remove {}", file.display()))?;
        }
    }
    Ok(())
}

/// Every package in the folder, in order of their names.
fn packages_in(out: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(out).or_fail(|| format!("can't list {}", out.display()))?;
    let mut files: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "deb" || end == "rpm"))
        .collect();
    files.sort();
    Ok(files)
}

/// A file's own name.
fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Fills in what `@NAME@` stands for in a template of `packaging/`.
fn fill(template: &str, values: &[(&str, &str)]) -> Result<String> {
    let path = workspace::root().join("packaging").join(template);
    let text = fs::read_to_string(&path).or_fail(|| format!("can't read {}", path.display()))?;
    Ok(values.iter().fold(text, |text, (name, value)| text.replace(&format!("@{name}@"), value)))
}

/// Writes a file and its folder.
fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let wrong = || format!("can't write {}", path.display());
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).or_fail(wrong)?;
    }
    fs::write(path, text).or_fail(wrong)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).or_fail(wrong)
}

/// An empty folder in place of whatever was there.
fn empty(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).or_fail(|| format!("can't remove {}", dir.display()))?;
    }
    fs::create_dir_all(dir).or_fail(|| format!("can't make {}", dir.display()))
}
