//! `cargo xtask test`: every check there is, in stages, with one line of numbers at the end.

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use crate::report::{Context, Result, Row, headline, say, seconds, table};
use crate::{children, fuzz, lab, oracle, package, parts, structure, tools, versions, workspace};

/// How long each fuzz target runs as a part of the tests.
const FUZZ_SECONDS: u32 = 10;
/// How the names of the tests begin that need the programs of an earlier version.
const VERSIONS: &str = "versions";

/// Runs the stages. A failed one doesn't keep the later ones from running, except that nothing unbuilt is tested.
pub(crate) fn run(filter: Option<&str>, strict: bool) -> Result<ExitCode> {
    let strict = strict || std::env::var("CI").is_ok_and(|value| value == "true");
    tools::ensure(tools::TEST)?;
    if filter.is_none() {
        // Before the tests: some of them are of the lab, and would be skipped without its tools.
        tools::ensure(tools::LAB)?;
    }
    parts::openssh_server()?;
    parts::haproxy()?;
    children::adopt_orphans()?;
    let mut run = Run::new()?;
    match filter {
        Some(filter) => run.only(filter),
        None => run.everything(strict),
    }
    let left = children::end_all(Duration::from_secs(2));
    if !left.is_empty() {
        say(&format!("\nnote: ended processes that the tests left behind: {}", left.join(", ")));
    }
    Ok(run.sum_up(strict))
}

/// How many tests passed and failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    passed: usize,
    failed: usize,
    ignored: usize,
}

impl Count {
    const PASSED: Self = Self { passed: 1, failed: 0, ignored: 0 };
    const FAILED: Self = Self { passed: 0, failed: 1, ignored: 0 };

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

struct Run {
    rows: Vec<Row>,
    total: Count,
    skips: PathBuf,
    skipped_in_lab: usize,
}

impl Run {
    fn new() -> Result<Self> {
        let skips = workspace::target().join("skipped-tests");
        fs::write(&skips, "").or_fail(|| format!("can't write {}", skips.display()))?;
        Ok(Self { rows: Vec::new(), total: Count::default(), skips, skipped_in_lab: 0 })
    }

    /// The tests whose name contains this, against the programs that the demo runs.
    fn only(&mut self, filter: &str) {
        if self.stage("build", |_| workspace::build_programs().map(|()| Count::PASSED)) {
            if filter.starts_with(VERSIONS) {
                self.stage("earlier version", |_| versions::build().map(|()| Count::PASSED));
            }
            let programs = workspace::target().join("release");
            self.stage("tests", |run| run.tests(&programs, Some(filter)));
            self.stage("doc tests", |run| run.doc_tests(&programs, Some(filter)));
        }
    }

    /// Everything. The programs under test are those of the packages; tests are compiled without optimisation, which
    /// takes a third of the time and makes no difference to what they measure, as that is in the programs.
    fn everything(&mut self, strict: bool) {
        self.check("fmt", workspace::cargo(&["fmt", "--check"]));
        self.check(
            "clippy",
            workspace::cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
        );
        self.stage("structure", |_| {
            let counts = structure::run()?;
            Ok(Count { passed: counts.passed, failed: counts.failed, ignored: 0 })
        });
        let mut docs = workspace::cargo(&["doc", "--workspace", "--no-deps"]);
        docs.env("RUSTDOCFLAGS", "-D warnings");
        self.check("docs", docs);
        let mut programs = PathBuf::new();
        let built = self.stage("programs", |_| {
            programs = package::programs()?;
            Ok(Count::PASSED)
        });
        if built {
            self.stage("test build", |_| workspace::build_tests().map(|()| Count::PASSED));
            self.stage("earlier version", |_| versions::build().map(|()| Count::PASSED));
            self.stage("tests", |run| run.tests(&programs, None));
            self.stage("doc tests", |run| run.doc_tests(&programs, None));
            self.stage("packages", |_| {
                package::run(&[package::FIRST_REVISION])?;
                let checks = package::check()?;
                Ok(Count { passed: checks.passed, failed: checks.failed, ignored: 0 })
            });
            self.lab(strict);
        }
        self.stage("firewall oracle", |_| {
            let wishes = oracle::Wishes { rulesets: oracle::SHORT, seed: 1, ..oracle::Wishes::default() };
            oracle::run(&wishes).map(|()| Count::PASSED)
        });
        self.fuzz();
    }

    /// The suites of the lab.
    fn lab(&mut self, strict: bool) {
        let mut skipped = 0;
        self.stage("lab", |_| {
            let counts = lab::run(&lab::Wishes { strict, ..lab::Wishes::default() })?;
            skipped = counts.skipped;
            Ok(Count { passed: counts.passed, failed: counts.failed, ignored: 0 })
        });
        self.skipped_in_lab = skipped;
    }

    fn fuzz(&mut self) {
        let targets = match fuzz::targets() {
            Ok(targets) => targets,
            Err(failure) => {
                self.stage("fuzz", |_| Err(failure));
                return;
            }
        };
        if self.stage("fuzz build", |_| fuzz::build().map(|()| Count::PASSED)) {
            // A target keeps one processor busy, and no more.
            let at_once = std::thread::available_parallelism().map_or(1, usize::from);
            for together in targets.chunks(at_once) {
                self.stage(&format!("fuzz {}", together.join(", ")), |_| Ok(fuzz_together(together)));
            }
        }
    }

    /// Runs a command that counts as one test.
    fn check(&mut self, name: &str, mut command: Command) {
        self.stage(name, |_| {
            let status = command.status().or_fail(|| format!("can't start {name}"))?;
            Ok(if status.success() { Count::PASSED } else { Count::FAILED })
        });
    }

    /// Runs a stage under a headline, notes how it went, and returns whether all was well.
    fn stage(&mut self, name: &str, work: impl FnOnce(&Self) -> Result<Count>) -> bool {
        headline(name);
        let begin = Instant::now();
        let (count, seen) = match work(self) {
            Ok(count) if count.failed == 0 => (count, format!("{} passed", count.passed)),
            Ok(count) => (count, format!("{} passed, {} FAILED", count.passed, count.failed)),
            Err(failure) => {
                say(&format!("error: {failure}"));
                (Count::FAILED, "FAILED".to_owned())
            }
        };
        let row = Row { step: name.to_owned(), seen, time: begin.elapsed() };
        say(&format!("-- {name}: {} in {}", row.seen, seconds(row.time)));
        self.total.add(count);
        self.rows.push(row);
        count.failed == 0
    }

    /// All tests of the workspace, against the programs in this folder.
    fn tests(&self, programs: &Path, filter: Option<&str>) -> Result<Count> {
        let has_nextest = workspace::cargo(&["nextest", "--version"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        let mut command = if has_nextest {
            workspace::cargo(&["nextest", "run", "--workspace", "--no-fail-fast", "--no-tests=pass"])
        } else {
            workspace::cargo(&["test", "--workspace", "--no-fail-fast", "--lib", "--bins", "--tests"])
        };
        command.args(filter);
        self.count(command, programs, has_nextest, filter.is_some())
    }

    /// The examples in documentation, which nextest does not run.
    fn doc_tests(&self, programs: &Path, filter: Option<&str>) -> Result<Count> {
        let mut command = workspace::cargo(&["test", "--no-fail-fast", "--doc"]);
        // rustdoc reads a crate for as long whether it finds an example in it or none.
        command.args(workspace::crates_with_examples()?.iter().flat_map(|name| ["-p", name]));
        command.args(filter);
        self.count(command, programs, false, filter.is_some())
    }

    /// Runs a test runner, shows its words as they come, and reads the numbers from them.
    fn count(&self, mut command: Command, programs: &Path, nextest: bool, filtered: bool) -> Result<Count> {
        command
            .env("ZONE_BIN_DIR", programs)
            .env("ZONE_PARTS", parts::dir())
            .env("ZONE_SKIP_LOG", &self.skips);
        if let Some(earlier) = versions::built() {
            command.env("ZONE_OLD_BIN_DIR", earlier);
        }
        if std::io::stdout().is_terminal() {
            command.env("CARGO_TERM_COLOR", "always");
        }
        let mut child = if nextest { command.stderr(Stdio::piped()) } else { command.stdout(Stdio::piped()) }
            .spawn()
            .or_fail(|| "can't start cargo".to_owned())?;
        let text = match (child.stdout.take(), child.stderr.take()) {
            (Some(pipe), _) => children::pass_on(pipe, std::io::stdout()),
            (_, Some(pipe)) => children::pass_on(pipe, std::io::stderr()),
            _ => String::new(),
        };
        let status = child.wait().or_fail(|| "can't wait for cargo".to_owned())?;
        let mut count = read_counts(&without_colours(&text));
        if nextest && filtered {
            // nextest counts what the filter left out as skipped.
            count.ignored = 0;
        }
        if !status.success() && count.failed == 0 {
            say("error: the test runner failed before or beside the tests; it says why above");
            count.failed = 1;
        }
        Ok(count)
    }

    /// Prints the table, every skip, and the line of numbers.
    fn sum_up(&self, strict: bool) -> ExitCode {
        say(&format!("\n{}", table(&self.rows)));
        let skips = read_skips(&self.skips);
        let Count { passed, failed, ignored } = self.total;
        if !skips.is_empty() || ignored > 0 || self.skipped_in_lab > 0 {
            headline("SKIPPED");
            for line in &skips {
                say(&format!("   {line}"));
            }
            if ignored > 0 {
                say(&format!("   {ignored} tests marked #[ignore]"));
            }
            if self.skipped_in_lab > 0 {
                say(&format!("   {} checks of the lab, which names them above", self.skipped_in_lab));
            }
            if strict {
                say("A run that is strict, or in CI, fails for it.");
            }
        }
        let skipped = skips.len() + ignored + self.skipped_in_lab;
        // A test that skips itself ends well, so the runner took it for passed.
        let passed = passed.saturating_sub(skips.len());
        say("");
        say(&last_line(passed, failed, skipped));
        if failed == 0 && (skipped == 0 || !strict) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Plays some targets side by side, each for the whole time.
fn fuzz_together(targets: &[String]) -> Count {
    let mut count = Count::default();
    std::thread::scope(|scope| {
        let mut running = Vec::new();
        for target in targets {
            running.push(scope.spawn(move || fuzz::play(target, FUZZ_SECONDS)));
        }
        for player in running {
            let result =
                player.join().unwrap_or_else(|_| Err("a fuzz target's player panicked".to_owned().into()));
            count.add(match result {
                Ok(()) => Count::PASSED,
                Err(failure) => {
                    say(&format!("error: {failure}"));
                    Count::FAILED
                }
            });
        }
    });
    count
}

fn last_line(passed: usize, failed: usize, skipped: usize) -> String {
    let skipped = if skipped == 0 { String::new() } else { format!(", {skipped} skipped") };
    format!("{passed} passed, {failed} failed{skipped}")
}

fn read_skips(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
}

fn without_colours(text: &str) -> String {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(one) = chars.next() {
        if one == '\u{1b}' {
            chars.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(one);
        }
    }
    plain
}

/// Adds up `test result:` lines of libtest and `Summary` lines of nextest.
fn read_counts(text: &str) -> Count {
    let mut count = Count::default();
    for line in text.lines().map(str::trim_start) {
        let Some(numbers) = line
            .strip_prefix("test result: ")
            .or_else(|| line.strip_prefix("Summary [").and_then(|rest| Some(rest.split_once(']')?.1)))
        else {
            continue;
        };
        let words: Vec<_> =
            numbers.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        for pair in words.windows(2) {
            let Ok(number) = pair[0].parse::<usize>() else { continue };
            match pair[1] {
                "passed" => count.passed += number,
                "failed" | "timed" | "exec" => count.failed += number,
                "ignored" | "skipped" => count.ignored += number,
                _ => {}
            }
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_runners_are_understood() {
        let libtest = "running 3 tests\ntest result: ok. 2 passed; 1 failed; 4 ignored; 0 measured; 9 filtered out; finished in 0.00s\n\
                       test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s\n";
        assert_eq!(read_counts(libtest), Count { passed: 7, failed: 1, ignored: 4 });
        let nextest =
            "     Summary [   0.012s] 9 tests run: 5 passed (1 slow), 3 failed, 1 timed out, 2 skipped\n";
        assert_eq!(read_counts(nextest), Count { passed: 5, failed: 4, ignored: 2 });
    }

    #[test]
    fn colours_are_taken_away() {
        assert_eq!(without_colours("\u{1b}[32;1m     Summary\u{1b}[0m [1s] ok"), "     Summary [1s] ok");
    }

    #[test]
    fn skips_are_told_only_if_there_are_any() {
        assert_eq!(last_line(3, 0, 0), "3 passed, 0 failed");
        assert_eq!(last_line(3, 1, 2), "3 passed, 1 failed, 2 skipped");
    }
}
