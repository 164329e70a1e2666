//! The broker's record of the relay's ports, so that they come back at boot.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use zone_firewall_protocol::PortRule;

/// The broker's directory; mode 0700, owned by user zone-firewall.
pub(crate) const STATE_DIR: &str = "/var/lib/zone-firewall";
/// The record's name in it.
const RECORD: &str = "relay-ports.json";
/// A record that is being written; it counts for nothing until it is renamed.
const NEXT: &str = "relay-ports.json.next";
/// Held while rules are changed.
const LOCK: &str = "lock";
/// The version of the file's form.
const VERSION: u32 = 1;
/// The longest record, bytes.
const MAX_RECORD_BYTES: u64 = 256 * 1024;

/// The directory with the record in it.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    dir: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    ports: Vec<PortRule>,
}

/// The record can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    /// Reading or writing failed.
    #[error("{path}: {what}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system says about it.
        source: io::Error,
    },
    /// It is there, and is none.
    #[error(
        "{path}: is no record of ports: {why}; delete it and restart zone-proxy, which asks for its ports again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// A record that was written beside the one that counts, and does not count yet.
#[derive(Debug)]
#[must_use = "it counts only once it is kept"]
pub(crate) struct PendingRecord {
    next: PathBuf,
    record: PathBuf,
    dir: PathBuf,
}

/// Nobody else changes rules while this lives.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held for its lock")] File);

impl Store {
    /// In this directory, usually [`STATE_DIR`].
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The ports that are to be open; none where there is no record yet.
    pub(crate) fn load(&self) -> Result<Vec<PortRule>, RecordError> {
        let path = self.dir.join(RECORD);
        let failed = |source| RecordError::Io { path: path.clone(), what: "can't be read", source };
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
            Ok(about) if about.len() > MAX_RECORD_BYTES => {
                return Err(RecordError::Damaged { path, why: "it is too long".to_owned() });
            }
            Ok(_) => {}
        }
        let text = fs::read(&path).map_err(failed)?;
        let damaged = |why: String| RecordError::Damaged { path: path.clone(), why };
        let document: Document = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if document.version != VERSION {
            return Err(damaged(format!("it is of version {}", document.version)));
        }
        Ok(document.ports)
    }

    /// Writes what is to count after [`PendingRecord::keep`].
    pub(crate) fn prepare(&self, ports: &[PortRule]) -> Result<PendingRecord, RecordError> {
        let next = self.dir.join(NEXT);
        let failed = |source| RecordError::Io { path: next.clone(), what: "can't be written", source };
        let document = Document { version: VERSION, ports: ports.to_vec() };
        let text = serde_json::to_vec_pretty(&document).map_err(|error| failed(error.into()))?;
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&next)
            .map_err(failed)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
        Ok(PendingRecord { next: next.clone(), record: self.dir.join(RECORD), dir: self.dir.clone() })
    }

    /// Waits until nobody else changes rules, which is not long: all that happens under the lock has its
    /// deadline. The lock ends with its holder, also by kill -9 (flock(2)).
    pub(crate) fn lock(&self) -> Result<Lock, RecordError> {
        let path = self.dir.join(LOCK);
        let failed = |source| RecordError::Io { path: path.clone(), what: "can't be locked", source };
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        // The broker must be able to take it as well when root made it first.
        if let Ok(about) = fs::metadata(&self.dir) {
            use std::os::unix::fs::MetadataExt as _;
            let _ = std::os::unix::fs::fchown(&file, Some(about.uid()), Some(about.gid()));
        }
        rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
        Ok(Lock(file))
    }

    /// Deletes what the broker keeps.
    pub(crate) fn clear(&self) -> Result<(), RecordError> {
        for name in [RECORD, NEXT, LOCK] {
            let path = self.dir.join(name);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(RecordError::Io { path, what: "can't be removed", source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the directory is there.
    pub(crate) fn exists(&self) -> bool {
        self.dir.is_dir()
    }
}

impl PendingRecord {
    /// From now on this is the record, also after a power cut.
    pub(crate) fn keep(self) -> Result<(), RecordError> {
        let failed =
            |source| RecordError::Io { path: self.record.clone(), what: "can't be replaced", source };
        fs::rename(&self.next, &self.record).map_err(failed)?;
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(failed)
    }

    /// The old record goes on counting.
    pub(crate) fn discard(self) {
        // A leftover is harmless: the next one overwrites it.
        let _ = fs::remove_file(&self.next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zone_firewall_protocol::Purpose;

    fn ports() -> Vec<PortRule> {
        vec![PortRule {
            purpose: Purpose::Endpoint,
            port: 17486,
            listen: vec!["::".parse().unwrap()],
            networks: vec!["fd00::/8".parse().unwrap()],
            balancers: Vec::new(),
        }]
    }

    #[test]
    fn what_is_kept_is_what_counts() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        assert_eq!(store.load().unwrap(), []);
        store.prepare(&ports()).unwrap().discard();
        assert_eq!(store.load().unwrap(), []);
        store.prepare(&ports()).unwrap().keep().unwrap();
        assert_eq!(store.load().unwrap(), ports());
        store.clear().unwrap();
        assert_eq!(store.load().unwrap(), []);
    }

    #[test]
    fn a_damaged_record_is_named_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(RECORD), "{\"version\":").unwrap();
        let error = Store::new(dir.path()).load().unwrap_err().to_string();
        assert!(
            error.contains("relay-ports.json: is no record of ports") && error.contains("delete it"),
            "{error}"
        );
    }
}
