//! `SHA256SUMS`, as sha256sum(1) writes it, and the names of package files.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::version::Version;

/// The name of the package that is installed.
pub(crate) const PACKAGE: &str = "zone-proxy";

/// How packages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Debian's, installed by dpkg(1).
    Deb,
    /// The RPM family's, installed by rpm(8).
    Rpm,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deb => "deb",
            Self::Rpm => "rpm",
        })
    }
}

impl Format {
    /// What this host's architecture is called in file names.
    pub fn own_architecture(self) -> &'static str {
        match (self, std::env::consts::ARCH) {
            (Self::Deb, "x86_64") => "amd64",
            (Self::Deb, "aarch64") => "arm64",
            (_, other) => other,
        }
    }
}

/// A package that the index lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The name of the package.
    pub package: String,
    /// Its version.
    pub version: Version,
    /// How it is written.
    pub format: Format,
    /// The architecture of the hosts that it is for, as its format calls it.
    pub architecture: String,
    /// The name of its file.
    pub file: String,
    /// The SHA-256 of its file.
    #[serde(skip)]
    pub sha256: [u8; 32],
}

impl Entry {
    /// Whether this host can install it.
    pub fn fits(&self, format: Format) -> bool {
        self.format == format && self.architecture == format.own_architecture()
    }
}

/// Whether a file's name is one of a package.
pub(super) fn is_package_file(name: &str) -> bool {
    file_name(name).is_some()
}

/// The packages that an index lists, other files left out; or the number of the first line that sha256sum(1) would not
/// write, from 1. A file's name is taken only if it is plain, without a folder, and of at most 255 bytes.
///
/// ```
/// let index = format!("{}  zone-proxy_0.1.0-1_amd64.deb\n{}  README\n", "0f".repeat(32), "00".repeat(32));
/// let entries = zone_installer::packages::parse_index(index.as_bytes()).unwrap();
/// assert_eq!(entries.len(), 1);
/// assert_eq!(entries[0].version.to_string(), "0.1.0-1");
/// assert_eq!(zone_installer::packages::parse_index(b"no line of it\n"), Err(1));
/// ```
pub fn parse_index(index: &[u8]) -> Result<Vec<Entry>, usize> {
    let mut entries = Vec::new();
    let text = str::from_utf8(index).map_err(|_| 1_usize)?;
    for (at, line) in text.lines().enumerate() {
        let (sha256, name) = listed(line).ok_or(at + 1)?;
        if let Some((package, version, format, architecture)) = file_name(name) {
            let file = name.to_owned();
            entries.push(Entry { package, version, format, architecture, file, sha256 });
        }
    }
    Ok(entries)
}

/// `HEX  NAME` or `HEX *NAME`.
fn listed(line: &str) -> Option<([u8; 32], &str)> {
    let (hex, name) = line.split_at_checked(64)?;
    let name = name.strip_prefix("  ").or_else(|| name.strip_prefix(" *"))?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._+~-".contains(&byte);
    if name.is_empty() || name.len() > 255 || name.starts_with('.') || !name.bytes().all(plain) {
        return None;
    }
    let mut sha256 = [0; 32];
    for (byte, pair) in sha256.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some((sha256, name))
}

/// `NAME_VERSION-REVISION_ARCHITECTURE.deb` or `NAME-VERSION-REVISION.ARCHITECTURE.rpm`.
fn file_name(name: &str) -> Option<(String, Version, Format, String)> {
    if let Some(stem) = name.strip_suffix(".deb") {
        let mut parts = stem.split('_');
        let (package, version, architecture) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        return Some((package.to_owned(), version.parse().ok()?, Format::Deb, architecture.to_owned()));
    }
    let (stem, architecture) = name.strip_suffix(".rpm")?.rsplit_once('.')?;
    let (stem, revision) = stem.rsplit_once('-')?;
    let (package, upstream) = stem.rsplit_once('-')?;
    let version = format!("{upstream}-{revision}").parse().ok()?;
    Some((package.to_owned(), version, Format::Rpm, architecture.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_files_are_known_by_their_names() {
        let (package, version, format, architecture) = file_name("zone-proxy_0.1.0-1_amd64.deb").unwrap();
        assert_eq!(
            (package.as_str(), version.to_string().as_str(), format, architecture.as_str()),
            ("zone-proxy", "0.1.0-1", Format::Deb, "amd64")
        );
        let (package, version, format, architecture) =
            file_name("zone-proxy-0.1.0-1.el9.x86_64.rpm").unwrap();
        assert_eq!(
            (package.as_str(), version.to_string().as_str(), format, architecture.as_str()),
            ("zone-proxy", "0.1.0-1.el9", Format::Rpm, "x86_64")
        );
        for other in
            ["SHA256SUMS", "zone-proxy.deb", "zone-proxy_1_amd64.deb", "a_b_c_d.deb", "x.rpm", ".rpm"]
        {
            assert_eq!(file_name(other), None, "{other}");
        }
    }

    #[test]
    fn a_line_that_sha256sum_would_not_write_is_named() {
        let hash = "0f".repeat(32);
        let good = format!("{hash}  zone-proxy_0.1.0-1_amd64.deb\n{hash} *development-key.pub\n");
        let entries = parse_index(good.as_bytes()).unwrap();
        assert_eq!((entries.len(), entries[0].sha256), (1, [0x0f; 32]));
        for bad in [
            format!("{hash}  ../zone-proxy_0.1.0-1_amd64.deb"),
            format!("{hash}  .hidden"),
            format!("{hash} zone-proxy_0.1.0-1_amd64.deb"),
            format!("{}  x", "0g".repeat(32)),
            "short  x".to_owned(),
            String::new(),
            "\u{e9}".repeat(40),
        ] {
            assert_eq!(parse_index(format!("{good}{bad}\n").as_bytes()), Err(3), "{bad:?}");
        }
        assert_eq!(parse_index(&[0xff, 0xfe]), Err(1));
    }
}
