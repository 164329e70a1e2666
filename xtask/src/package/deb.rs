//! Debs, by dpkg-deb from a staged tree.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::contents::{self, Format, Kind, Package, Staged};
use super::files::{fill, work_dir, write};
use super::release::{MAINTAINER, Release, date};
use crate::report::Result;
use crate::{children, workspace};

const SCRIPTS: [&str; 4] = ["preinst", "postinst", "prerm", "postrm"];

/// Builds a package's deb and returns where it is.
pub(crate) fn build(package: Package, release: &Release, out: &Path) -> Result<PathBuf> {
    let name = package.name();
    let root = work_dir().join("deb").join(name);
    write(&work_dir().join("generated/changelog.Debian"), &changelog(name, release)?, 0o644)?;
    let staged = contents::stage(package, Format::Deb, &root)?;
    let size = installed_size(&root, &staged);
    let revision = release.revision.to_string();
    let control = fill(
        &format!("deb/{name}/control"),
        &[
            ("VERSION", release.version),
            ("REVISION", &revision),
            ("MAINTAINER", MAINTAINER),
            ("SIZE", &size.to_string()),
        ],
    )?;
    write(&root.join("DEBIAN/control"), &control, 0o644)?;
    write(&root.join("DEBIAN/conffiles"), &conffiles(&staged), 0o644)?;
    write(&root.join("DEBIAN/md5sums"), &sums(&root)?, 0o644)?;
    for script in SCRIPTS {
        let path = workspace::root().join("packaging/deb").join(name).join(script);
        if path.is_file() {
            write(&root.join("DEBIAN").join(script), &fill(&format!("deb/{name}/{script}"), &[])?, 0o755)?;
        }
    }
    let file = out.join(format!("{name}_{}-{revision}_amd64.deb", release.version));
    children::output(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Zxz", "-z2", "--build"])
            .arg(&root)
            .arg(&file)
            .env("SOURCE_DATE_EPOCH", release.epoch.to_string()),
    )?;
    Ok(file)
}

fn conffiles(staged: &[Staged]) -> String {
    staged
        .iter()
        .filter(|file| file.kind == Kind::Config)
        .fold(String::new(), |text, file| text + &file.path + "\n")
}

/// In KiB, as deb-control(5) has it.
fn installed_size(root: &Path, staged: &[Staged]) -> u64 {
    let size = |file: &Staged| {
        root.join(file.path.trim_start_matches('/')).symlink_metadata().map_or(0, |meta| meta.len())
    };
    staged.iter().map(|file| size(file).div_ceil(1024)).sum()
}

/// deb-md5sums(5), with which dpkg finds files that were changed later.
fn sums(root: &Path) -> Result<String> {
    let list = "find . -path ./DEBIAN -prune -o -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum | sed 's#  \\./#  #'";
    children::output(Command::new("sh").args(["-c", list]).current_dir(root))
}

fn changelog(name: &str, release: &Release) -> Result<String> {
    let Release { version, revision, .. } = release;
    let date = date(release, "+%a, %d %b %Y %H:%M:%S +0000")?;
    Ok(format!(
        "{name} ({version}-{revision}) unstable; urgency=medium\n\n  * See changelog.gz.\n\n -- Zone Proxy maintainers <{MAINTAINER}>  {date}\n"
    ))
}
