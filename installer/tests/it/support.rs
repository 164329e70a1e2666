//! What the tests share.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use zone_installer::packages::Format;
use zone_installer::paths::Paths;

/// Says that a test could not run here. The suite lists it, and fails where nothing may be skipped.
pub(crate) fn skip(test: &str, why: &str) {
    use std::io::Write as _;
    eprintln!("SKIPPED: {test}: {why}");
    if let Some(path) = std::env::var_os("ZONE_SKIP_LOG") {
        let file = fs::OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| writeln!(file, "{test}: {why}")).expect("the skip log can be written");
    }
}

/// Whether a test can run here: as root, and with the tools that it takes.
pub(crate) fn possible(test: &str, tools: &[&str]) -> bool {
    if !nix::unistd::geteuid().is_root() {
        skip(test, "it takes root");
        return false;
    }
    let folders = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];
    match tools.iter().find(|tool| !folders.iter().any(|folder| Path::new(folder).join(tool).exists())) {
        Some(tool) => {
            skip(test, &format!("it takes {tool}"));
            false
        }
        None => true,
    }
}

/// A host's folders, with a publisher who signs.
pub(crate) struct Host {
    pub(crate) folder: TempDir,
    pub(crate) paths: Paths,
}

impl Host {
    /// With the publisher's key trusted, and nothing in the drop folder.
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let paths = Paths::under(folder.path());
        for made in [&paths.trusted_keys, &paths.packages] {
            fs::create_dir_all(made).unwrap();
        }
        let host = Self { folder, paths };
        host.key("publisher", "Publisher 2026");
        fs::copy(host.public("publisher"), host.paths.trusted_keys.join("publisher.pub")).unwrap();
        host
    }

    /// Makes a key pair whose comment says `comment`.
    pub(crate) fn key(&self, name: &str, comment: &str) {
        let (public, secret) = (self.public(name), self.secret(name));
        run(
            "minisign",
            [
                "-G".as_ref(),
                "-W".as_ref(),
                "-p".as_ref(),
                public.as_os_str(),
                "-s".as_ref(),
                secret.as_os_str(),
            ],
        );
        let text = fs::read_to_string(&public).unwrap();
        let key = text.lines().nth(1).unwrap();
        fs::write(&public, format!("untrusted comment: {comment}\n{key}\n")).unwrap();
    }

    pub(crate) fn public(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(format!("{name}.pub"))
    }

    fn secret(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(format!("{name}.key"))
    }

    /// Puts a file into the drop folder.
    pub(crate) fn package(&self, name: &str, content: &[u8]) {
        fs::write(self.paths.packages.join(name), content).unwrap();
    }

    /// Writes the index over all packages of the drop folder, and signs it.
    pub(crate) fn index(&self, key: &str) {
        let mut names: Vec<String> = fs::read_dir(&self.paths.packages)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with("SHA256SUMS"))
            .collect();
        names.sort();
        let line = |name: &String| {
            use std::fmt::Write as _;
            let mut hex = String::new();
            for byte in Sha256::digest(fs::read(self.paths.packages.join(name)).unwrap()) {
                write!(hex, "{byte:02x}").unwrap();
            }
            format!("{hex}  {name}\n")
        };
        let index: String = names.iter().map(line).collect();
        fs::write(self.paths.packages.join("SHA256SUMS"), index).unwrap();
        self.sign(key);
    }

    /// Signs the index as it is.
    pub(crate) fn sign(&self, key: &str) {
        let (index, secret) = (self.paths.packages.join("SHA256SUMS"), self.secret(key));
        run(
            "minisign",
            [
                "-S".as_ref(),
                "-s".as_ref(),
                secret.as_os_str(),
                "-t".as_ref(),
                "zone-proxy 0.1.0".as_ref(),
                "-m".as_ref(),
                index.as_os_str(),
            ],
        );
    }
}

/// The name of a package of this host's architecture.
pub(crate) fn deb_name(version: &str) -> String {
    format!("zone-proxy_{version}_{}.deb", Format::Deb.own_architecture())
}

fn run<'a>(tool: &str, arguments: impl IntoIterator<Item = &'a OsStr>) {
    let output = Command::new(tool).args(arguments).output().unwrap();
    assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
}
