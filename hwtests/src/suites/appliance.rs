//! An appliance as its admin meets it: a booted root, the package zone-installer, a drop folder, and ssh to zone-admin.

use std::fs;
use std::time::Duration;

use crate::lab::roots::ROOT_HOME;
use crate::lab::{Cmd, Context, Error, Output, Result, Scene, Terminal};

/// How long an installation may take.
pub(crate) const INSTALL_TIMEOUT: Duration = Duration::from_secs(120);
/// The drop folder.
pub(crate) const DROP: &str = "/var/lib/zone-installer/packages";
/// Where public keys lie that packages may be signed with.
pub(crate) const KEYS: &str = "/etc/zone-installer/trusted-keys";
/// The user whose shell is the menu.
pub(crate) const ADMIN: &str = "zone-admin";

/// What packages are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Debian's.
    Deb,
    /// The RPM family's, by rpm(8) with `--nodeps`, because this root's packages came by dpkg.
    Rpm,
}

impl Format {
    /// The name of a package's file begins so.
    pub(crate) fn file(self, package: &str, revision: u32) -> String {
        match self {
            Self::Deb => format!("{package}_0.1.0-{revision}"),
            Self::Rpm => format!("{package}-0.1.0-{revision}"),
        }
    }

    fn install(self, file: &str) -> Cmd {
        let words = match self {
            Self::Deb => format!("dpkg --install {file}"),
            Self::Rpm => format!("rpm --install --nodeps {file}"),
        };
        Cmd::sh(words).env("DEBIAN_FRONTEND", "noninteractive").limit(INSTALL_TIMEOUT)
    }
}

/// The admin's own machine: a host with an ssh client that zone-admin's account trusts.
pub(crate) struct Admin {
    host: String,
    config: String,
}

/// Installs zone-installer on `proxy`, fills the drop folder with every package that there is, puts the development key
/// among the trusted ones, and lets the admin on host `client` log in.
pub(crate) fn prepare(scene: &mut Scene<'_>, format: Format, client: &str) -> Result<Admin> {
    let places = scene.places();
    let file = places.package(&format.file("zone-installer", 1))?;
    scene.step("the appliance gets the package zone-installer, packages and a trusted key", |scene| {
        put_file(scene, &file, ROOT_HOME)?;
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        scene.must("proxy", &format.install(&format!("{ROOT_HOME}/{name}")))?;
        scene.must("proxy", &Cmd::sh(format!("rm {ROOT_HOME}/{name}")))?;
        fill_drop_folder(scene)?;
        let key = places.packages.join("development-key.pub");
        put_file(scene, &key, KEYS)?;
        if format == Format::Rpm {
            let settings = b"package_manager = \"rpm\"\nrpm_options = [\"--nodeps\"]\n";
            scene.host("proxy")?.put("/etc/zone-installer/installer.toml", settings, 0o644)?;
        }
        Ok(())
    })?;
    let public = Admin::make(scene, client)?;
    let home = "/var/lib/zone-installer/home";
    scene.host("proxy")?.put(&format!("{home}/.ssh/authorized_keys"), public.1.as_bytes(), 0o600)?;
    scene.must("proxy", &Cmd::sh(format!("chmod 700 {home}/.ssh; chown -R {ADMIN}: {home}/.ssh")))?;
    Ok(public.0)
}

/// Copies everything that `cargo xtask package` made into the drop folder.
pub(crate) fn fill_drop_folder(scene: &mut Scene<'_>) -> Result<()> {
    let dir = &scene.places().packages;
    for entry in fs::read_dir(dir).during(|| format!("can't list {}", dir.display()))?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("SHA256SUMS") || name.starts_with("zone-proxy") {
            put_file(scene, &entry.path(), DROP)?;
        }
    }
    Ok(())
}

fn put_file(scene: &Scene<'_>, file: &std::path::Path, dir: &str) -> Result<()> {
    let bytes = fs::read(file).during(|| format!("can't read {}", file.display()))?;
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    scene.host("proxy")?.put(&format!("{dir}/{name}"), &bytes, 0o644)
}

impl Admin {
    /// Makes a key and a configuration for ssh(1) on a host, and returns the public key too.
    fn make(scene: &mut Scene<'_>, host: &str) -> Result<(Self, String)> {
        let target = scene.host(host)?;
        let dir = target.dir().join("ssh").display().to_string();
        let (key, config) = (format!("{dir}/key"), format!("{dir}/config"));
        scene.must(host, &Cmd::new("mkdir").args(["-p", &dir]))?;
        scene.must(host, &Cmd::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &key]))?;
        let public = String::from_utf8_lossy(&target.get(&format!("{key}.pub"))?).into_owned();
        let host_key = scene.host("proxy")?.get("/etc/ssh/ssh_host_ed25519_key.pub")?;
        let address = scene.host("proxy")?.ipv4("inside")?;
        let known = format!("{address} {}", String::from_utf8_lossy(&host_key));
        target.put(&format!("{dir}/known_hosts"), known.as_bytes(), 0o644)?;
        let text = format!(
            "Host *\n  User {ADMIN}\n  HostName {address}\n  IdentityFile {key}\n  IdentitiesOnly yes\n  \
             IdentityAgent none\n  UserKnownHostsFile {dir}/known_hosts\n  GlobalKnownHostsFile /dev/null\n  \
             StrictHostKeyChecking yes\n  BatchMode yes\n  ConnectTimeout 15\n  ServerAliveInterval 15\n"
        );
        target.put(&config, text.as_bytes(), 0o644)?;
        Ok((Self { host: host.to_owned(), config }, public))
    }

    /// `ssh proxy WORDS`, whatever its exit status.
    pub(crate) fn verb(&self, scene: &mut Scene<'_>, words: &str, input: &[u8]) -> Result<Output> {
        let cmd = self.ssh(&[]).arg(words).input(input).limit(INSTALL_TIMEOUT);
        scene.run(&self.host, &cmd)
    }

    /// The same, and it must end with 0.
    pub(crate) fn must(&self, scene: &mut Scene<'_>, words: &str, input: &[u8]) -> Result<Output> {
        let output = self.verb(scene, words, input)?;
        if output.ok() {
            return Ok(output);
        }
        Err(Error::other(format!("ssh proxy {words}: {} {}", output.status, output.text().trim())))
    }

    /// A login at a terminal.
    pub(crate) fn login(&self, scene: &mut Scene<'_>) -> Result<Terminal> {
        scene.terminal(&self.host, &self.ssh(&["-tt"]))
    }

    /// The configuration of its ssh(1).
    pub(crate) fn config(&self) -> &str {
        &self.config
    }

    /// `ssh OPTIONS proxy`.
    pub(crate) fn ssh(&self, options: &[&str]) -> Cmd {
        Cmd::new("ssh").args(["-F", &self.config]).args(options.iter().copied()).arg("proxy")
    }
}

/// Process ids of a program on the appliance, as it numbers them.
pub(crate) fn pids(scene: &Scene<'_>, program: &str) -> Result<Vec<u32>> {
    let output = scene.host("proxy")?.run(&Cmd::new("pidof").arg(program))?;
    Ok(output.stdout.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}
