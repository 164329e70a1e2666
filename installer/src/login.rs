//! The login shell of zone-admin: the menu, and by `-c` (ssh host COMMAND) the verbs. There is no way into a shell.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;

use crate::{cli, menu};

/// Under this name the program is a login shell.
const NAME: &str = "zone-menu";
/// What may be typed after `ssh host`.
const VERBS: [&str; 11] = [
    "list",
    "install",
    "upgrade",
    "remove",
    "reset",
    "show",
    "preflight",
    "status",
    "firewall",
    "logs",
    "settings",
];
/// The longest command, bytes.
const MAX_COMMAND_BYTES: usize = 4096;

/// Whether the program was started as a login shell; login(1) puts a dash before its name.
pub fn is_login_shell(name: Option<&OsString>) -> bool {
    let name = name.map(Path::new).and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    name.strip_prefix('-').unwrap_or(&name) == NAME
}

/// The login shell.
pub fn main(arguments: &[OsString]) -> ExitCode {
    match arguments {
        [] => menu::main(),
        [option, command] if option == "-c" => match words(&command.to_string_lossy()) {
            Ok(words) => match cli::Cli::try_parse_from(words) {
                Ok(cli) => cli::main(cli),
                Err(error) => {
                    // Nobody is left to tell where even that can't be written.
                    let _ = error.print();
                    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
                }
            },
            Err(why) => refuse(why),
        },
        _ => refuse("only the menu and its verbs are allowed here"),
    }
}

fn refuse(why: &str) -> ExitCode {
    eprintln!("zone-menu: {why}: {}", VERBS.join(", "));
    ExitCode::FAILURE
}

/// The words of a command, as `zone-installer` would get them. Nothing is quoted, expanded or executed.
fn words(command: &str) -> Result<Vec<String>, &'static str> {
    const REFUSED: &str = "only these verbs are allowed here";
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b" .:/,=~+_-".contains(&byte);
    if command.len() > MAX_COMMAND_BYTES || !command.bytes().all(plain) {
        return Err(REFUSED);
    }
    let mut words: Vec<String> =
        command.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    if words.first().is_some_and(|first| first == "zone-installer") {
        words.remove(0);
    }
    match words.first() {
        Some(verb) if VERBS.contains(&verb.as_str()) || verb == "--help" || verb == "--version" => {
            words.insert(0, "zone-installer".to_owned());
            Ok(words)
        }
        _ => Err(REFUSED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_shell_is_known_by_its_name() {
        for name in ["zone-menu", "-zone-menu", "/usr/bin/zone-menu"] {
            assert!(is_login_shell(Some(&name.into())), "{name}");
        }
        for name in ["zone-installer", "/usr/bin/zone-installer", "sh", ""] {
            assert!(!is_login_shell(Some(&name.into())), "{name}");
        }
        assert!(!is_login_shell(None));
    }

    #[test]
    fn verbs_pass_and_nothing_else_does() {
        let installed = words("install 0.1.0-1 --listen 10.0.0.1 --allow fd00::/8").unwrap();
        assert_eq!(installed[..3], ["zone-installer", "install", "0.1.0-1"]);
        assert_eq!(words("zone-installer show payload").unwrap(), ["zone-installer", "show", "payload"]);
        for other in [
            "",
            " ",
            "sh",
            "bash -i",
            "menu",
            "scp -t /tmp",
            "rsync --server -e.LsfxC . /",
            "/usr/lib/openssh/sftp-server",
            "internal-sftp",
            "list; sh",
            "list && sh",
            "list | sh",
            "list\nsh",
            "list `sh`",
            "list $(sh)",
            "list > /tmp/x",
            "'list'",
            "list\u{1b}[2J",
            "-c sh",
            "zone-installer",
            "zone-installer menu",
        ] {
            assert!(words(other).is_err(), "{other:?}");
        }
        assert!(words(&format!("list {}", "x".repeat(MAX_COMMAND_BYTES))).is_err());
    }
}
