//! What can go wrong with the durable state.

use std::io;
use std::path::{Path, PathBuf};

/// Why the durable state can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process works with it.
    #[error("{directory} is in use by process {pid}: stop that one first")]
    Locked {
        /// The state directory.
        directory: PathBuf,
        /// Who holds the lock.
        pid: String,
    },
    /// The file system said no.
    #[error("can't {what} {path}: {source}{}", advice(source))]
    Io {
        /// The verb for what was tried: read, write, create.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// The file system's answer.
        source: io::Error,
    },
    /// A file that does not hold what was written to it.
    #[error(
        "{file}: {why}; restore the state directory from a backup, or start over with `zone-proxy reset`"
    )]
    Broken {
        /// The file that does not hold what it should.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl StateError {
    /// For `map_err`: what was tried, with which file.
    pub(super) fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }

    /// Whether the disk is full.
    pub fn no_space(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull)
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => "; free some space there",
        io::ErrorKind::ReadOnlyFilesystem => "; the state directory must be on a writable file system",
        io::ErrorKind::PermissionDenied => "; the state directory must belong to the daemon's user",
        io::ErrorKind::NotFound => {
            "; restore the state directory from a backup, or start over with `zone-proxy reset`"
        }
        _ => "",
    }
}
