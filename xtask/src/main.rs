//! The project's own commands, run as `cargo xtask <command>`.

mod children;
mod demo;
mod fresh;
mod fuzz;
mod parts;
mod report;
mod test;
mod tools;
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
    /// Feed the parsers what nobody would send
    Fuzz {
        /// One target; without it, each in turn
        target: Option<String>,
        /// How long each target runs
        #[arg(long, default_value_t = 20)]
        seconds: u32,
    },
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
        Task::Fuzz { target, seconds } => fuzz::run(target.as_deref(), seconds),
    }
}
