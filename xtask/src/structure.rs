//! `cargo xtask structure`: what the compiler does not check of how the code is laid out and named.
//!
//! - No circle between the files of a crate.
//! - No dependency between crates that README.md does not allow.
//! - Every word of our own in the documents is in the glossary.
//! - No name or comment that tells a reader nothing.

mod circles;
mod glossary;
mod layers;
mod markdown;
mod names;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use crate::report::{Context, Result, say};
use crate::{children, fuzz, workspace};
use layers::Package;
use source::Crate;

/// Where the table of folders is.
const README: &str = "README.md";
/// Where the glossary is.
const CONTRIBUTING: &str = "docs/contributing.md";

/// How many checks passed and failed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Nothing was found by these.
    pub(crate) passed: usize,
    /// These found something, which was printed.
    pub(crate) failed: usize,
}

/// Runs every check and prints what each finds.
pub(crate) fn run() -> Result<Counts> {
    let root = workspace::root();
    let packages = packages(&root)?;
    let readme = read(&root.join(README))?;
    let contributing = read(&root.join(CONTRIBUTING))?;
    let protocol = read(&root.join("docs/protocol.md"))?;
    let sources = sources(&root)?;
    let checks = [
        ("no file uses a file that uses it", circles(&root, &packages)?),
        ("crates depend on each other as README.md says", layers::breaches(&readme, &packages)),
        (
            "every word of our own is in the glossary",
            glossary::missing(
                &contributing,
                &[("docs/protocol.md", &protocol), (CONTRIBUTING, &contributing)],
            ),
        ),
        ("names and comments tell something", names(&root, &sources)?),
    ];
    let mut counts = Counts::default();
    for (what, found) in checks {
        if found.is_empty() {
            counts.passed += 1;
            say(&format!("   ok    {what}"));
        } else {
            counts.failed += 1;
            say(&format!("   WRONG {what}:"));
            for line in found {
                say(&format!("         {line}"));
            }
        }
    }
    Ok(counts)
}

/// The crates of the workspace, and the fuzz targets, which are a workspace of their own.
fn packages(root: &Path) -> Result<Vec<Package>> {
    let mut packages = Vec::new();
    for folder in ["", fuzz::FOLDER] {
        let mut command = workspace::cargo(&["metadata", "--no-deps", "--format-version", "1"]);
        command.arg("--manifest-path").arg(root.join(folder).join("Cargo.toml"));
        packages.extend(layers::packages(&children::output(&mut command)?, root)?);
    }
    Ok(packages)
}

/// The circles of every crate, each program of it by itself.
fn circles(root: &Path, packages: &[Package]) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for package in packages {
        for file in roots(&root.join(&package.folder).join("src"))? {
            let krate = Crate::read(&file, &|path| fs::read_to_string(path).ok())?.shown_from(root);
            for circle in circles::circles(&krate) {
                lines.push(format!("{}: a circle", package.name));
                lines.extend(circle.into_iter().map(|line| format!("   {line}")));
            }
        }
    }
    Ok(lines)
}

/// The root files of a crate: its library and its programs.
fn roots(src: &Path) -> Result<Vec<PathBuf>> {
    let mut roots: Vec<_> = ["lib.rs", "main.rs"].iter().map(|name| src.join(name)).collect();
    if src.join("bin").is_dir() {
        roots.extend(entries(&src.join("bin"))?);
    }
    roots.retain(|path| path.is_file() && is_rust(path));
    Ok(roots)
}

/// Names that are banned, in the files' own names as well.
fn names(root: &Path, sources: &[PathBuf]) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for path in sources {
        let shown = path.strip_prefix(root).unwrap_or(path).display().to_string();
        lines.extend(names::in_path(&shown));
        lines.extend(
            names::in_source(&read(path)?)
                .or_fail(|| shown.clone())?
                .into_iter()
                .map(|(line, what)| format!("{shown}:{line}: {what}")),
        );
    }
    Ok(lines)
}

/// Every Rust file of the checkout, in order.
fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let (mut sources, mut left) = (Vec::new(), vec![root.to_path_buf()]);
    while let Some(dir) = left.pop() {
        for path in entries(&dir)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !path.is_symlink() {
                if name != "target" && !name.starts_with('.') {
                    left.push(path);
                }
            } else if is_rust(&path) {
                sources.push(path);
            }
        }
    }
    sources.sort();
    Ok(sources)
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "rs")
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let list = fs::read_dir(dir).or_fail(|| format!("can't read {}", dir.display()))?;
    list.map(|entry| Ok(entry.or_fail(|| format!("can't read {}", dir.display()))?.path())).collect()
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).or_fail(|| format!("can't read {}", path.display()))
}
