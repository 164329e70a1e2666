//! `zone-generate DIR`: manual pages and completions of the packaged programs.
//!
//! Sections 8 and the completions come from the command definitions, section 5 from the example configurations, so that
//! neither can say anything else than the programs do.

mod commands;
mod settings;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use clap_complete::Shell;

/// Writes manual pages (`man/`) and completions (`completions/bash`, `zsh`, `fish`) to a folder.
#[derive(Debug, Parser)]
#[command(name = "zone-generate")]
struct Cli {
    /// The folder; it is made if it is missing.
    dir: PathBuf,
}

fn main() -> ExitCode {
    let dir = Cli::parse().dir;
    match write_all(&dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zone-generate: can't write to {}: {error}", dir.display());
            ExitCode::FAILURE
        }
    }
}

fn write_all(dir: &Path) -> std::io::Result<()> {
    let man = dir.join("man");
    fs::create_dir_all(&man)?;
    for program in programs() {
        for page in commands::pages(program) {
            fs::write(man.join(page.file), page.text)?;
        }
    }
    for file in settings::FILES {
        fs::write(man.join(format!("{}.5", file.name)), settings::page(file))?;
    }
    for (shell, name) in [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")] {
        let dir = dir.join("completions").join(name);
        fs::create_dir_all(&dir)?;
        for mut program in programs() {
            let name = program.get_name().to_owned();
            clap_complete::generate_to(shell, &mut program, name, &dir)?;
        }
    }
    Ok(())
}

/// The programs that a person calls.
fn programs() -> [clap::Command; 3] {
    [zone_proxy::cli::Cli::command(), zone_firewall::cli::Cli::command(), zone_installer::cli::Cli::command()]
}
