//! Unix sockets to connect to, by short paths: a confined control connects by no other, see [`zone_confinement::control()`].

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::OFlags;

/// Where `fd/N` is what descriptor N leads to.
const DESCRIPTORS_OF: &str = "/proc/self";

/// Whether that is the working directory. There is one for the whole process.
static SHORT: AtomicBool = AtomicBool::new(false);

/// Makes the paths of all that is opened from now on short. The working directory is another one then.
pub(crate) fn shorten_paths() -> io::Result<()> {
    std::env::set_current_dir(DESCRIPTORS_OF)?;
    SHORT.store(true, Ordering::Relaxed);
    Ok(())
}

/// A socket's place in the file system, held open: it can't be another one by the time of the connection.
#[derive(Debug)]
pub(crate) struct SocketFile(File);

impl SocketFile {
    /// Fails where connect(2) would, if nothing is there or the way is closed.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH.bits().cast_signed();
        OpenOptions::new().read(true).custom_flags(flags).open(path).map(Self)
    }

    /// What to connect to, for as long as this is held.
    pub(crate) fn path(&self) -> PathBuf {
        let short = PathBuf::from(format!("fd/{}", self.0.as_raw_fd()));
        if SHORT.load(Ordering::Relaxed) { short } else { Path::new(DESCRIPTORS_OF).join(short) }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn whoever_listened_at_a_path_when_it_was_opened_is_who_is_connected_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a-socket-with-a-name-that-is-rather-long");
        let listener = UnixListener::bind(&path).unwrap();
        let file = SocketFile::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(SocketFile::open(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        UnixStream::connect(file.path()).unwrap();
        listener.accept().unwrap();
        drop(listener);
        assert_eq!(UnixStream::connect(file.path()).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
