//! How a host is: its files, users, units, ports and rules, as text that can be compared.

use std::time::Duration;

use crate::lab::roots::ROOT_HOME;
use crate::lab::{Cmd, Result, Scene};

/// Where a host changes by itself or by being administered, and why that is nobody's leaving. `~` is root's home.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("/dev", "made anew at each boot"),
    ("/proc", "the kernel's"),
    ("/run", "made anew at each boot"),
    ("/sys", "the kernel's"),
    ("/tmp", "systemd keeps folders of running services here"),
    ("/var/tmp", "systemd keeps folders of running services here"),
    ("/var/log", "the journal and the logs of dpkg, apt and logins grow"),
    ("/etc/.pwd.lock", "made by the first program that changes a user"),
    ("/etc/group-", "the copy that each change of users leaves of the file before it"),
    ("/etc/gshadow-", "the same"),
    ("/etc/passwd-", "the same"),
    ("/etc/shadow-", "the same"),
    ("/etc/subgid-", "the same"),
    ("/etc/subuid-", "the same"),
    ("/var/cache/ldconfig/aux-cache", "written whenever dpkg ran"),
    ("/var/lib/dpkg/lock", "made by dpkg's first run"),
    ("/var/lib/dpkg/lock-frontend", "made by dpkg's first run"),
    (
        "/var/lib/dpkg/status",
        "keeps a line for a package whose unpacking failed; what is installed is compared",
    ),
    ("/var/lib/dpkg/status-old", "dpkg's copy of its database before the last change"),
    ("/var/lib/dpkg/triggers", "dpkg's own locks"),
    (
        "~/.rpmdb",
        "Debian's rpm keeps its database here, and it grows with each change; what it lists is compared",
    ),
    ("/var/lib/systemd", "random seed, clock and the like"),
    ("/var/lib/private", "made by systemd for services with users of the moment"),
    ("/var/cache/private", "the same"),
    ("/var/lib/sudo", "who was greeted by sudo"),
    ("~/.bash_history", "nobody's"),
];

/// How long looking at every file may take.
const LISTING_TIMEOUT: Duration = Duration::from_secs(120);

/// Every file with its type, mode, owner and contents.
const FILES: &str = r#"
find / -xdev "$@" -prune -o ! -type d -printf '%y %m %u:%g %p -> %l\n' | LC_ALL=C sort
find / -xdev "$@" -prune -o -type d -printf 'd %m %u:%g %p\n' | LC_ALL=C sort
find / -xdev "$@" -prune -o -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
"#;

/// Packages, users, units and their states, listening ports. Units of logins come and go, and some of systemd's own
/// run for a while after somebody asked them something. Targets do nothing.
const STATE: &str = r#"
echo '== packages'; dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev}\n'; [ ! -d ~root/.rpmdb ] || rpm -qa | sort
echo '== users'; getent passwd; getent group; cut -d: -f1,2 /etc/shadow
echo '== unit files'; systemctl list-unit-files --no-legend --no-pager | awk '$2 != "transient" {print $1, $2}'
echo '== units'; systemctl list-units --plain --no-legend --no-pager --type=service,socket,path,timer |
    awk '{print $1, $2, $3, $4}' | grep -v -E '^(user@|user-runtime-dir@|systemd-(timedated|hostnamed|localed)\.)'
echo '== ports'; ss -Hltnu | awk '{print $1, $5}' | sort
"#;

/// What a host was like at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    files: String,
    state: String,
    rules: String,
}

impl Snapshot {
    /// Looks at a host.
    pub(crate) fn of(scene: &Scene<'_>, host: &str) -> Result<Self> {
        let host = scene.host(host)?;
        let mut except = Vec::new();
        for (path, _) in EXCEPTIONS {
            except.extend(["-path".to_owned(), path.replace('~', ROOT_HOME), "-o".to_owned()]);
        }
        except.pop();
        let files = Cmd::sh(FILES).arg("sh").arg("(").args(except).arg(")").limit(LISTING_TIMEOUT);
        Ok(Self {
            files: host.must(&files)?.stdout,
            state: host.must(&Cmd::sh(STATE).limit(LISTING_TIMEOUT))?.stdout,
            rules: ruleset(&host.must(&Cmd::new("nft").args(["list", "ruleset"]))?.stdout),
        })
    }

    /// Checks that the host is as it was then.
    pub(crate) fn check(&self, scene: &mut Scene<'_>, host: &str, when: &str) -> Result<bool> {
        let now = Self::of(scene, host)?;
        let files = scene.check_equal(format!("{when}, every file is as before"), &self.files, &now.files);
        let state = scene.check_equal(
            format!("{when}, packages, users, units and ports are as before"),
            &self.state,
            &now.state,
        );
        let rules = scene.check_equal(format!("{when}, the firewall is as before"), &self.rules, &now.rules);
        Ok(files && state && rules)
    }
}

/// A ruleset without what its traffic counted.
pub(crate) fn ruleset(text: &str) -> String {
    let mut words = text.split(' ').peekable();
    let mut plain = Vec::new();
    while let Some(word) = words.next() {
        plain.push(word);
        if matches!(word, "packets" | "bytes")
            && words.peek().is_some_and(|next| next.starts_with(|c: char| c.is_ascii_digit()))
        {
            let number = words.next().unwrap_or_default();
            plain.push(number.trim_start_matches(|c: char| c.is_ascii_digit()));
        }
    }
    plain.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_changes_no_ruleset() {
        let one = "tcp dport 22 counter packets 12 bytes 3400 accept\nct count 5";
        let other = "tcp dport 22 counter packets 0 bytes 0 accept\nct count 5";
        assert_eq!(ruleset(one), ruleset(other));
        assert_ne!(ruleset(one), ruleset("tcp dport 23 counter packets 12 bytes 3400 accept\nct count 5"));
    }
}
