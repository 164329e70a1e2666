//! `cargo xtask fuzz`: libFuzzer on stable Rust, for what reads bytes from strangers.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use crate::children::{self, Errors};
use crate::report::{Context, Result, headline, say};
use crate::{tools, workspace};

/// `cargo fuzz` asks for a nightly compiler; these are the flags that make stable instrument the code.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                     -Cllvm-args=-sanitizer-coverage-pc-table -Ccodegen-units=1";
/// How often a target that runs says how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// The crate with the targets, a workspace of its own, from the checkout's top.
pub(crate) const FOLDER: &str = "protocol/fuzz";

/// Fuzzes one target or all, and fails if one of them found something.
pub(crate) fn run(target: Option<&str>, seconds: u32) -> Result<ExitCode> {
    tools::ensure(tools::FUZZ)?;
    let mut chosen = targets()?;
    if let Some(target) = target {
        if !chosen.iter().any(|one| one == target) {
            return Err(format!("no fuzz target '{target}'; there are {}", chosen.join(", ")).into());
        }
        chosen.retain(|one| one == target);
    }
    build()?;
    let mut code = ExitCode::SUCCESS;
    for target in chosen {
        headline(&format!("fuzz {target}"));
        if let Err(failure) = play(&target, seconds) {
            say(&format!("error: {failure}"));
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

/// The names of the fuzz crate's programs.
pub(crate) fn targets() -> Result<Vec<String>> {
    let manifest = crate_dir().join("Cargo.toml");
    let text = fs::read_to_string(&manifest).or_fail(|| format!("can't read {}", manifest.display()))?;
    Ok(program_names(&text))
}

/// Builds all targets.
pub(crate) fn build() -> Result<()> {
    say("Building the fuzz targets.");
    let manifest = crate_dir().join("Cargo.toml");
    let mut command = workspace::cargo(&["build", "--release", "--manifest-path"]);
    // With a target named, cargo keeps the flags away from build scripts, which can't be linked with them.
    command
        .arg(manifest)
        .arg("--target")
        .arg(host()?)
        .arg("--target-dir")
        .arg(work_dir())
        .env("RUSTFLAGS", FLAGS);
    children::succeed(&mut command)
}

/// Runs one target on the seeds in git and on what earlier runs found.
pub(crate) fn play(target: &str, seconds: u32) -> Result<()> {
    let program = work_dir().join(host()?).join("release").join(target);
    let (found, seeds) = (work_dir().join("corpus").join(target), crate_dir().join("corpus").join(target));
    let (artifacts, logs) = (work_dir().join("artifacts"), work_dir().join("logs"));
    for dir in [&found, &artifacts, &logs] {
        fs::create_dir_all(dir).or_fail(|| format!("can't make {}", dir.display()))?;
    }
    let log = logs.join(format!("{target}.log"));
    let mut file = File::create(&log).or_fail(|| format!("can't write {}", log.display()))?;
    let mut command = Command::new(&program);
    command.arg(&found);
    if seeds.is_dir() {
        command.arg(&seeds);
    }
    command.args(["-timeout=5", "-rss_limit_mb=1024", "-print_final_stats=1"]);
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-artifact_prefix={}/{target}-", artifacts.display()));
    let mut seen = Seen::default();
    let mut spoken = Instant::now();
    // Beyond its time the target may still finish one input and write it down.
    let limit = Duration::from_secs(u64::from(seconds) + 60);
    let status = children::lines(command, Errors::Merged, limit, |line| {
        let _ = writeln!(file, "{line}");
        seen.read(line);
        if spoken.elapsed() > PROGRESS_INTERVAL {
            spoken = Instant::now();
            say(&format!("   {target}: {}", seen.words()));
        }
    })?;
    say(&format!("   {target}: {}", seen.words()));
    if status.success() {
        return Ok(());
    }
    match seen.artifact {
        Some(artifact) => Err(format!(
            "{target} found an input that fails: {artifact}; to see it again: {} {artifact}; its words are in {}",
            program.display(),
            log.display()
        )
        .into()),
        None => Err(format!("{target} ended with {status}; its words are in {}", log.display()).into()),
    }
}

/// The target triple of this machine, as the compiler calls it.
fn host() -> Result<String> {
    let about = children::output(Command::new("rustc").arg("-vV").current_dir(workspace::root()))?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "rustc -vV names no host".to_owned().into())
}

fn crate_dir() -> PathBuf {
    workspace::root().join(FOLDER)
}

fn work_dir() -> PathBuf {
    workspace::target().join("fuzz")
}

/// The `name` of each `[[bin]]` in a manifest.
fn program_names(manifest: &str) -> Vec<String> {
    let mut section = "";
    let mut names = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        } else if let Some(("name", name)) =
            line.split_once('=').map(|(key, value)| (key.trim(), value.trim()))
            && section == "[[bin]]"
        {
            names.push(name.trim_matches('"').to_owned());
        }
    }
    names
}

/// What libFuzzer has said so far.
#[derive(Debug, Default)]
struct Seen {
    executions: u64,
    coverage: u64,
    units: u64,
    artifact: Option<String>,
}

impl Seen {
    fn read(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix('#') {
            let mut words = rest.split_whitespace();
            self.executions = words.next().and_then(|word| word.parse().ok()).unwrap_or(self.executions);
            if words.next() == Some("NEW") {
                self.units += 1;
            }
            if let Some("cov:") = words.find(|word| *word == "cov:") {
                self.coverage = words.next().and_then(|word| word.parse().ok()).unwrap_or(self.coverage);
            }
        } else if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
            self.executions = count.trim().parse().unwrap_or(self.executions);
        } else if let Some((_, artifact)) = line.split_once("Test unit written to ") {
            self.artifact = Some(artifact.trim().to_owned());
        }
    }

    fn words(&self) -> String {
        format!(
            "{} inputs tried, {} places in the code reached, {} new inputs kept",
            self.executions, self.coverage, self.units
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_read_from_a_manifest() {
        let manifest = "[package]\nname = \"fuzz\"\n[[bin]]\nname = \"token\"\npath = \"a.rs\"\n\n[[bin]]\nname=\"head\"\n[lib]\nname = \"no\"\n";
        assert_eq!(program_names(manifest), ["token", "head"]);
    }

    #[test]
    fn libfuzzer_is_understood() {
        let mut seen = Seen::default();
        seen.read(
            "#1024\tNEW    cov: 31 ft: 40 corp: 5/9b lim: 4 exec/s: 0 rss: 30Mb L: 2/4 MS: 1 ChangeBit-",
        );
        seen.read("#2048\tpulse  cov: 32 ft: 41 corp: 5/9b");
        seen.read("artifact_prefix='a/'; Test unit written to a/crash-1");
        assert_eq!((seen.executions, seen.coverage, seen.units), (2048, 32, 1));
        assert_eq!(seen.artifact.as_deref(), Some("a/crash-1"));
    }
}
