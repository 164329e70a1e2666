//! Where the checkout and its build output are.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::children;
use crate::report::{Context, Result, say};

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

/// The libraries whose documentation has examples that are run, or compiled at least.
pub(crate) fn crates_with_examples() -> Result<Vec<String>> {
    let text = children::output(&mut cargo(&["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: serde_json::Value =
        serde_json::from_str(&text).or_fail(|| "can't read what cargo says of the workspace".to_owned())?;
    let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
    let mut found = Vec::new();
    for package in packages {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
        let sources = manifest.with_file_name("src");
        if sources.join("lib.rs").is_file() && has_examples(&sources)? {
            found.push(package["name"].as_str().unwrap_or_default().to_owned());
        }
    }
    Ok(found)
}

fn has_examples(folder: &Path) -> Result<bool> {
    let unreadable = || format!("can't read {}", folder.display());
    for entry in fs::read_dir(folder).or_fail(unreadable)?.flatten() {
        let path = entry.path();
        let has = if path.is_dir() {
            has_examples(&path)?
        } else {
            path.extension().is_some_and(|end| end == "rs")
                && begins_example(&fs::read_to_string(&path).or_fail(unreadable)?)
        };
        if has {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a doc comment holds code: a fence opens without a language, or with words that rustdoc knows.
fn begins_example(source: &str) -> bool {
    let mut inside = false;
    for line in source.lines().map(str::trim_start) {
        let comment = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
        let Some(language) = comment.and_then(|words| words.trim().strip_prefix("```")) else { continue };
        inside = !inside;
        let plain = ["", "rust", "no_run", "should_panic", "compile_fail"];
        if inside && language.split(',').all(|word| plain.contains(&word.trim())) {
            return true;
        }
    }
    false
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_is_told_from_a_picture_and_from_the_end_of_one() {
        assert!(begins_example("//! Words.\n//!\n//! ```\n//! let a = 1;\n//! ```\n"));
        assert!(begins_example("    /// ```no_run\n    /// run();\n    /// ```\n"));
        assert!(!begins_example("//! ```text\n//! a -> b\n//! ```\n"));
        assert!(!begins_example("let text = \"```\";\n"));
    }

    #[test]
    fn the_crate_of_the_protocol_has_examples_and_that_of_the_relay_has_none() {
        let found = crates_with_examples().expect("cargo is there");
        assert!(found.iter().any(|name| name == "zone-protocol"), "{found:?}");
        assert!(!found.iter().any(|name| name == "zone-relay"), "{found:?}");
    }
}
