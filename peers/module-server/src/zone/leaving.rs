//! Which proxies were told to leave the zone, and have not said yet that they did.

use std::fs;
use std::io;

use serde::Serialize;
use time::OffsetDateTime;
use zone_protocol::identity::Label;

use super::directory::Zone;
use super::files;
use crate::error::{Error, Result};

/// What the note says, for people: that it is there is what counts.
#[derive(Serialize)]
struct Note {
    #[serde(with = "time::serde::rfc3339")]
    told_at: OffsetDateTime,
}

impl Zone {
    /// Whether this proxy was told to leave the zone, and its answer is still due.
    pub(crate) fn is_leaving(&self, name: &Label) -> bool {
        fs::symlink_metadata(self.path(&note(name))).is_ok()
    }

    /// Notes that this proxy is about to be told to leave the zone.
    pub(crate) fn note_leaving(&self, name: &Label) -> Result<()> {
        let _lock = self.lock()?;
        self.write_json(&note(name), &Note { told_at: OffsetDateTime::now_utc() })
    }

    /// Forgets it: the proxy is out of the zone, or is a member again.
    pub(super) fn forget_leaving(&self, name: &Label) -> Result<()> {
        let path = self.path(&note(name));
        match fs::remove_file(&path) {
            Ok(()) => files::sync_directory(files::parent(&path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::file(&path, "remove")(error)),
        }
    }
}

fn note(name: &Label) -> String {
    format!("leaving-{name}.json")
}
