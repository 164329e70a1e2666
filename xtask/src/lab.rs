//! `cargo xtask lab`: suites in namespaces and booted Debian roots.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use nix::unistd::Uid;

use crate::report::{Context, Result, say};
use crate::{children, package, tools, workspace};

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wishes {
    /// Names of suites; none means all.
    pub(crate) suites: Vec<String>,
    /// Only cases whose sentence contains this.
    pub(crate) only: Option<String>,
    /// Leave the hosts up until Ctrl-C.
    pub(crate) keep: bool,
    /// Long cases too.
    pub(crate) long: bool,
    /// What could not run fails the lab.
    pub(crate) strict: bool,
    /// Take the programs and packages that are there.
    pub(crate) no_build: bool,
}

/// How it went. Each check counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

/// Builds what the suites need, and runs them. The last line on the screen is `N passed, N failed`.
pub(crate) fn run(wishes: &Wishes) -> Result<Counts> {
    if !Uid::effective().is_root() {
        return Err("the lab makes namespaces and mounts, which only root may; run: sudo -E env PATH=\"$PATH\" cargo xtask lab"
            .to_owned()
            .into());
    }
    tools::ensure(tools::LAB)?;
    // Making roots asks apt where its sources are.
    tools::update_lists()?;
    let programs = if wishes.no_build { package::folder() } else { build()? };
    let target = workspace::target();
    let mut lab = std::process::Command::new(target.join("debug/zone-lab"));
    lab.arg("run").args(&wishes.suites).current_dir(workspace::root());
    lab.arg("--programs").arg(programs);
    lab.arg("--packages").arg(target.join("packages")).arg("--lab").arg(target.join("lab"));
    if let Some(only) = &wishes.only {
        lab.args(["--only", only]);
    }
    let flags = [("--keep", wishes.keep), ("--long", wishes.long), ("--strict", wishes.strict)];
    lab.args(flags.iter().filter(|(_, wanted)| *wanted).map(|(flag, _)| flag));
    let mut child = lab.stdout(Stdio::piped()).spawn().or_fail(|| "can't start zone-lab".to_owned())?;
    let mut last = String::new();
    for line in child.stdout.take().map(BufReader::new).into_iter().flat_map(BufReader::lines) {
        let Ok(line) = line else { break };
        say(&line);
        last = line;
    }
    let status = child.wait().or_fail(|| "can't wait for zone-lab".to_owned())?;
    let counts = read_counts(&last)
        .ok_or_else(|| format!("zone-lab ended with {status} before it said how many passed"))?;
    if !status.success() && counts.failed == 0 && (counts.skipped == 0 || !wishes.strict) {
        return Err(format!("zone-lab ended with {status}").into());
    }
    Ok(counts)
}

/// Says what there is to run.
pub(crate) fn list() -> Result<()> {
    build_lab()?;
    children::succeed(std::process::Command::new(workspace::target().join("debug/zone-lab")).arg("list"))
}

/// The programs, the lab itself, and packages of two revisions, to upgrade between. Returns the programs' folder.
fn build() -> Result<PathBuf> {
    build_lab()?;
    let programs = package::programs()?;
    package::run(&[package::FIRST_REVISION, package::FIRST_REVISION + 1])?;
    Ok(programs)
}

/// In the whole workspace's selection of features, so that nothing is compiled twice beside its tests.
fn build_lab() -> Result<()> {
    children::succeed(&mut workspace::cargo(&["build", "--quiet", "--workspace", "--bin", "zone-lab"]))
}

/// Reads `7 passed, 1 failed, 2 skipped`.
fn read_counts(line: &str) -> Option<Counts> {
    let mut counts = Counts::default();
    let mut parts = line.split(", ").map(|part| part.split_once(' '));
    let mut number = |wanted: &str| -> Option<usize> {
        let (number, word) = parts.next()??;
        (word == wanted).then(|| number.parse().ok())?
    };
    counts.passed = number("passed")?;
    counts.failed = number("failed")?;
    counts.skipped = number("skipped").unwrap_or(0);
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_understood() {
        assert_eq!(read_counts("7 passed, 1 failed"), Some(Counts { passed: 7, failed: 1, skipped: 0 }));
        assert_eq!(
            read_counts("7 passed, 0 failed, 2 skipped"),
            Some(Counts { passed: 7, failed: 0, skipped: 2 })
        );
        assert_eq!(read_counts("error: no such suite"), None);
    }
}
