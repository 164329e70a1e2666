//! Why nothing of the drop folder is installed.

use std::io;
use std::path::PathBuf;

use super::index::{Format, PACKAGE};
use crate::trusted_file::NotTrusted;
use crate::version::Version;

/// Nothing of the drop folder is installed. Nothing was touched.
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
        /// The file.
        path: PathBuf,
        /// What the system says about it.
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
        /// The version that was asked for.
        version: Version,
        /// What this host installs.
        format: Format,
        /// This host's architecture.
        architecture: &'static str,
    },
    /// There is such a version for other hosts only.
    #[error("{file} is for {found}, and this host is {architecture}: copy the package for {architecture}")]
    WrongArchitecture {
        /// The package.
        file: String,
        /// The architecture that it is for.
        found: String,
        /// This host's architecture.
        architecture: &'static str,
    },
    /// It is listed, and not there.
    #[error("{0} is listed in SHA256SUMS and is not in the folder: copy it again")]
    Missing(PathBuf),
    /// It is too large.
    #[error("{path} is larger than {max_bytes} bytes, which no package is: copy it again")]
    TooLarge {
        /// The package.
        path: PathBuf,
        /// The largest that is taken.
        max_bytes: u64,
    },
    /// The hash differs.
    #[error("{0} is not what was signed: it was changed or truncated; copy it again")]
    Differs(PathBuf),
    /// Root's own folder can't be written.
    #[error("{path} can't be written: {source}{help}")]
    Stage {
        /// The file or folder that can't be written.
        path: PathBuf,
        /// What the system says about it.
        source: io::Error,
        /// What to do, where that is known.
        help: &'static str,
    },
    /// The package says that it is something else.
    #[error("{file} holds {found} and not {wanted}: get the package from its publisher again")]
    SomethingElse {
        /// The package.
        file: String,
        /// What it says of itself: name, version and architecture.
        found: String,
        /// What should be in it: name, version and architecture.
        wanted: String,
    },
    /// An earlier version than the one that is installed.
    #[error("{wanted} is older than {installed}, which is installed: remove that first if you mean it")]
    Older {
        /// The version that was asked for.
        wanted: Version,
        /// The version that is installed.
        installed: Version,
    },
}
