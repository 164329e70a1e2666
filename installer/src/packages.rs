//! The drop folder: what is in it, and whether it may be installed.
//!
//! A signature over `SHA256SUMS` vouches for all packages at once. Index and signature are read once, so what was
//! verified is what is used; a package is copied into root's own folder while it is hashed, so that the copy that
//! was verified is the one that is installed.

mod error;
mod index;
mod keys;
mod plain;
mod stage;

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use minisign_verify::Signature;
use serde::Serialize;

pub use self::error::PackageError;
pub(crate) use self::index::PACKAGE;
pub use self::index::{Entry, Format, parse_index};
pub use self::keys::TrustedKey;
pub use self::stage::stage;

use self::plain::plain;
use crate::paths::Paths;
use crate::trusted_file;
use crate::version::Version;

/// The longest index, bytes.
const MAX_INDEX_BYTES: u64 = 256 * 1024;
/// The longest signature, bytes.
const MAX_SIGNATURE_BYTES: u64 = 4096;
/// The most files of the folder that are looked at.
const MAX_FILES: usize = 1000;

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
            read_bounded(&index_path, MAX_INDEX_BYTES, || PackageError::NoIndex(paths.packages.clone()))?;
        let signature = read_bounded(&signature_path, MAX_SIGNATURE_BYTES, || {
            PackageError::Unsigned(index_path.clone())
        })?;
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
            parse_index(&index).map_err(|line| PackageError::BadIndex { path: index_path, line })?;
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
    let names = fs::read_dir(folder).into_iter().flatten().flatten().take(MAX_FILES);
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
    max_bytes: u64,
    missing: impl FnOnce() -> PackageError,
) -> Result<Vec<u8>, PackageError> {
    let unreadable = |source| PackageError::Unreadable { path: path.to_owned(), source };
    let file = match trusted_file::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
        other => other.map_err(unreadable)?,
    };
    let mut bytes = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > max_bytes {
        return Err(PackageError::Tampered(path.to_owned()));
    }
    Ok(bytes)
}
