//! What a relay writes down about its sessions while no control takes its records in, see [`Note`]: a file in the runtime
//! directory that control makes for it.
//!
//! The relay can only append to it, and is not trusted: no more is read than an honest one writes, and what it sent goes the
//! way of all its records.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use zone_channel::Note;

use super::intake::Intake;

/// Bytes that are read of one file: what a relay writes.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// The file of a generation.
pub(super) fn path(runtime_dir: &Path, generation: u64) -> PathBuf {
    runtime_dir.join(format!("relay-{generation}.notes"))
}

/// Makes the file of a generation, for its relay to append to.
pub(super) fn create(runtime_dir: &Path, generation: u64) -> io::Result<OwnedFd> {
    let path = path(runtime_dir, generation);
    Ok(OpenOptions::new().create(true).append(true).mode(0o600).open(path)?.into())
}

/// Takes in what the relay of a generation has noted, and empties the file.
pub(super) fn take_in(runtime_dir: &Path, generation: u64, intake: &Intake) {
    let path = path(runtime_dir, generation);
    let taken = match OpenOptions::new().read(true).write(true).open(&path) {
        Ok(file) => take(&file, intake).and_then(|()| file.set_len(0)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = taken {
        tracing::warn!(
            generation,
            path = %path.display(),
            %error,
            "what a relay noted of its sessions can't be read: the audit log may lack some"
        );
    }
}

fn take(file: &File, intake: &Intake) -> io::Result<()> {
    let mut file = BufReader::new(file.take(MAX_BYTES));
    let mut line = Vec::new();
    while file.read_until(b'\n', &mut line)? > 0 {
        // The last line may be cut, and others may be anything.
        if let Ok(note) = serde_json::from_slice::<Note>(&line) {
            intake.take_noted(note);
        }
        line.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::time::{Duration, Instant};

    use super::super::sessions::Sessions;
    use super::*;
    use crate::metrics::Metrics;

    #[tokio::test]
    async fn a_file_full_of_anything_is_read_to_its_bound_and_emptied_in_little_time() {
        let directory = tempfile::tempdir().unwrap();
        let sessions = Rc::new(Sessions::of(directory.path(), 7));
        let intake = Intake::new(42, sessions, Rc::new(Metrics::new()));
        let mut text = String::from("{\"Begins\n\u{0}\n{}\n");
        let mut number = 0;
        while (text.len() as u64) < 2 * MAX_BYTES {
            text.extend(["{\"Ended\":\"", &number.to_string(), "\"}\n"]);
            number += 1;
        }
        std::fs::write(path(directory.path(), 7), text).unwrap();
        let began = Instant::now();
        take_in(directory.path(), 7, &intake);
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        assert_eq!(std::fs::metadata(path(directory.path(), 7)).unwrap().len(), 0);
        let noted = std::fs::metadata(directory.path().join("relay-7.sessions")).unwrap().len();
        assert!(noted < 1024 * 1024, "{noted}");
    }
}
