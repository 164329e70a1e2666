//! The login shell of zone-admin: the menu, and by `-c` (ssh host COMMAND) the verbs. There is no way into a shell.
//!
//! sshd is told to start the menu whatever is asked for (`ForceCommand`), because it would serve `internal-sftp` by itself,
//! without the login shell. What was asked for then comes in the environment.

use std::ffi::{OsStr, OsString};
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
/// What clients that copy files have sshd start.
const COPYING: [&str; 4] = ["internal-sftp", "sftp-server", "scp", "rsync"];
/// Where sshd puts the command that was asked for, if it starts another one.
const ORIGINAL_COMMAND: &str = "SSH_ORIGINAL_COMMAND";

/// Whether the program was started as a login shell; login(1) puts a dash before its name.
pub fn is_login_shell(name: Option<&OsString>) -> bool {
    let name = name.map(Path::new).and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    name.strip_prefix('-').unwrap_or(&name) == NAME
}

/// The login shell.
pub fn main(arguments: &[OsString]) -> ExitCode {
    match wanted(arguments, std::env::var_os(ORIGINAL_COMMAND)) {
        Ok(Wanted::Menu) => menu::main(),
        Ok(Wanted::Verb(words)) => match cli::Cli::try_parse_from(words) {
            Ok(cli) => cli::main(cli),
            Err(error) => {
                // Nobody is left to tell where even that can't be written.
                let _ = error.print();
                ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
            }
        },
        Err(why) => refuse(why),
    }
}

/// What a login is for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Menu,
    /// The words of a verb, as `zone-installer` gets them.
    Verb(Vec<String>),
}

/// Looks at the shell's arguments, and at the command that sshd has replaced by [`NAME`].
fn wanted(arguments: &[OsString], original: Option<OsString>) -> Result<Wanted, &'static str> {
    let [option, command] = arguments else {
        let menu = arguments.is_empty().then_some(Wanted::Menu);
        return menu.ok_or("only the menu and its verbs are allowed here");
    };
    if option != "-c" {
        return Err("only the menu and its verbs are allowed here");
    }
    let forced = Path::new(command).file_name() == Some(OsStr::new(NAME));
    let command = match (forced, original) {
        (true, None) => return Ok(Wanted::Menu),
        (true, Some(original)) => original,
        (false, _) => command.clone(),
    };
    words(&command.to_string_lossy()).map(Wanted::Verb)
}

fn refuse(why: &str) -> ExitCode {
    eprintln!("zone-menu: {why}: {}", VERBS.join(", "));
    ExitCode::FAILURE
}

/// The words of a command, as `zone-installer` would get them. Nothing is quoted, expanded or executed.
fn words(command: &str) -> Result<Vec<String>, &'static str> {
    const REFUSED: &str = "only these verbs are allowed here";
    const NO_COPIES: &str =
        "files can't be copied here, neither by sftp nor by scp or rsync; only these verbs are allowed here";
    let program = command.split(' ').next().map(Path::new).and_then(Path::file_name);
    if program.is_some_and(|program| COPYING.iter().any(|copying| program == *copying)) {
        return Err(NO_COPIES);
    }
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
    fn a_forced_login_gets_what_was_asked_for_within_the_same_bounds() {
        let forced = |original: Option<&str>| {
            wanted(&["-c".into(), "/usr/bin/zone-menu".into()], original.map(OsString::from))
        };
        let list = Wanted::Verb(vec!["zone-installer".to_owned(), "list".to_owned()]);
        assert_eq!(forced(None), Ok(Wanted::Menu));
        assert_eq!(forced(Some("list")), Ok(list));
        for other in ["", "sh", "zone-menu", "/usr/bin/zone-menu", "list; sh"] {
            assert_eq!(forced(Some(other)), Err("only these verbs are allowed here"), "{other:?}");
        }
        for copying in
            ["internal-sftp", "/usr/lib/openssh/sftp-server -l INFO", "scp -t /tmp", "rsync --server . /"]
        {
            let refused = forced(Some(copying));
            assert!(refused.is_err_and(|why| why.contains("can't be copied")), "{copying:?}");
        }
        // Without a forced command the environment says nothing.
        let plain = wanted(&["-c".into(), "sh".into()], Some("list".into()));
        assert!(plain.is_err(), "{plain:?}");
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
