//! The command line of the inside peer.

mod cli;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("zone-module: can't start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(cli::run(arguments));
    // A read from standard input can't be interrupted; waiting for it would keep the process alive.
    runtime.shutdown_background();
    match ended {
        Ok(status) => status,
        Err(error) => {
            eprintln!("zone-module: {error}");
            ExitCode::from(error.exit_status())
        }
    }
}
