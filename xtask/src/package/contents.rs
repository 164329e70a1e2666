//! What is in each package, and where: one table for both formats.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use super::build;
use super::files::{empty, work_dir, write};
use crate::report::{Context, Result};
use crate::{children, workspace};

/// A package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Package {
    /// On the appliance first, and stays.
    Installer,
    /// The product.
    Proxy,
}

/// A format of packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Deb,
    Rpm,
}

/// Where a file comes from.
#[derive(Debug, Clone, Copy)]
enum From {
    /// The checkout.
    Repo(&'static str),
    /// The programs, stripped.
    Program(&'static str),
    /// What zone-generate and this command wrote.
    Made(&'static str),
    /// Nowhere: it is a folder.
    Nothing,
    /// It is a link to this.
    Link(&'static str),
}

/// What a package tool should know of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    /// The admin's changes to it are kept.
    Config,
    /// Documentation, with which a host also works without.
    Doc,
    Licence,
    Dir,
}

/// A file, folder or link in a package.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    from: From,
    /// Where it goes; what ends in `.gz` and comes from something that doesn't is compressed.
    pub(crate) to: &'static str,
    pub(crate) mode: u32,
    pub(crate) kind: Kind,
    only: Option<Format>,
}

impl Package {
    pub(crate) const ALL: [Self; 2] = [Self::Installer, Self::Proxy];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Installer => "zone-installer",
            Self::Proxy => "zone-proxy",
        }
    }

    /// What is in it in this format; manual pages are added as generated.
    pub(crate) fn entries(self, format: Format) -> Vec<Entry> {
        let entries = match self {
            Self::Installer => INSTALLER,
            Self::Proxy => PROXY,
        };
        let all = entries.iter().chain(SHELLS);
        all.filter(|entry| entry.only.is_none_or(|only| only == format)).copied().collect()
    }

    /// Whether a generated manual page belongs to this package.
    fn has_page(self, page: &str) -> bool {
        let installer = page.starts_with("zone-installer")
            || page.starts_with("zone-menu")
            || page.starts_with("installer");
        installer == (self == Self::Installer)
    }
}

const fn file(from: From, to: &'static str, mode: u32, kind: Kind) -> Entry {
    Entry { from, to, mode, kind, only: None }
}

const fn program(name: &'static str, to: &'static str) -> Entry {
    file(From::Program(name), to, 0o755, Kind::Plain)
}

const fn repo(from: &'static str, to: &'static str) -> Entry {
    file(From::Repo(from), to, 0o644, Kind::Plain)
}

const fn config(from: &'static str, to: &'static str, mode: u32) -> Entry {
    file(From::Repo(from), to, mode, Kind::Config)
}

const fn doc(from: From, to: &'static str) -> Entry {
    file(from, to, 0o644, Kind::Doc)
}

const fn made(from: &'static str, to: &'static str) -> Entry {
    file(From::Made(from), to, 0o644, Kind::Plain)
}

const fn dir(to: &'static str) -> Entry {
    file(From::Nothing, to, 0o755, Kind::Dir)
}

const fn only(format: Format, entry: Entry) -> Entry {
    Entry { only: Some(format), ..entry }
}

const PROXY: &[Entry] = &[
    program("zone-proxy", "/usr/bin/zone-proxy"),
    program("zone-relay", "/usr/bin/zone-relay"),
    program("zone-firewall", "/usr/bin/zone-firewall"),
    dir("/etc/zone-proxy"),
    config("packaging/etc/zone-proxy.toml", "/etc/zone-proxy/zone-proxy.toml", 0o644),
    config("packaging/etc/firewall.toml", "/etc/zone-proxy/firewall.toml", 0o644),
    repo("systemd/zone-proxy.service", "/usr/lib/systemd/system/zone-proxy.service"),
    repo("systemd/zone-relay.socket", "/usr/lib/systemd/system/zone-relay.socket"),
    repo("systemd/zone-relay@.service", "/usr/lib/systemd/system/zone-relay@.service"),
    repo("systemd/zone-relay-end.socket", "/usr/lib/systemd/system/zone-relay-end.socket"),
    repo("systemd/zone-relay-end@.service", "/usr/lib/systemd/system/zone-relay-end@.service"),
    repo("systemd/zone-firewall.socket", "/usr/lib/systemd/system/zone-firewall.socket"),
    repo("systemd/zone-firewall.service", "/usr/lib/systemd/system/zone-firewall.service"),
    repo("systemd/zone-firewall-restore.service", "/usr/lib/systemd/system/zone-firewall-restore.service"),
    repo("systemd/zone-firewall-reapply.service", "/usr/lib/systemd/system/zone-firewall-reapply.service"),
    repo("systemd/sysusers.d/zone-proxy.conf", "/usr/lib/sysusers.d/zone-proxy.conf"),
    repo("systemd/tmpfiles.d/zone-proxy.conf", "/usr/lib/tmpfiles.d/zone-proxy.conf"),
    repo("systemd/system-preset/80-zone-proxy.preset", "/usr/lib/systemd/system-preset/80-zone-proxy.preset"),
    repo("firewall/polkit/50-zone-firewall.rules", "/usr/share/polkit-1/rules.d/50-zone-firewall.rules"),
    made("completions/bash/zone-proxy.bash", "/usr/share/bash-completion/completions/zone-proxy"),
    made("completions/bash/zone-firewall.bash", "/usr/share/bash-completion/completions/zone-firewall"),
    only(Format::Deb, made("completions/zsh/_zone-proxy", "/usr/share/zsh/vendor-completions/_zone-proxy")),
    only(
        Format::Deb,
        made("completions/zsh/_zone-firewall", "/usr/share/zsh/vendor-completions/_zone-firewall"),
    ),
    only(Format::Rpm, made("completions/zsh/_zone-proxy", "/usr/share/zsh/site-functions/_zone-proxy")),
    only(Format::Rpm, made("completions/zsh/_zone-firewall", "/usr/share/zsh/site-functions/_zone-firewall")),
    made("completions/fish/zone-proxy.fish", "/usr/share/fish/vendor_completions.d/zone-proxy.fish"),
    made("completions/fish/zone-firewall.fish", "/usr/share/fish/vendor_completions.d/zone-firewall.fish"),
    dir("/usr/share/doc/zone-proxy"),
    dir("/usr/share/doc/zone-proxy/examples"),
    doc(
        From::Repo("daemon/control/zone-proxy.example.toml"),
        "/usr/share/doc/zone-proxy/examples/zone-proxy.toml",
    ),
    doc(
        From::Repo("firewall/zone-firewall.example.toml"),
        "/usr/share/doc/zone-proxy/examples/firewall.toml",
    ),
    doc(From::Repo("packaging/examples/haproxy.cfg"), "/usr/share/doc/zone-proxy/examples/haproxy.cfg"),
    doc(From::Repo("packaging/examples/nginx.conf"), "/usr/share/doc/zone-proxy/examples/nginx.conf"),
    doc(From::Repo("CHANGELOG.md"), "/usr/share/doc/zone-proxy/changelog.gz"),
    doc(From::Made("third-party-licences"), "/usr/share/doc/zone-proxy/third-party-licences.gz"),
    only(Format::Deb, doc(From::Made("changelog.Debian"), "/usr/share/doc/zone-proxy/changelog.Debian.gz")),
    only(Format::Deb, doc(From::Repo("packaging/deb/copyright"), "/usr/share/doc/zone-proxy/copyright")),
    only(Format::Rpm, file(From::Repo("LICENSE"), "/usr/share/doc/zone-proxy/LICENSE", 0o644, Kind::Licence)),
    only(
        Format::Deb,
        repo("packaging/deb/zone-proxy/lintian-overrides", "/usr/share/lintian/overrides/zone-proxy"),
    ),
];

const INSTALLER: &[Entry] = &[
    program("zone-installer", "/usr/bin/zone-installer"),
    file(From::Link("zone-installer"), "/usr/bin/zone-menu", 0o777, Kind::Plain),
    dir("/usr/libexec/zone-installer"),
    program("zone-installer-helper", "/usr/libexec/zone-installer/zone-installer-helper"),
    dir("/etc/zone-installer"),
    config("installer/installer.example.toml", "/etc/zone-installer/installer.toml", 0o644),
    dir("/etc/zone-installer/trusted-keys"),
    config("packaging/installer/sudoers", "/etc/sudoers.d/zone-installer", 0o440),
    config("packaging/installer/sshd.conf", "/etc/ssh/sshd_config.d/00-zone-installer.conf", 0o644),
    repo("packaging/installer/sysusers.conf", "/usr/lib/sysusers.d/zone-installer.conf"),
    repo("packaging/installer/tmpfiles.conf", "/usr/lib/tmpfiles.d/zone-installer.conf"),
    made("completions/bash/zone-installer.bash", "/usr/share/bash-completion/completions/zone-installer"),
    only(
        Format::Deb,
        made("completions/zsh/_zone-installer", "/usr/share/zsh/vendor-completions/_zone-installer"),
    ),
    only(
        Format::Rpm,
        made("completions/zsh/_zone-installer", "/usr/share/zsh/site-functions/_zone-installer"),
    ),
    made("completions/fish/zone-installer.fish", "/usr/share/fish/vendor_completions.d/zone-installer.fish"),
    dir("/usr/share/doc/zone-installer"),
    doc(From::Repo("CHANGELOG.md"), "/usr/share/doc/zone-installer/changelog.gz"),
    doc(From::Made("third-party-licences"), "/usr/share/doc/zone-installer/third-party-licences.gz"),
    only(
        Format::Deb,
        doc(From::Made("changelog.Debian"), "/usr/share/doc/zone-installer/changelog.Debian.gz"),
    ),
    only(Format::Deb, doc(From::Repo("packaging/deb/copyright"), "/usr/share/doc/zone-installer/copyright")),
    only(
        Format::Rpm,
        file(From::Repo("LICENSE"), "/usr/share/doc/zone-installer/LICENSE", 0o644, Kind::Licence),
    ),
    only(
        Format::Deb,
        repo("packaging/deb/zone-installer/lintian-overrides", "/usr/share/lintian/overrides/zone-installer"),
    ),
];

/// Folders of shells that a host may not have. rpm removes a folder with the last package that names it, and dpkg any
/// that is empty.
const SHELLS: &[Entry] = &[
    only(Format::Rpm, dir("/usr/share/fish")),
    only(Format::Rpm, dir("/usr/share/fish/vendor_completions.d")),
    only(Format::Rpm, dir("/usr/share/zsh")),
    only(Format::Rpm, dir("/usr/share/zsh/site-functions")),
];

/// A file as it lies in the staged tree.
#[derive(Debug, Clone)]
pub(crate) struct Staged {
    /// Its absolute path on the host.
    pub(crate) path: String,
    pub(crate) mode: u32,
    pub(crate) kind: Kind,
}

/// Puts everything of a package below `root` as it will lie on a host, and says what is there.
pub(crate) fn stage(package: Package, format: Format, root: &Path) -> Result<Vec<Staged>> {
    empty(root)?;
    let mut staged = Vec::new();
    for entry in package.entries(format) {
        put(&entry, root)?;
        staged.push(Staged { path: entry.to.to_owned(), mode: entry.mode, kind: entry.kind });
    }
    for page in pages(package)? {
        let section = page.rsplit('.').next().unwrap_or("8");
        let path = format!("/usr/share/man/man{section}/{page}.gz");
        compress(&work_dir().join("generated/man").join(&page), &root.join(&path[1..]))?;
        staged.push(Staged { path, mode: 0o644, kind: Kind::Doc });
    }
    Ok(staged)
}

fn pages(package: Package) -> Result<Vec<String>> {
    let dir = work_dir().join("generated/man");
    let entries = fs::read_dir(&dir).or_fail(|| format!("can't list {}", dir.display()))?;
    let mut pages: Vec<_> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|page| package.has_page(page))
        .collect();
    pages.sort();
    Ok(pages)
}

fn put(entry: &Entry, root: &Path) -> Result<()> {
    let to = root.join(entry.to.trim_start_matches('/'));
    let wrong = || format!("can't make {}", to.display());
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir).or_fail(wrong)?;
    }
    let from = match entry.from {
        From::Nothing => return fs::create_dir_all(&to).or_fail(wrong),
        From::Link(target) => return symlink(target, &to).or_fail(wrong),
        From::Repo(path) => workspace::root().join(path),
        From::Program(name) => build::stripped(name),
        From::Made(path) => work_dir().join("generated").join(path),
    };
    if to.extension().is_some_and(|end| end == "gz") {
        compress(&from, &to)
    } else {
        fs::copy(&from, &to).or_fail(|| format!("can't copy {}", from.display()))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(entry.mode)).or_fail(wrong)
    }
}

/// gzip without a time or a name in it.
fn compress(from: &Path, to: &Path) -> Result<()> {
    write(to, "", 0o644)?;
    let out = fs::File::create(to).or_fail(|| format!("can't write {}", to.display()))?;
    children::succeed(Command::new("gzip").args(["-9", "-n", "-c"]).arg(from).stdout(out))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_lies_below_etc_is_the_admins() {
        for package in Package::ALL {
            for entry in package.entries(Format::Deb) {
                let settled = matches!(entry.kind, Kind::Config | Kind::Dir);
                assert_eq!(
                    entry.to.starts_with("/etc/"),
                    settled && !entry.to.starts_with("/usr/"),
                    "{}",
                    entry.to
                );
            }
        }
    }

    #[test]
    fn no_file_is_in_both_packages_or_twice_in_one() {
        for format in [Format::Deb, Format::Rpm] {
            let mut seen = BTreeSet::new();
            let entries = Package::ALL.into_iter().flat_map(|package| package.entries(format));
            for entry in entries.filter(|entry| entry.kind != Kind::Dir) {
                assert!(seen.insert(entry.to), "{} stands twice", entry.to);
            }
        }
    }

    #[test]
    fn a_page_belongs_to_its_programs_package() {
        for page in ["zone-installer.8", "zone-installer-show.8", "zone-menu.8", "installer.toml.5"] {
            assert!(Package::Installer.has_page(page) && !Package::Proxy.has_page(page), "{page}");
        }
        for page in ["zone-proxy.8", "zone-relay.8", "firewall.toml.5"] {
            assert!(Package::Proxy.has_page(page) && !Package::Installer.has_page(page), "{page}");
        }
    }
}
