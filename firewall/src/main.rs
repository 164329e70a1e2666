//! `zone-firewall`: the host's firewall for Zone Proxy.

use std::process::ExitCode;

fn main() -> ExitCode {
    zone_firewall::cli::main()
}
