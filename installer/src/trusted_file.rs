//! Files that root acts upon, and that therefore nobody but root may be able to write.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Write permission of the group and of others.
const FOREIGN_WRITE: u32 = 0o022;

/// A file or folder can't be trusted.
#[derive(Debug, thiserror::Error)]
pub enum NotTrusted {
    /// Somebody else could have written it.
    #[error("{path} is refused, because {why}: as root, 'chown root:root {path}; chmod go-w {path}'")]
    Foreign {
        /// The file or folder.
        path: PathBuf,
        /// What lets others write it, half a sentence.
        why: &'static str,
    },
    /// It is not what it should be.
    #[error("{path} is refused, because {why}")]
    Unusable {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it, half a sentence.
        why: String,
    },
    /// It can't be read.
    #[error("{path} can't be read: {source}")]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the system says about it.
        source: io::Error,
    },
}

/// Reads a text file of root's, following no link. Longer ones than `max_bytes` are refused.
pub(crate) fn read(path: &Path, max_bytes: u64) -> Result<String, NotTrusted> {
    let unreadable = |source| NotTrusted::Unreadable { path: path.to_owned(), source };
    let file = open(path).map_err(unreadable)?;
    let about = file.metadata().map_err(unreadable)?;
    check(path, &about)?;
    let unusable = |why: String| NotTrusted::Unusable { path: path.to_owned(), why };
    if !about.is_file() {
        return Err(unusable("it is no regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > max_bytes {
        return Err(unusable(format!("it is longer than {max_bytes} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| unusable("it is no text".to_owned()))
}

/// The same; `None` where there is none.
pub(crate) fn read_optional(path: &Path, max_bytes: u64) -> Result<Option<String>, NotTrusted> {
    match read(path, max_bytes) {
        Err(NotTrusted::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Whether a folder is root's alone.
pub(crate) fn check_folder(path: &Path) -> Result<(), NotTrusted> {
    let about = fs::symlink_metadata(path)
        .map_err(|source| NotTrusted::Unreadable { path: path.to_owned(), source })?;
    if !about.is_dir() {
        return Err(NotTrusted::Unusable { path: path.to_owned(), why: "it is no folder".to_owned() });
    }
    check(path, &about)
}

/// Opens for reading without following a link or waiting at a fifo.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

fn check(path: &Path, about: &Metadata) -> Result<(), NotTrusted> {
    let why = if about.uid() != 0 {
        "it is not root's"
    } else if about.mode() & FOREIGN_WRITE != 0 {
        "others than root may write it"
    } else {
        return Ok(());
    };
    Err(NotTrusted::Foreign { path: path.to_owned(), why })
}
