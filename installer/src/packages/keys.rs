//! The public keys that packages may be signed with, in the format of minisign(1).

use std::fs;
use std::path::Path;

use minisign_verify::{Error, PublicKey, Signature};
use serde::Serialize;

use super::error::PackageError;
use super::plain::plain;
use crate::trusted_file::{self, NotTrusted};

/// The longest key file, bytes.
const MAX_KEY_BYTES: u64 = 4096;
/// The most files of the folder that are looked at.
const MAX_FILES: usize = 64;
/// What the comment of a development key says.
const DEVELOPMENT: &str = "DEVELOPMENT";

/// A key that was trusted when it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TrustedKey {
    /// The name of its file.
    pub file: String,
    /// The name that its owner gave it.
    pub comment: String,
    /// Whether it is for development, and no publisher's.
    pub development: bool,
}

impl TrustedKey {
    /// The line that nobody may miss.
    pub fn warning(&self) -> Option<String> {
        let Self { file, .. } = self;
        self.development.then(|| {
            format!("DEVELOPMENT KEY {file}: anybody may have signed these packages. Never trust it in production.")
        })
    }
}

/// No trusted key signed.
pub(super) enum WrongSignature {
    /// Somebody else signed.
    Unknown,
    /// One of them signed, but something else.
    Differs,
}

/// All keys of the folder, which is root's alone, as each of them is.
pub(super) fn read(folder: &Path) -> Result<Vec<(TrustedKey, PublicKey)>, PackageError> {
    let unreadable = |source| NotTrusted::Unreadable { path: folder.to_owned(), source };
    if !folder.exists() {
        return Err(PackageError::NoKey(folder.to_owned()));
    }
    trusted_file::check_folder(folder)?;
    let mut keys = Vec::new();
    let mut names: Vec<_> = fs::read_dir(folder)
        .map_err(unreadable)?
        .take(MAX_FILES)
        .flatten()
        .map(|entry| entry.path())
        .collect();
    names.sort();
    for path in names.into_iter().filter(|path| path.extension().is_some_and(|own| own == "pub")) {
        let text = trusted_file::read(&path, MAX_KEY_BYTES)?;
        let key = PublicKey::decode(text.trim_end()).map_err(|_| PackageError::BadKey(path.clone()))?;
        let comment = key.untrusted_comment().unwrap_or_default();
        let comment = plain(comment.trim_start_matches("untrusted comment: "));
        let development = comment.contains(DEVELOPMENT);
        let file = plain(&path.file_name().unwrap_or_default().to_string_lossy());
        keys.push((TrustedKey { file, comment, development }, key));
    }
    if keys.is_empty() {
        return Err(PackageError::NoKey(folder.to_owned()));
    }
    Ok(keys)
}

/// The key that signed.
pub(super) fn signer(
    keys: Vec<(TrustedKey, PublicKey)>,
    signed: &[u8],
    signature: &Signature,
) -> Result<TrustedKey, WrongSignature> {
    let mut wrong = WrongSignature::Unknown;
    for (name, key) in keys {
        match key.verify(signed, signature, false) {
            Ok(()) => return Ok(name),
            Err(Error::UnexpectedKeyId) => {}
            Err(_) => wrong = WrongSignature::Differs,
        }
    }
    Err(wrong)
}
