//! `zone-installer`; under the name `zone-menu` the login shell of zone-admin.

use std::process::ExitCode;

use clap::Parser as _;
use zone_installer::{cli, login};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    if login::is_login_shell(arguments.first()) {
        return login::main(&arguments[1..]);
    }
    cli::main(cli::Cli::parse())
}
