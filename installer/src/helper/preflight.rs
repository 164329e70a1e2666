//! The verdicts of preflight, from facts alone.

use std::time::{Duration, SystemTime};

use super::facts::{Facts, PORTS};
use super::package_manager::Installed;
use crate::protocol::{Grade, Verdict};

/// Room for programs, bytes.
pub(super) const MIN_ROOM_USR_BYTES: u64 = 64 << 20;
/// Room for state and for the package database, bytes.
pub(super) const MIN_ROOM_VAR_BYTES: u64 = 64 << 20;
/// A clock before 2026-01-01 was never set; certificates would be refused.
const EARLIEST_SET_CLOCK: Duration = Duration::from_secs(1_767_225_600);

/// A verdict for each check, in the order in which an admin would mend them.
pub(super) fn judge(facts: &Facts) -> Vec<Verdict> {
    let mut verdicts = vec![ok("helper", "answers, and is root")];
    verdicts.push(systemd(facts));
    verdicts.push(match &facts.manager {
        Ok(name) => ok("package manager", name),
        Err(why) => fail("package manager", why, "set package_manager in /etc/zone-installer/installer.toml"),
    });
    verdicts.push(proxy(facts));
    verdicts.extend(packages(facts));
    verdicts.push(nftables(facts));
    verdicts.push(firewall(facts));
    verdicts.extend(ports(facts));
    verdicts.push(ssh(facts));
    verdicts.push(room("room on /usr", facts.room_usr, MIN_ROOM_USR_BYTES));
    verdicts.push(room("room on /var", facts.room_var, MIN_ROOM_VAR_BYTES));
    verdicts.push(clock(facts));
    verdicts
}

fn systemd(facts: &Facts) -> Verdict {
    if facts.systemd {
        return ok("systemd", "runs");
    }
    fail("systemd", "this host was not booted by systemd", "install on a host that is")
}

fn proxy(facts: &Facts) -> Verdict {
    let check = "zone-proxy";
    match &facts.installed {
        Ok(Installed::No) => match facts.programs.first() {
            None => ok(check, "is not installed yet"),
            Some(program) => fail(
                check,
                &format!("{program} is there and of no package"),
                "move it away, it is somebody else's",
            ),
        },
        Ok(Installed::Yes(version)) => {
            fail(check, &format!("{version} is installed already"), "upgrade it, or remove it first")
        }
        Ok(Installed::Half) => {
            fail(check, "an earlier installation broke off", "remove it, then install again")
        }
        Err(why) => fail(check, why, "repair the package database"),
    }
}

fn packages(facts: &Facts) -> Vec<Verdict> {
    let check = "packages";
    match &facts.packages {
        Err(why) => vec![fail(check, why, "")],
        Ok((0, _)) => vec![fail(check, "none for this host", "copy one to the drop folder, with its index")],
        Ok((count, warning)) => {
            let mut verdicts = vec![ok(check, &format!("{count} signed and for this host"))];
            verdicts.extend(warning.as_ref().map(|warning| warn("signature", warning, "")));
            verdicts
        }
    }
}

fn nftables(facts: &Facts) -> Verdict {
    match &facts.nft {
        Ok(()) => ok("nftables", "tool and kernel answer"),
        Err(why) => fail("nftables", why, "the package nftables and a kernel with nf_tables are needed"),
    }
}

fn firewall(facts: &Facts) -> Verdict {
    let found = if facts.firewalls.is_empty() { "none found".to_owned() } else { facts.firewalls.join(", ") };
    if facts.firewalls.contains(&"ufw") {
        let help = "a reload of ufw drops our rules until zone-firewall-restore brings them back";
        return warn("firewall manager", &found, help);
    }
    ok("firewall manager", &found)
}

fn ports(facts: &Facts) -> Vec<Verdict> {
    // An installed proxy takes them itself; that it is there was said above.
    let own = matches!(facts.installed, Ok(Installed::Yes(_)));
    if own || facts.taken.is_empty() {
        return vec![ok(
            "ports",
            if own { "the installed proxy's" } else { "17486, 17487 and 17488 are free" },
        )];
    }
    let taken = |port: &u16| {
        fail(
            &format!("port {port}"),
            "somebody listens there",
            &format!("'ss -ltnp sport = :{port}' shows who: stop it"),
        )
    };
    PORTS.iter().filter(|port| facts.taken.contains(port)).map(taken).collect()
}

fn ssh(facts: &Facts) -> Verdict {
    let check = "ssh login";
    match &facts.ssh {
        Ok(None) => ok(check, "there is no OpenSSH server"),
        Ok(Some(beside)) if beside.is_empty() => ok(check, "zone-admin gets the menu and nothing beside it"),
        Ok(Some(beside)) => fail(
            check,
            &format!("zone-admin can {}", beside.join(", ")),
            "sshd_config must include sshd_config.d/00-zone-installer.conf before all that matches zone-admin",
        ),
        Err(why) => warn(check, why, "it can't be told whether zone-admin is held to the menu: see sshd -T"),
    }
}

fn room(check: &str, room: Option<u64>, needed: u64) -> Verdict {
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    match room {
        Some(room) if room >= needed => ok(check, &mib(room)),
        Some(room) => {
            fail(check, &format!("only {}", mib(room)), &format!("make room: {} are needed", mib(needed)))
        }
        None => warn(check, "can't be told", ""),
    }
}

fn clock(facts: &Facts) -> Verdict {
    if facts.now < SystemTime::UNIX_EPOCH + EARLIEST_SET_CLOCK {
        return fail("clock", "is before 2026", "set it: certificates would not be valid yet");
    }
    if facts.synchronised {
        ok("clock", "is set by a time service")
    } else {
        warn("clock", "is set by no time service", "run one: tokens and certificates go by it")
    }
}

fn ok(check: &str, found: &str) -> Verdict {
    verdict(check, Grade::Ok, found, "")
}

fn warn(check: &str, found: &str, help: &str) -> Verdict {
    verdict(check, Grade::Warn, found, help)
}

fn fail(check: &str, found: &str, help: &str) -> Verdict {
    verdict(check, Grade::Fail, found, help)
}

fn verdict(check: &str, grade: Grade, found: &str, help: &str) -> Verdict {
    Verdict { check: check.to_owned(), grade, found: found.to_owned(), help: help.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            systemd: true,
            nft: Ok(()),
            firewalls: vec!["nftables"],
            taken: Vec::new(),
            ssh: Ok(Some(Vec::new())),
            room_usr: Some(MIN_ROOM_USR_BYTES),
            room_var: Some(MIN_ROOM_VAR_BYTES),
            now: SystemTime::UNIX_EPOCH + EARLIEST_SET_CLOCK,
            synchronised: true,
            manager: Ok("dpkg"),
            installed: Ok(Installed::No),
            programs: Vec::new(),
            packages: Ok((1, None)),
        }
    }

    fn found(facts: &Facts, check: &str) -> Verdict {
        judge(facts).into_iter().find(|verdict| verdict.check == check).unwrap()
    }

    #[test]
    fn a_ready_host_passes_every_check() {
        let verdicts = judge(&good());
        assert!(verdicts.iter().all(|verdict| verdict.grade == Grade::Ok), "{verdicts:?}");
    }

    #[test]
    fn a_host_without_sshd_is_administered_at_its_console() {
        assert_eq!(found(&Facts { ssh: Ok(None), ..good() }, "ssh login").grade, Grade::Ok);
    }

    #[test]
    fn each_thing_that_is_wrong_is_named_by_itself_and_says_what_to_do() {
        let cases: Vec<(&str, Facts)> = vec![
            ("systemd", Facts { systemd: false, ..good() }),
            ("nftables", Facts { nft: Err("nft is not installed".to_owned()), ..good() }),
            ("port 17487", Facts { taken: vec![17487], ..good() }),
            ("ssh login", Facts { ssh: Ok(Some(vec!["copy files by sftp".to_owned()])), ..good() }),
            ("room on /usr", Facts { room_usr: Some(MIN_ROOM_USR_BYTES - 1), ..good() }),
            ("room on /var", Facts { room_var: Some(0), ..good() }),
            ("clock", Facts { now: SystemTime::UNIX_EPOCH, ..good() }),
            ("package manager", Facts { manager: Err("neither dpkg nor rpm".to_owned()), ..good() }),
            ("zone-proxy", Facts { installed: Ok(Installed::Half), ..good() }),
            ("zone-proxy", Facts { installed: Ok(Installed::Yes("0.1.0-1".parse().unwrap())), ..good() }),
            ("zone-proxy", Facts { programs: vec!["/usr/bin/zone-relay"], ..good() }),
            ("packages", Facts { packages: Ok((0, None)), ..good() }),
        ];
        for (check, facts) in cases {
            let verdicts = judge(&facts);
            let failed: Vec<&Verdict> = verdicts.iter().filter(|own| own.grade == Grade::Fail).collect();
            assert_eq!(failed.len(), 1, "{check}: {failed:?}");
            assert_eq!(failed[0].check, check);
            assert!(!failed[0].help.is_empty(), "{check}");
        }
    }

    #[test]
    fn what_an_installation_survives_is_a_warning() {
        let facts = Facts {
            synchronised: false,
            firewalls: vec!["ufw"],
            packages: Ok((1, Some("DEVELOPMENT KEY".to_owned()))),
            room_var: None,
            ssh: Err("sshd has no host key".to_owned()),
            ..good()
        };
        let verdicts = judge(&facts);
        assert_eq!(verdicts.iter().map(|own| own.grade).max(), Some(Grade::Warn));
        assert_eq!(verdicts.iter().filter(|own| own.grade == Grade::Warn).count(), 5);
        assert!(found(&facts, "signature").found.contains("DEVELOPMENT"));
    }
}
