//! The licences of everything that is linked into the programs, with their texts, as most of them ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::build;
use super::files::{work_dir, write};
use crate::report::{Context, Result};
use crate::{children, workspace};

/// The packages whose dependencies are linked into what ships.
const SHIPPED: [&str; 4] = ["zone-proxy", "zone-relay", "zone-firewall", "zone-installer"];
/// How files with licences are called, in lower case.
const NAMES: [&str; 5] = ["license", "licence", "copying", "notice", "copyright"];
/// A file that is longer holds more than a licence.
const MAX_LICENCE_BYTES: u64 = 256 * 1024;

/// A crate that is linked in.
struct Crate {
    name: String,
    version: String,
    licence: String,
    folder: PathBuf,
}

/// Writes the list for the packages.
pub(crate) fn write_list() -> Result<()> {
    let linked = linked()?;
    let metadata = children::output(&mut workspace::cargo(&[
        "metadata",
        "--locked",
        "--format-version=1",
        "--filter-platform",
        build::TARGET,
    ]))?;
    let metadata: Value =
        serde_json::from_str(&metadata).or_fail(|| "cargo metadata is no JSON".to_owned())?;
    let crates: Vec<_> = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(foreign)
        .filter(|one| linked.contains(&(one.name.clone(), one.version.clone())))
        .collect();
    if crates.len() < 10 {
        return Err(format!(
            "only {} crates seem to be linked in: cargo tree or metadata changed",
            crates.len()
        )
        .into());
    }
    write(&work_dir().join("generated/third-party-licences"), &list(&crates), 0o644)
}

/// Name and version of each crate that is linked in, by cargo's own account.
fn linked() -> Result<BTreeSet<(String, String)>> {
    let mut tree =
        workspace::cargo(&["tree", "--locked", "--edges", "normal", "--prefix", "none", "--no-dedupe"]);
    tree.args(["--target", build::TARGET, "--format", "{p}"]);
    for package in SHIPPED {
        tree.args(["-p", package]);
    }
    let text = children::output(&mut tree)?;
    Ok(text
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.split_once(" v")?;
            Some((name.to_owned(), rest.split(' ').next()?.to_owned()))
        })
        .collect())
}

/// A package of `cargo metadata`, unless it is the project's own.
fn foreign(package: &Value) -> Option<Crate> {
    package["source"].as_str()?;
    let text = |key: &str| package[key].as_str().map(str::to_owned);
    Some(Crate {
        name: text("name")?,
        version: text("version")?,
        licence: text("license").unwrap_or_else(|| "see its text".to_owned()),
        folder: Path::new(package["manifest_path"].as_str()?).parent()?.to_owned(),
    })
}

/// Crates with the same text stand together above it.
fn list(crates: &[Crate]) -> String {
    let mut by_text: BTreeMap<String, Vec<&Crate>> = BTreeMap::new();
    for one in crates {
        for text in texts(&one.folder) {
            by_text.entry(text).or_default().push(one);
        }
    }
    let title = |one: &Crate| format!("{} {} ({})\n", one.name, one.version, one.licence);
    let mut out = String::from("Zone Proxy is linked with the crates below.\n\n");
    out.extend(crates.iter().map(title));
    out += "\nlibsystemd is not among them: programs that write to the journal use the host's.\n";
    let mut groups: Vec<_> = by_text.into_iter().collect();
    groups.sort_by_cached_key(|(_, owners)| owners.iter().map(|one| title(one)).collect::<String>());
    for (text, owners) in groups {
        out += "\n----------------------------------------------------------------\n";
        let mut owners: Vec<_> = owners.into_iter().map(title).collect();
        owners.dedup();
        out.extend(owners);
        out.extend(["\n", &text, "\n"]);
    }
    out
}

fn texts(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<_> = entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().to_lowercase();
            let size = entry.metadata().map_or(0, |meta| meta.len());
            NAMES.iter().any(|start| name.starts_with(start)) && size > 0 && size <= MAX_LICENCE_BYTES
        })
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files.iter().filter_map(|path| Some(fs::read_to_string(path).ok()?.trim_end().to_owned())).collect()
}
