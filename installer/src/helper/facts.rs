//! What preflight looks at on this host.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::statvfs;

use super::package_manager::{Installed, Manager};
use super::{run, ssh, units};
use crate::packages::{Catalogue, PACKAGE};
use crate::paths::Paths;
use crate::settings::Settings;

/// The time for a question to one of the host's tools.
const QUERY_TIMEOUT: Duration = Duration::from_secs(15);
/// The programs of the proxy.
const PROGRAMS: [&str; 3] = ["/usr/bin/zone-proxy", "/usr/bin/zone-relay", "/usr/bin/zone-firewall"];
/// What sets clocks. Their own tools are not asked: asking timedatectl(1) starts a service.
const TIME_SERVICES: [&str; 7] =
    ["systemd-timesyncd", "chrony", "chronyd", "ntpsec", "ntpd", "ntp", "openntpd"];
/// The proxy's ports, by default.
pub(super) const PORTS: [u16; 3] = [17486, 17487, 17488];

/// The facts; each is what could be learned, or one line about why not.
#[derive(Debug)]
pub(super) struct Facts {
    /// Whether systemd booted this host.
    pub(super) systemd: bool,
    /// Whether `nft` can list rules.
    pub(super) nft: Result<(), String>,
    /// What manages this host's firewall.
    pub(super) firewalls: Vec<&'static str>,
    /// Which of [`PORTS`] somebody listens on.
    pub(super) taken: Vec<u16>,
    /// What sshd lets zone-admin do beside the menu; `None` where there is no sshd.
    pub(super) ssh: Result<Option<Vec<String>>, String>,
    /// Room for programs, bytes.
    pub(super) room_usr: Option<u64>,
    /// Room for state, bytes.
    pub(super) room_var: Option<u64>,
    /// This host's clock.
    pub(super) now: SystemTime,
    /// Whether something sets it.
    pub(super) synchronised: bool,
    /// Which package manager there is.
    pub(super) manager: Result<&'static str, String>,
    /// What the package database says.
    pub(super) installed: Result<Installed, String>,
    /// Programs of the proxy that are there.
    pub(super) programs: Vec<&'static str>,
    /// The drop folder: how many packages this host could install, and the warning about the key.
    pub(super) packages: Result<(usize, Option<String>), String>,
}

/// Looks at everything. Changes nothing.
pub(super) fn gather(paths: &Paths, settings: &Settings) -> Facts {
    let manager = Manager::find(settings);
    let installed = match &manager {
        Ok(manager) => manager.installed().map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let packages = Catalogue::read(paths).map_err(|error| error.to_string()).map(|catalogue| {
        let fitting = manager.as_ref().map_or(0, |own| catalogue.versions(own.format()).len());
        (fitting, catalogue.signed_by.warning())
    });
    Facts {
        systemd: units::booted(),
        nft: nft(),
        firewalls: firewalls(),
        taken: taken(),
        ssh: ssh::beside_the_menu().map_err(|error| error.to_string()),
        room_usr: room(Path::new("/usr")),
        room_var: room(Path::new("/var")),
        now: SystemTime::now(),
        synchronised: synchronised(),
        manager: manager
            .map(|own| if own.format() == crate::packages::Format::Deb { "dpkg" } else { "rpm" })
            .map_err(|error| error.to_string()),
        installed,
        programs: PROGRAMS.into_iter().filter(|path| Path::new(path).exists()).collect(),
        packages,
    }
}

/// Room on the file system of a folder, bytes.
pub(super) fn room(folder: &Path) -> Option<u64> {
    let about = statvfs(folder).ok()?;
    Some(about.f_bavail.saturating_mul(about.f_frsize))
}

fn nft() -> Result<(), String> {
    let listed = run::run("nft", &["list", "tables"], QUERY_TIMEOUT).map_err(|error| error.to_string())?;
    listed.good().map(drop).map_err(|error| error.to_string())
}

/// Those that keep rules of their own, by their services; iptables by the tables that it leaves in nftables.
fn firewalls() -> Vec<&'static str> {
    let mut found = Vec::new();
    if units::booted() {
        found.extend(["firewalld", "ufw", "nftables"].into_iter().filter(|name| active(name)));
    }
    let tables =
        run::run("nft", &["list", "tables"], QUERY_TIMEOUT).map(|listed| listed.output).unwrap_or_default();
    if tables.lines().any(|line| matches!(line.trim(), "table ip filter" | "table ip6 filter")) {
        found.push("iptables");
    }
    found
}

fn taken() -> Vec<u16> {
    let mut taken: Vec<u16> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .flat_map(|table| listening(&fs::read_to_string(table).unwrap_or_default()))
        .filter(|port| PORTS.contains(port))
        .collect();
    taken.sort_unstable();
    taken.dedup();
    taken
}

/// The ports that a table of proc(5) shows as listening (state 0A).
fn listening(table: &str) -> Vec<u16> {
    let port = |line: &str| {
        let mut fields = line.split_whitespace();
        let local = fields.nth(1)?;
        let state = fields.nth(1)?;
        (state == "0A").then(|| u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()).flatten()
    };
    table.lines().skip(1).filter_map(port).collect()
}

fn synchronised() -> bool {
    TIME_SERVICES.iter().any(|name| active(name))
}

fn active(service: &str) -> bool {
    units::property(&format!("{service}.service"), "ActiveState").as_deref() == Some("active")
}

/// What of the proxy is on this host, one line each, beside what `manager` knows.
pub(super) fn leftovers(paths: &Paths, manager: &Manager) -> Vec<String> {
    let mut left: Vec<String> = FOLDERS
        .iter()
        .map(PathBuf::from)
        .chain([paths.proxy_configuration.clone()])
        .chain(PROGRAMS.map(PathBuf::from))
        .filter(|path| path.symlink_metadata().is_ok())
        .map(|path| path.display().to_string())
        .collect();
    left.extend(users().into_iter().map(|user| format!("user {user}")));
    if manager.knows().unwrap_or(false) {
        left.push(format!("package {PACKAGE}"));
    }
    let tables =
        run::run("nft", &["list", "tables"], QUERY_TIMEOUT).map(|listed| listed.output).unwrap_or_default();
    if tables.lines().any(|line| line.trim() == "table inet zone_proxy") {
        left.push("nftables table inet zone_proxy".to_owned());
    }
    left
}

/// Where the proxy keeps things, beside its configuration.
pub(super) const FOLDERS: [&str; 4] =
    ["/var/lib/zone-proxy", "/var/lib/zone-firewall", "/run/zone-proxy", "/run/zone-firewall.sock"];

/// The proxy's users that exist.
pub(super) fn users() -> Vec<&'static str> {
    let known = fs::read_to_string("/etc/passwd").unwrap_or_default();
    ["zone-proxy", "zone-relay", "zone-firewall"]
        .into_iter()
        .filter(|user| known.lines().any(|line| line.split(':').next() == Some(user)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_ports_are_read_from_proc() {
        let table = "  sl  local_address rem_address   st\n   0: 00000000:4450 00000000:0000 0A 0 0\n   1: \
                     0100007F:444E 0100007F:9C40 01 0 0\n   2: junk\n";
        assert_eq!(listening(table), [17488]);
    }

    #[test]
    fn a_listener_of_this_process_is_seen() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(listening(&fs::read_to_string("/proc/net/tcp").unwrap()).contains(&port));
    }
}
