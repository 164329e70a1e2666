//! A new zone directory.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use time::OffsetDateTime;
use zone_protocol::identity::{Label, Role};
use zone_protocol::trust::{Anchors, Trust};

use super::authority::Authority;
use super::directory::{Names, Zone};
use super::files::{self, Mode};
use crate::error::{Error, Result};

/// This Module Server's name, unless another is given.
pub const DEFAULT_MODULE_SERVER: &str = "module-1";
impl Zone {
    /// Makes a zone directory: all of it or nothing. One that exists is never overwritten.
    pub fn init(directory: &Path, zone: Label, module_server: Label) -> Result<Self> {
        let occupied = fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some());
        if occupied || directory.is_file() {
            return Err(Error::Exists(directory.to_owned()));
        }
        let parent = files::parent(directory);
        fs::create_dir_all(parent).map_err(Error::file(parent, "create"))?;
        let draft = tempfile::Builder::new()
            .prefix(".zone-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(parent)
            .map_err(Error::file(parent, "write into"))?;
        let made =
            Self { directory: draft.path().to_owned(), names: Names { version: 1, zone, module_server } };
        made.fill(OffsetDateTime::now_utc())?;
        fs::rename(draft.path(), directory).map_err(Error::file(directory, "put in place"))?;
        let _moved = draft.keep();
        files::sync_directory(parent)?;
        Self::open(directory)
    }

    fn fill(&self, now: OffsetDateTime) -> Result<()> {
        files::make_directory(&self.path("ca"))?;
        for role in Role::FIRST_VERSION {
            let authority = Authority::create(&self.names.zone, role, now)?;
            let (key, certificate) = self.authority_paths(role);
            files::create(&key, authority.key.as_bytes(), Mode::Secret)?;
            files::create(&certificate, authority.certificate.as_bytes(), Mode::Public)?;
        }
        let anchors = Anchors {
            endpoint: vec![self.anchor(Role::Endpoint)?],
            module_server: vec![self.anchor(Role::ModuleServer)?],
        };
        self.write_trust(&Trust::of(1, anchors, Vec::new()))?;
        self.issue_own()?;
        self.write_proxies(&[])?;
        let names = toml::to_string(&self.names)
            .map_err(|e| Error::Malformed { path: self.path("zone.toml"), why: e.to_string() })?;
        files::create(&self.path("zone.toml"), names.as_bytes(), Mode::Public)
    }
}
