//! Folders and files from which packages are made.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::report::{Context, Result};
use crate::workspace;

/// Where everything that leads to the packages is made.
pub(crate) fn work_dir() -> PathBuf {
    workspace::target().join("package")
}

/// Every package in the folder, in order of their names.
pub(crate) fn packages_in(out: &Path) -> Result<Vec<PathBuf>> {
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
pub(crate) fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Fills in what `@NAME@` stands for in a template of `packaging/`.
pub(crate) fn fill(template: &str, values: &[(&str, &str)]) -> Result<String> {
    let path = workspace::root().join("packaging").join(template);
    let text = fs::read_to_string(&path).or_fail(|| format!("can't read {}", path.display()))?;
    Ok(values.iter().fold(text, |text, (name, value)| text.replace(&format!("@{name}@"), value)))
}

/// Writes a file and its folder.
pub(crate) fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let wrong = || format!("can't write {}", path.display());
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).or_fail(wrong)?;
    }
    fs::write(path, text).or_fail(wrong)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).or_fail(wrong)
}

/// An empty folder in place of whatever was there.
pub(crate) fn empty(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).or_fail(|| format!("can't remove {}", dir.display()))?;
    }
    fs::create_dir_all(dir).or_fail(|| format!("can't make {}", dir.display()))
}
