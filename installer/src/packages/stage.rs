//! Takes a package into root's own folder, and hashes it on the way: nobody can exchange what was verified.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::error::PackageError;
use super::index::Entry;
use crate::paths::Paths;
use crate::trusted_file;

/// The largest package, bytes.
const MAX_PACKAGE_BYTES: u64 = 256 * 1024 * 1024;
/// What is copied at once, bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// Copies the package of `entry` to the stage and returns the copy, whose hash is the signed one. What lay on the
/// stage before is gone; if this fails, the stage is empty.
pub fn stage(paths: &Paths, entry: &Entry) -> Result<PathBuf, PackageError> {
    let stage = paths.stage();
    let written = |source: io::Error| PackageError::Stage {
        path: stage.clone(),
        help: if source.kind() == io::ErrorKind::StorageFull { ": make room there" } else { "" },
        source,
    };
    empty(&stage).map_err(written)?;
    let copy = stage.join(&entry.file);
    let staged = copy_and_hash(&paths.packages.join(&entry.file), &copy, &written).and_then(|sha256| {
        if sha256 == entry.sha256 {
            Ok(copy)
        } else {
            Err(PackageError::Differs(paths.packages.join(&entry.file)))
        }
    });
    if staged.is_err() {
        // What is left of it would only take up room; the next attempt empties the stage too.
        let _ = fs::remove_dir_all(&stage);
    }
    staged
}

fn empty(stage: &Path) -> io::Result<()> {
    match fs::remove_dir_all(stage) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    DirBuilder::new().recursive(true).mode(0o700).create(stage)
}

fn copy_and_hash(
    from: &Path,
    to: &Path,
    written: &impl Fn(io::Error) -> PackageError,
) -> Result<[u8; 32], PackageError> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => PackageError::Missing(from.to_owned()),
        _ => PackageError::Unreadable { path: from.to_owned(), source },
    };
    let source = trusted_file::open(from).map_err(unreadable)?;
    let about = source.metadata().map_err(unreadable)?;
    if !about.is_file() {
        return Err(unreadable(io::Error::other("it is no regular file")));
    }
    let mut copy: File =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(written)?;
    let mut source = source.take(MAX_PACKAGE_BYTES + 1);
    let mut hash = Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut size = 0_u64;
    loop {
        let length = match source.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(unreadable(error)),
        };
        size += length as u64;
        if size > MAX_PACKAGE_BYTES {
            return Err(PackageError::TooLarge { path: from.to_owned(), max_bytes: MAX_PACKAGE_BYTES });
        }
        hash.update(&piece[..length]);
        copy.write_all(&piece[..length]).map_err(written)?;
    }
    copy.sync_all().map_err(written)?;
    Ok(hash.finalize().into())
}
