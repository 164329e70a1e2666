//! Rpms, by Debian's rpmbuild from the same staged files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::contents::{self, Format, Kind, Package, Staged};
use super::files::{fill, work_dir, write};
use super::release::{MAINTAINER, Release, date};
use crate::children;
use crate::report::{Context, Result};

/// What rpmbuild would do by itself to files that are finished, and what would differ from one build to the next.
const SETTINGS: [(&str, &str); 9] = [
    ("_build_id_links", "none"),
    ("_buildhost", "localhost"),
    ("_binary_payload", "w2.xzdio"),
    ("__os_install_post", "%{nil}"),
    ("debug_package", "%{nil}"),
    ("clamp_mtime_to_source_date_epoch", "1"),
    ("source_date_epoch_from_changelog", "0"),
    ("use_source_date_epoch_as_buildtime", "1"),
    ("_docdir_fmt", "%%{NAME}"),
];

/// Builds a package's rpm and returns where it is.
pub(crate) fn build(package: Package, release: &Release, out: &Path) -> Result<PathBuf> {
    let name = package.name();
    let top = work_dir().join("rpm");
    let (stage, list) = (top.join("stage").join(name), top.join(format!("{name}.files")));
    let staged = contents::stage(package, Format::Rpm, &stage)?;
    write(&list, &file_list(&staged), 0o644)?;
    let (revision, day) = (release.revision.to_string(), date(release, "+%a %b %d %Y")?);
    let values = [
        ("VERSION", release.version),
        ("REVISION", &revision),
        ("MAINTAINER", MAINTAINER),
        ("RPM_DATE", &day),
    ];
    let spec = top.join(format!("{name}.spec"));
    write(&spec, &fill(&format!("rpm/{name}.spec"), &values)?, 0o644)?;
    let mut command = Command::new("rpmbuild");
    command.args(["-bb", "--quiet", "--target", "x86_64-linux"]);
    for (setting, value) in SETTINGS {
        command.args(["--define", &format!("{setting} {value}")]);
    }
    let paths = [("_topdir", &top), ("stage", &stage), ("file_list", &list)];
    for (setting, value) in paths {
        command.args(["--define", &format!("{setting} {}", value.display())]);
    }
    children::output(command.arg(&spec).env("SOURCE_DATE_EPOCH", release.epoch.to_string()))?;
    let file = format!("{name}-{}-{revision}.x86_64.rpm", release.version);
    let (from, to) = (top.join("RPMS/x86_64").join(&file), out.join(&file));
    fs::copy(&from, &to).or_fail(|| format!("rpmbuild did not write {}", from.display()))?;
    Ok(to)
}

/// The `%files` of a package.
fn file_list(staged: &[Staged]) -> String {
    staged.iter().fold(String::new(), |text, file| {
        let mode = format!("%attr({:04o}, root, root)", file.mode);
        let kind = match file.kind {
            Kind::Plain => "",
            Kind::Config => "%config(noreplace) ",
            Kind::Doc => "%doc ",
            Kind::Licence => "%license ",
            Kind::Dir => "%dir ",
        };
        // A link has no mode of its own.
        let mode = if file.mode == 0o777 { String::new() } else { mode + " " };
        text + &format!("{mode}{kind}\"{}\"\n", file.path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_kinds_are_told_to_rpm() {
        let file = |path: &str, mode, kind| Staged { path: path.to_owned(), mode, kind };
        let list = file_list(&[
            file("/etc/a.toml", 0o440, Kind::Config),
            file("/usr/bin/link", 0o777, Kind::Plain),
            file("/etc/a", 0o755, Kind::Dir),
        ]);
        assert_eq!(
            list,
            "%attr(0440, root, root) %config(noreplace) \"/etc/a.toml\"\n\"/usr/bin/link\"\n\
             %attr(0755, root, root) %dir \"/etc/a\"\n"
        );
    }
}
