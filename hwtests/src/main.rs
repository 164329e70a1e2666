//! `zone-lab`: runs suites in the lab.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use zone_hwtests::lab::cleanup;
use zone_hwtests::lab::run::{Options, chosen, make_roots, run};
use zone_hwtests::lab::{Error, Places, Result, Suite};
use zone_hwtests::suites;

/// Runs suites in hosts of namespaces and booted Debian roots, and leaves nothing behind.
#[derive(Parser)]
#[command(name = "zone-lab")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run suites; without a name, all
    Run {
        /// Names of suites
        suites: Vec<String>,
        #[command(flatten)]
        settings: Settings,
    },
    /// Take the picture of the menu that the README shows
    Picture {
        /// Where it goes
        #[arg(long, default_value = "docs/images/menu.svg")]
        out: PathBuf,
        #[command(flatten)]
        settings: Settings,
    },
    /// List the suites and their cases
    List,
}

#[derive(clap::Args)]
struct Settings {
    /// Only cases whose sentence contains this
    #[arg(long)]
    only: Option<String>,
    /// Long cases too
    #[arg(long)]
    long: bool,
    /// Leave the hosts of each case up until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Fail if anything could not run
    #[arg(long)]
    strict: bool,
    /// Cases at the same time
    #[arg(long, default_value_t = 3)]
    jobs: usize,
    /// The programs as they ship
    #[arg(long, default_value = "target/release")]
    programs: PathBuf,
    /// What `cargo xtask package` made
    #[arg(long, default_value = "target/packages")]
    packages: PathBuf,
    /// Where roots and reports are kept
    #[arg(long, default_value = "target/lab")]
    lab: PathBuf,
    /// This process is the worker in namespaces of its own
    #[arg(long, hide = true)]
    inside: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.task {
        Task::List => {
            list();
            Ok(ExitCode::SUCCESS)
        }
        Task::Run { suites, settings } => named(&suites).and_then(|suites| play(&suites, &settings)),
        Task::Picture { out, settings } => play(&[suites::picture::suite(out)], &settings),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::from(2)
    })
}

fn list() {
    for suite in suites::all() {
        println!("{}: {}", suite.name, suite.about);
        for case in &suite.cases {
            println!("   {}{}", case.name, if case.long { " (long)" } else { "" });
        }
    }
}

fn play(suites: &[Suite], args: &Settings) -> Result<ExitCode> {
    let absolute = |path: &PathBuf| {
        std::path::absolute(path).map_err(|error| Error::other(format!("{}: {error}", path.display())))
    };
    let places = Places {
        programs: absolute(&args.programs)?,
        packages: absolute(&args.packages)?,
        lab: absolute(&args.lab)?,
    };
    let options = Options {
        jobs: if args.keep { 1 } else { args.jobs },
        long: args.long,
        only: args.only.clone(),
        keep: args.keep,
    };
    if !args.inside {
        if !nix::unistd::Uid::effective().is_root() {
            return Err(Error::other("the lab makes namespaces and mounts: run it as root"));
        }
        make_roots(&chosen(suites, &options), &places)?;
        let mut words: Vec<OsString> = std::env::args_os().skip(1).collect();
        words.push("--inside".into());
        let status = cleanup::run_worker(&words)?;
        return Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(2)).unwrap_or(2)));
    }
    let report = run(suites, &places.open_to_all()?, &options)?;
    println!("{}", report.last_lines(&places.lab));
    Ok(if report.is_good(args.strict) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn named(names: &[String]) -> Result<Vec<Suite>> {
    let all = suites::all();
    let known: Vec<_> = all.iter().map(|suite| suite.name).collect();
    if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(Error::other(format!("there is no suite {name}; there are: {}", known.join(", "))));
    }
    Ok(all
        .into_iter()
        .filter(|suite| names.is_empty() || names.iter().any(|name| name == suite.name))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
