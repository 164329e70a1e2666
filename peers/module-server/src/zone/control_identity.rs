//! Which proxies have shown an identity on 17488 that no relay has. From then on nothing less is taken for that proxy.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::Serialize;
use time::OffsetDateTime;
use zone_protocol::identity::{Identity, Label, Role};

use super::directory::Zone;
use super::files;
use crate::error::{Error, Result};

/// What the note says, for people: that it is there is what counts. It is a file of its own, since programs of the first
/// version write `proxies.json` without what they don't know.
#[derive(Serialize)]
struct Note {
    identity: Identity,
    #[serde(with = "time::serde::rfc3339")]
    seen_at: OffsetDateTime,
}

impl Zone {
    /// Whether 17488 of this proxy was seen to show an identity of its own. Where nobody can tell, it was.
    pub fn has_control_identity(&self, name: &Label) -> bool {
        match fs::symlink_metadata(self.control_note(name)) {
            Err(error) => error.kind() != io::ErrorKind::NotFound,
            Ok(_) => true,
        }
    }

    /// Notes that 17488 of this proxy shows an identity of its own.
    pub(crate) fn note_control_identity(&self, name: &Label) -> Result<()> {
        if self.has_control_identity(name) {
            return Ok(());
        }
        let _lock = self.lock()?;
        let identity = self.identity(Role::ZoneControl, name);
        let note = Note { identity, seen_at: OffsetDateTime::now_utc() };
        self.write_json(&control_note(name), &note)
    }

    /// Forgets it. Only whoever has the proxy's own word for it, proved by its token, may do so, or forget the proxy.
    pub(crate) fn forget_control_identity(&self, name: &Label) -> Result<()> {
        let _lock = self.lock()?;
        let path = self.control_note(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file(&path, "remove")(error)),
            _ => files::sync_directory(files::parent(&path)),
        }
    }

    fn control_note(&self, name: &Label) -> PathBuf {
        self.path(&control_note(name))
    }
}

fn control_note(name: &Label) -> String {
    format!("control-{name}.json")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;
    use crate::zone::DEFAULT_MODULE_SERVER;

    fn zone(folder: &TempDir) -> Zone {
        let label = |text: &str| text.parse().unwrap();
        Zone::init(&folder.path().join("zone"), label("plant"), label(DEFAULT_MODULE_SERVER)).unwrap()
    }

    #[test]
    fn what_was_seen_is_noted_once_for_each_proxy_and_forgotten_with_it() {
        let folder = TempDir::new().unwrap();
        let (zone, one, other) = (zone(&folder), "p1".parse().unwrap(), "p2".parse().unwrap());
        assert!(!zone.has_control_identity(&one));
        zone.note_control_identity(&one).unwrap();
        let first = fs::read_to_string(zone.control_note(&one)).unwrap();
        assert!(first.contains("spiffe://plant/zone-control/p1"), "{first}");
        zone.note_control_identity(&one).unwrap();
        assert_eq!(fs::read_to_string(zone.control_note(&one)).unwrap(), first, "the first time stays");
        assert!(zone.has_control_identity(&one) && !zone.has_control_identity(&other));
        zone.forget_proxy(&one).unwrap();
        zone.forget_proxy(&one).unwrap();
        assert!(!zone.has_control_identity(&one));
    }

    #[test]
    fn a_note_that_says_nothing_or_leads_nowhere_counts_all_the_same() {
        let folder = TempDir::new().unwrap();
        let (zone, name) = (zone(&folder), "p1".parse().unwrap());
        fs::write(zone.control_note(&name), b"").unwrap();
        assert!(zone.has_control_identity(&name));
        zone.forget_control_identity(&name).unwrap();
        symlink("nowhere", zone.control_note(&name)).unwrap();
        assert!(zone.has_control_identity(&name));
        zone.note_control_identity(&name).unwrap();
        zone.forget_control_identity(&name).unwrap();
        assert!(!zone.has_control_identity(&name));
    }
}
