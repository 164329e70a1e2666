//! `zone-installer-helper`: the only part of the installer that is root.

use std::process::ExitCode;

fn main() -> ExitCode {
    zone_installer::helper::main()
}
