//! Debian roots for hosts, made once by mmdebstrap(1) and kept by a hash of what they are made of.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::command::{COMMAND_TIMEOUT, run, succeed};
use super::error::{Context, Result};

/// Root's home in these roots, as in any Debian (passwd(5)).
pub const ROOT_HOME: &str = "/root";

const SUITE: &str = "bookworm";
/// Changes when a root is made otherwise than before, so that no old one is taken.
const RECIPE: &str = "1";
/// How long making one may take: some hundred packages are fetched.
const MAKE_TIMEOUT: Duration = Duration::from_secs(900);

/// What a root holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Root {
    /// Its name among the cached ones.
    pub name: &'static str,
    /// Its packages beside Debian's essential ones.
    pub packages: &'static [&'static str],
    /// Units that its packages enabled and that no host wants unasked.
    pub disabled: &'static [&'static str],
}

const BASE_DISABLED: &[&str] = &["ssh.service", "ssh.socket", "nftables.service"];

/// What an appliance has before anything of ours comes: systemd, sshd, sudo, nftables.
pub const APPLIANCE: Root = Root {
    name: "appliance",
    packages: &[
        "dbus",
        "iproute2",
        "iptables",
        "libpam-systemd",
        "nftables",
        "openssh-server",
        "polkitd",
        "procps",
        "rpm",
        "sudo",
        "systemd",
        "systemd-sysv",
    ],
    disabled: BASE_DISABLED,
};

/// The same with firewalld.
pub const FIREWALLD: Root = Root {
    name: "firewalld",
    packages: &[
        "dbus",
        "firewalld",
        "iproute2",
        "iptables",
        "libpam-systemd",
        "nftables",
        "openssh-server",
        "polkitd",
        "procps",
        "rpm",
        "sudo",
        "systemd",
        "systemd-sysv",
    ],
    disabled: &["firewalld.service", "ssh.service", "ssh.socket", "nftables.service"],
};

/// A host with ufw, and Python for who listens there.
pub const UFW: Root = Root {
    name: "ufw",
    packages: &[
        "dbus",
        "iproute2",
        "iptables",
        "nftables",
        "procps",
        "python3-minimal",
        "systemd",
        "systemd-sysv",
        "ufw",
    ],
    disabled: &["nftables.service"],
};

/// HAProxy and nginx with its stream module, to be run by hand in a root that does not boot.
pub const BALANCER: Root = Root {
    name: "balancer",
    packages: &["haproxy", "iproute2", "libnginx-mod-stream", "nginx-light", "procps"],
    disabled: &[],
};

impl Root {
    /// Where it is once it is made.
    pub fn path(&self, roots: &Path) -> PathBuf {
        let recipe = format!("{RECIPE} {SUITE} {:?} {:?}", self.packages, self.disabled);
        let hash = Sha256::digest(recipe);
        let short = hash.iter().take(4).fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        roots.join(format!("{}-{short}", self.name))
    }

    /// Makes it if it isn't there. Another run that is making it is waited for.
    pub fn ensure(&self, roots: &Path) -> Result<PathBuf> {
        let path = self.path(roots);
        if path.is_dir() {
            return Ok(path);
        }
        fs::create_dir_all(roots).during(|| format!("can't make {}", roots.display()))?;
        let lock_path = roots.join(format!("{}.lock", self.name));
        let file = fs::File::create(&lock_path).during(|| format!("can't make {}", lock_path.display()))?;
        // It is let go with the file.
        flock(&file, FlockOperation::LockExclusive)
            .during(|| format!("can't lock {}", lock_path.display()))?;
        if path.is_dir() {
            return Ok(path);
        }
        println!("Making the root {}: Debian 12 with {}", self.name, self.packages.join(", "));
        let draft = roots.join(format!("{}.draft", self.name));
        remove(&draft)?;
        self.make(&draft, roots)?;
        fs::rename(&draft, &path).during(|| format!("can't move {} into place", draft.display()))?;
        Ok(path)
    }

    fn make(&self, draft: &Path, roots: &Path) -> Result<()> {
        let transport = roots.join(format!("{}.apt.conf", self.name));
        fs::write(&transport, apt_transport()?).during(|| format!("can't write {}", transport.display()))?;
        let mut command = Command::new("mmdebstrap");
        command.args(["--quiet", "--variant=minbase"]);
        command.arg(format!("--include={}", self.packages.join(",")));
        command.arg(format!("--aptopt={}", transport.display()));
        for unit in self.disabled {
            command.arg(format!("--customize-hook=chroot \"$1\" systemctl --quiet disable {unit}"));
        }
        // Names are for hosts to have; what is nobody's is the same for all.
        command.arg("--customize-hook=rm -f \"$1/etc/machine-id\" \"$1/etc/hostname\"");
        command.arg("--customize-hook=echo 127.0.0.1 localhost > \"$1/etc/hosts\"");
        command.arg(SUITE).arg(draft).args(apt_sources()?);
        succeed(&format!("mmdebstrap for the root {}", self.name), command, b"", MAKE_TIMEOUT)?;
        fs::remove_file(&transport).during(|| format!("can't remove {}", transport.display()))
    }
}

/// How this machine's apt reaches its sources.
fn apt_transport() -> Result<String> {
    let mut command = Command::new("apt-config");
    command.arg("dump");
    let all = succeed("apt-config dump", command, b"", COMMAND_TIMEOUT)?.stdout;
    let wanted = ["Acquire::http", "Acquire::https", "Acquire::Check", "Acquire::Retries"];
    let lines = all.lines().filter(|line| wanted.iter().any(|start| line.starts_with(start)));
    Ok(lines.fold(String::new(), |text, line| text + line + "\n"))
}

/// Debian's sources as this machine has them.
fn apt_sources() -> Result<Vec<String>> {
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "deb $(REPO_URI) $(RELEASE) $(COMPONENT)"]);
    command.args(["Created-By: Packages", "Origin: Debian"]);
    let all = run("this machine", "apt-get indextargets", command, b"", COMMAND_TIMEOUT)?.stdout;
    let ours = |line: &&str| line.split(' ').nth(2).is_some_and(|release| release.starts_with(SUITE));
    Ok(all.lines().filter(ours).map(str::to_owned).collect())
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).during(|| format!("can't remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_package_makes_another_root() {
        let roots = Path::new("roots");
        let bare = Root { packages: &["systemd"], ..APPLIANCE };
        assert_ne!(bare.path(roots), APPLIANCE.path(roots));
        assert_eq!(APPLIANCE.path(roots), APPLIANCE.clone().path(roots));
    }
}
