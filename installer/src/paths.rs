//! Where everything is. The programs use [`Paths::default`] and nothing else; tests put it all under a folder.

use std::path::{Path, PathBuf};

/// The places that the installer reads and writes.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Settings of the installer itself.
    pub settings: PathBuf,
    /// The public keys that packages may be signed with.
    pub trusted_keys: PathBuf,
    /// The drop folder: `SHA256SUMS`, its signature, packages.
    pub packages: PathBuf,
    /// Root's own: packages being verified, and the one that is installed.
    pub private: PathBuf,
    /// Held while something is being changed.
    pub lock: PathBuf,
    /// The configuration of the proxy.
    pub proxy_configuration: PathBuf,
}

impl Paths {
    /// All of them under `root`.
    pub fn under(root: &Path) -> Self {
        Self {
            settings: root.join("etc/zone-installer/installer.toml"),
            trusted_keys: root.join("etc/zone-installer/trusted-keys"),
            packages: root.join("var/lib/zone-installer/packages"),
            private: root.join("var/lib/zone-installer/private"),
            lock: root.join("run/zone-installer.lock"),
            proxy_configuration: root.join("etc/zone-proxy"),
        }
    }

    /// The packages that are being verified.
    pub fn stage(&self) -> PathBuf {
        self.private.join("stage")
    }

    /// The package that is installed, for the way back from a failed upgrade.
    pub fn kept(&self) -> PathBuf {
        self.private.join("installed")
    }

    /// `zone-proxy.toml`.
    pub fn proxy_toml(&self) -> PathBuf {
        self.proxy_configuration.join("zone-proxy.toml")
    }

    /// `firewall.toml`.
    pub fn firewall_toml(&self) -> PathBuf {
        self.proxy_configuration.join("firewall.toml")
    }
}

impl Default for Paths {
    fn default() -> Self {
        Self::under(Path::new("/"))
    }
}
