//! `zone-proxy`, see [`zone_proxy::cli`].

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    zone_proxy::cli::main(&zone_proxy::cli::Cli::parse())
}
