//! The drop folder: what is in it, and whether it may be installed.
//!
//! A signature over `SHA256SUMS` vouches for all packages at once. Index and signature are read once, so what was
//! verified is what is used; a package is copied into root's own folder while it is hashed, so that the copy that
//! was verified is the one that is installed.

mod index;
mod keys;
mod stage;

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use minisign_verify::Signature;
use serde::Serialize;

pub use self::index::{Entry, Format};
pub use self::keys::TrustedKey;
pub use self::stage::{LARGEST, stage};

use crate::owned::{self, NotTrusted};
use crate::paths::Paths;
use crate::version::Version;

/// The name of the package that is installed.
pub const PACKAGE: &str = "zone-proxy";
/// The longest index, bytes.
const LONGEST_INDEX: u64 = 256 * 1024;
/// The longest signature, bytes.
const LONGEST_SIGNATURE: u64 = 4096;
/// The most files of the folder that are looked at.
const MOST_FILES: usize = 1000;

/// Why nothing of the drop folder is installed. Nothing was touched.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// A key or the folder of keys is not root's alone.
    #[error(transparent)]
    NotTrusted(#[from] NotTrusted),
    /// There is no key.
    #[error("no trusted key: as root, copy the publisher's public key to {0}/NAME.pub")]
    NoKey(PathBuf),
    /// A key is none.
    #[error("{0} is no minisign public key: remove it, or copy the key again")]
    BadKey(PathBuf),
    /// There is no index.
    #[error("no package index: copy SHA256SUMS, SHA256SUMS.minisig and the packages to {0}")]
    NoIndex(PathBuf),
    /// There is no signature.
    #[error("{0} is not signed: copy SHA256SUMS.minisig from where the packages came")]
    Unsigned(PathBuf),
    /// Something in the folder can't be read.
    #[error("{path} can't be read: {source}")]
    Unreadable {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The signature is damaged.
    #[error("{0} is no minisign signature: copy it again from where the packages came")]
    BadSignature(PathBuf),
    /// The signature is by a key that is not trusted.
    #[error(
        "{index} is signed by a key that is not in {keys}: get the packages from the publisher whose key is there"
    )]
    WrongSigner {
        /// The index.
        index: PathBuf,
        /// The folder of keys.
        keys: PathBuf,
    },
    /// The signature does not fit.
    #[error("{0} is not what was signed: it was changed or truncated; copy it again")]
    Tampered(PathBuf),
    /// The index is no index.
    #[error("{path}, line {line}: this is no line of sha256sum(1): copy the file again")]
    BadIndex {
        /// The index.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
    },
    /// There is no such version.
    #[error(
        "there is no {PACKAGE} {version} as {format} for {architecture}: 'zone-installer list' shows what there is"
    )]
    NoSuchVersion {
        /// As wanted.
        version: Version,
        /// What this host installs.
        format: Format,
        /// This host's.
        architecture: &'static str,
    },
    /// There is such a version for other hosts only.
    #[error("{file} is for {found}, and this host is {architecture}: copy the package for {architecture}")]
    WrongArchitecture {
        /// The package.
        file: String,
        /// For which.
        found: String,
        /// This host's.
        architecture: &'static str,
    },
    /// It is listed, and not there.
    #[error("{0} is listed in SHA256SUMS and is not in the folder: copy it again")]
    Missing(PathBuf),
    /// It is too large.
    #[error("{0} is larger than {LARGEST} bytes, which no package is: copy it again")]
    TooLarge(PathBuf),
    /// The hash differs.
    #[error("{0} is not what was signed: it was changed or truncated; copy it again")]
    Differs(PathBuf),
    /// Root's own folder can't be written.
    #[error("{path} can't be written: {source}{help}")]
    Stage {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
        /// What to do, where that is known.
        help: &'static str,
    },
    /// The package says that it is something else.
    #[error("{file} holds {found} and not {wanted}: get the package from its publisher again")]
    SomethingElse {
        /// The package.
        file: String,
        /// What is in it.
        found: String,
        /// What should be.
        wanted: String,
    },
    /// An earlier version than the one that is installed.
    #[error("{wanted} is older than {installed}, which is installed: remove that first if you mean it")]
    Older {
        /// What was asked for.
        wanted: Version,
        /// What there is.
        installed: Version,
    },
}

/// A drop folder whose index is signed by a trusted key.
#[derive(Debug, Serialize)]
pub struct Catalogue {
    /// The folder.
    pub folder: PathBuf,
    /// The key that signed.
    pub signed_by: TrustedKey,
    /// What the signer wrote beside the signature; it is signed as well.
    pub comment: String,
    /// The packages of the proxy that the index lists, the newest first.
    pub packages: Vec<Entry>,
    /// Packages that lie in the folder and are not in the index: they are never installed.
    pub unsigned: Vec<String>,
}

impl Catalogue {
    /// Reads and verifies the index.
    pub fn read(paths: &Paths) -> Result<Self, PackageError> {
        let keys = keys::read(&paths.trusted_keys)?;
        let index_path = paths.packages.join("SHA256SUMS");
        let signature_path = paths.packages.join("SHA256SUMS.minisig");
        let index =
            read_bounded(&index_path, LONGEST_INDEX, || PackageError::NoIndex(paths.packages.clone()))?;
        let signature =
            read_bounded(&signature_path, LONGEST_SIGNATURE, || PackageError::Unsigned(index_path.clone()))?;
        let signature = str::from_utf8(&signature)
            .ok()
            .and_then(|text| Signature::decode(text).ok())
            .ok_or(PackageError::BadSignature(signature_path))?;
        let signed_by = keys::signer(keys, &index, &signature).map_err(|wrong| match wrong {
            keys::WrongSignature::Unknown => {
                PackageError::WrongSigner { index: index_path.clone(), keys: paths.trusted_keys.clone() }
            }
            keys::WrongSignature::Differs => PackageError::Tampered(index_path.clone()),
        })?;
        let mut listed =
            index::parse(&index).map_err(|line| PackageError::BadIndex { path: index_path, line })?;
        let unsigned = unlisted(&paths.packages, &listed);
        listed.retain(|entry| entry.package == PACKAGE);
        listed.sort_by(|a, b| b.version.cmp(&a.version).then_with(|| a.file.cmp(&b.file)));
        Ok(Self {
            folder: paths.packages.clone(),
            signed_by,
            comment: plain(signature.trusted_comment()),
            packages: listed,
            unsigned,
        })
    }

    /// The versions that this host could install, the newest first.
    pub fn versions(&self, format: Format) -> Vec<Version> {
        self.packages.iter().filter(|entry| entry.fits(format)).map(|entry| entry.version.clone()).collect()
    }

    /// The package of a version for this host.
    pub fn find(&self, version: &Version, format: Format) -> Result<&Entry, PackageError> {
        let architecture = format.own_architecture();
        let of_version =
            || self.packages.iter().filter(|entry| entry.version == *version && entry.format == format);
        if let Some(entry) = of_version().find(|entry| entry.fits(format)) {
            return Ok(entry);
        }
        Err(match of_version().next() {
            Some(other) => PackageError::WrongArchitecture {
                file: other.file.clone(),
                found: other.architecture.clone(),
                architecture,
            },
            None => PackageError::NoSuchVersion { version: version.clone(), format, architecture },
        })
    }
}

/// Packages in the folder that nobody vouches for. An unreadable folder has none.
fn unlisted(folder: &Path, listed: &[Entry]) -> Vec<String> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten().take(MOST_FILES);
    let mut unlisted: Vec<String> = names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| index::is_package_file(name) && !listed.iter().any(|entry| entry.file == *name))
        .map(|name| plain(&name))
        .collect();
    unlisted.sort();
    unlisted
}

fn read_bounded(
    path: &Path,
    longest: u64,
    missing: impl FnOnce() -> PackageError,
) -> Result<Vec<u8>, PackageError> {
    let unreadable = |source| PackageError::Unreadable { path: path.to_owned(), source };
    let file = match owned::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
        other => other.map_err(unreadable)?,
    };
    let mut bytes = Vec::new();
    file.take(longest + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > longest {
        return Err(PackageError::Tampered(path.to_owned()));
    }
    Ok(bytes)
}

/// Text for a terminal: what is not plain becomes a question mark.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii() && !c.is_ascii_control() { c } else { '?' }).take(200).collect()
}
