//! Files of a zone directory: written whole or not at all, secrets readable by their owner only.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::error::{Error, Result};

/// Whether anybody or its owner alone may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Anyone who gets into the directory.
    Public = 0o644,
    /// Its owner.
    Secret = 0o600,
}

/// Replaces a file: a reader, or a crash at any instant, sees the old content or the new one.
pub(crate) fn replace(path: &Path, content: &[u8], mode: Mode) -> Result<()> {
    let directory = parent(path);
    prepare(path, directory, content, mode)?
        .persist(path)
        .map_err(|e| Error::file(path, "put in place")(e.error))?;
    sync_directory(directory)
}

/// Writes a file that must not exist yet.
pub(crate) fn create(path: &Path, content: &[u8], mode: Mode) -> Result<()> {
    let directory = parent(path);
    prepare(path, directory, content, mode)?.persist_noclobber(path).map_err(|e| {
        if e.error.kind() == std::io::ErrorKind::AlreadyExists {
            Error::Exists(path.to_owned())
        } else {
            Error::file(path, "put in place")(e.error)
        }
    })?;
    sync_directory(directory)
}

fn prepare(path: &Path, directory: &Path, content: &[u8], mode: Mode) -> Result<tempfile::NamedTempFile> {
    let mut file = tempfile::Builder::new()
        .prefix(".new-")
        .permissions(Permissions::from_mode(mode as u32))
        .tempfile_in(directory)
        .map_err(Error::file(path, "write"))?;
    file.write_all(content).map_err(Error::file(path, "write"))?;
    // The process's umask may have taken bits away.
    let exact = Permissions::from_mode(mode as u32);
    file.as_file().set_permissions(exact).map_err(Error::file(path, "set permissions"))?;
    file.as_file().sync_all().map_err(Error::file(path, "write to disk"))?;
    Ok(file)
}

/// Removes the other files beside `kept` whose names begin so. One that stays is never read, and goes with the next.
pub(crate) fn remove_others(kept: &Path, prefix: &str) -> Result<()> {
    let directory = parent(kept);
    for entry in fs::read_dir(directory).map_err(Error::file(directory, "list"))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) && entry.path() != kept {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// Appends one line, and returns once it is on disk.
pub(crate) fn append_line(path: &Path, line: &str) -> Result<()> {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(Mode::Public as u32)
        .open(path)
        .map_err(Error::file(path, "open"))?;
    file.write_all(format!("{line}\n").as_bytes()).map_err(Error::file(path, "append"))?;
    file.sync_all().map_err(Error::file(path, "write to disk"))
}

/// The text of a file.
pub(crate) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(Error::file(path, "read"))
}

/// Makes a directory for its owner only, with its parents.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::file(path, "create"))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(Error::file(path, "write to disk"))
}

/// The directory that a path lies in.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Keeps other processes from changing the same zone directory until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held for its drop, which gives the lock back")] File);

impl Lock {
    /// Waits for the lock; its holders never wait for a peer.
    pub(crate) fn take(directory: &Path) -> Result<Self> {
        let path: PathBuf = directory.join(".lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(Mode::Secret as u32)
            .open(&path)
            .map_err(Error::file(&path, "open"))?;
        flock(&file, FlockOperation::LockExclusive).map_err(|e| Error::file(&path, "lock")(e.into()))?;
        Ok(Self(file))
    }
}
