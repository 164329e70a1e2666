//! Whether sshd holds zone-admin to the menu, by what sshd itself makes of its configuration.
//!
//! Of each setting sshd takes the first value that it finds. So a file or a `Match` block that comes before the packaged
//! one can take it out of force, and so can an `sshd_config` that includes no other file.

use std::time::Duration;

use super::run::{self, RunError};

/// The time for a question to sshd.
const QUERY_TIMEOUT: Duration = Duration::from_secs(15);
/// What sshd must start for zone-admin, whatever is asked for.
const MENU: &str = "/usr/bin/zone-menu";
/// Connections to ask about: `Match` blocks can tell this host from others.
const CONNECTIONS: [&str; 2] = [
    "user=zone-admin,host=localhost,addr=127.0.0.1,laddr=127.0.0.1,lport=22,rdomain=",
    "user=zone-admin,host=admin.invalid,addr=192.0.2.1,laddr=192.0.2.2,lport=22,rdomain=",
];

/// What sshd would let zone-admin do beside the menu, one line each; `None` where there is no sshd.
pub(super) fn beside_the_menu() -> Result<Option<Vec<String>>, RunError> {
    let mut found = Vec::new();
    for connection in CONNECTIONS {
        match run::run("sshd", &["-T", "-C", connection], QUERY_TIMEOUT) {
            Ok(answer) => found.extend(allowed(&answer.good()?)),
            Err(RunError::Missing(_)) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    found.sort();
    found.dedup();
    Ok(Some(found))
}

/// The same, from what `sshd -T` prints for a connection: one setting a line, its name in small letters.
fn allowed(effective: &str) -> Vec<String> {
    let value = |name: &str| {
        let lines = effective.lines().filter_map(|line| line.trim().split_once(' '));
        lines.filter(|(own, _)| *own == name).map(|(_, value)| value.trim()).next().unwrap_or("unsaid")
    };
    let mut found = Vec::new();
    if value("forcecommand") != MENU {
        found.push(format!("copy files by sftp (forcecommand is {})", value("forcecommand")));
    }
    if value("disableforwarding") != "yes" {
        let forwarding = ["allowtcpforwarding", "allowstreamlocalforwarding", "allowagentforwarding"];
        let forwarding = forwarding.into_iter().chain(["x11forwarding", "permittunnel"]);
        let open = forwarding.filter(|name| value(name) != "no");
        found.extend(open.map(|name| format!("forward ({name} is {})", value(name))));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFINED: &str = "port 22\npermittunnel no\nx11forwarding no\nallowtcpforwarding no\nallowagentforwarding no\n\
                            allowstreamlocalforwarding no\ndisableforwarding yes\nforcecommand /usr/bin/zone-menu\n";

    #[test]
    fn an_admin_with_the_menu_alone_may_nothing_beside_it() {
        assert!(allowed(CONFINED).is_empty());
        let each = CONFINED.replace("disableforwarding yes", "disableforwarding no");
        assert!(allowed(&each).is_empty(), "each way to forward is closed by itself, too");
    }

    #[test]
    fn another_forced_command_or_none_is_named() {
        for other in ["none", "internal-sftp", "/usr/bin/zone-menu; sh"] {
            let found = allowed(&CONFINED.replace(MENU, other));
            assert_eq!(found, [format!("copy files by sftp (forcecommand is {other})")]);
        }
        assert_eq!(allowed("").len(), 6, "what sshd does not say is not taken for granted");
    }

    #[test]
    fn each_way_to_forward_is_named() {
        let open = CONFINED
            .replace("disableforwarding yes", "disableforwarding no")
            .replace("allowtcpforwarding no", "allowtcpforwarding local");
        assert_eq!(allowed(&open), ["forward (allowtcpforwarding is local)"]);
    }
}
