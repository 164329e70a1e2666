//! The project's own commands, run as `cargo xtask <command>`.

mod children;
mod demo;
mod fresh;
mod fuzz;
mod lab;
mod oracle;
mod package;
mod parts;
mod report;
mod structure;
mod test;
mod tools;
mod versions;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::children::Signals;
use crate::report::{Result, say};

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    /// This process is the worker of a guarding one.
    #[arg(long, hide = true, global = true)]
    guarded: bool,
    #[command(subcommand)]
    task: Task,
}

/// What can be asked for.
#[derive(Subcommand)]
enum Task {
    /// Show the product at work on this machine, step by step, and leave nothing behind
    Demo {
        /// Leave it running at the end and say what to try next
        #[arg(long)]
        keep: bool,
        /// End what an earlier `demo --keep` left running
        #[arg(long, conflicts_with = "keep")]
        stop: bool,
        /// Take the programs that target/release holds already
        #[arg(long)]
        no_build: bool,
    },
    /// Check and test everything; the last line is `N passed, N failed`
    Test {
        /// Run only the tests whose name contains this, and leave out lints, docs and fuzzing
        filter: Option<String>,
        /// A skipped test fails the run, as it does where CI=true
        #[arg(long)]
        strict: bool,
    },
    /// Check what the compiler does not: circles between files, who depends on whom, words and names
    Structure,
    /// Feed the parsers what nobody would send
    Fuzz {
        /// One target; without it, each in turn
        target: Option<String>,
        /// How long each target runs
        #[arg(long, default_value_t = 20)]
        seconds: u32,
    },
    /// Build debs and rpms into target/packages, with their sums and a signature
    Package {
        /// The packages' revision, the number behind the version; repeat it for more, to upgrade between
        #[arg(long, default_values_t = [package::FIRST_REVISION])]
        revision: Vec<u32>,
        /// Look at the packages that are there instead: lintian, rpmlint, units, glibc, signature
        #[arg(long, conflicts_with = "revision")]
        check: bool,
    },
    /// Run suites in network namespaces and booted Debian roots, and leave nothing behind
    Lab {
        /// Suites by name; without one, all
        suites: Vec<String>,
        /// Only cases whose sentence contains this
        #[arg(long)]
        only: Option<String>,
        /// Leave the hosts up until Ctrl-C, and say how to get in
        #[arg(long)]
        keep: bool,
        /// Cases that take long, too
        #[arg(long)]
        long: bool,
        /// What could not run fails it, as it does where CI=true
        #[arg(long)]
        strict: bool,
        /// Take the programs and packages that are there
        #[arg(long)]
        no_build: bool,
        /// Say what there is to run
        #[arg(long)]
        list: bool,
    },
    /// Hold zone-firewall's judge against the kernel, by random rulesets and real packets; exit 1 where they disagree
    FirewallOracle(oracle::Wishes),
    /// Run the demo from a clone on a bare Debian 12 that has only Rust, git and gcc
    Fresh {
        /// Run `cargo xtask test` there instead
        #[arg(long)]
        test: bool,
    },
    /// The demo's own steps, in the surroundings that `demo` made for them
    #[command(hide = true)]
    DemoPlay {
        #[arg(long)]
        dir: PathBuf,
        #[arg(long)]
        net: u8,
        #[arg(long)]
        keep: bool,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(failure) => {
            say(&format!("error: {failure}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    if cli.guarded {
        Signals::release()?;
    }
    match cli.task {
        Task::Demo { stop: true, .. } => demo::stop(),
        Task::Demo { keep, no_build, .. } => demo::run(keep, no_build),
        Task::DemoPlay { dir, net, keep } => demo::play(dir, net, keep),
        Task::Test { .. } | Task::Fresh { .. } if !cli.guarded => {
            children::guard_this_command(Duration::from_secs(10))
        }
        Task::Test { filter, strict } => test::run(filter.as_deref(), strict),
        Task::Fresh { test } => fresh::run(test),
        Task::Package { check: true, .. } => {
            let checks = package::check()?;
            say(&format!("{} passed, {} failed", checks.passed, checks.failed));
            Ok(if checks.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Task::Package { revision, .. } => package::run(&revision).map(|()| ExitCode::SUCCESS),
        Task::Lab { list: true, .. } => lab::list().map(|()| ExitCode::SUCCESS),
        Task::Lab { suites, only, keep, long, strict, no_build, list: _ } => {
            let strict = strict || std::env::var("CI").is_ok_and(|value| value == "true");
            let counts = lab::run(&lab::Wishes { suites, only, keep, long, strict, no_build })?;
            let good = counts.failed == 0 && (counts.skipped == 0 || !strict);
            Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Task::FirewallOracle(wishes) => oracle::run(&wishes).map(|()| ExitCode::SUCCESS),
        Task::Structure => {
            let counts = structure::run()?;
            say(&format!("{} passed, {} failed", counts.passed, counts.failed));
            Ok(if counts.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Task::Fuzz { target, seconds } => fuzz::run(target.as_deref(), seconds),
    }
}
