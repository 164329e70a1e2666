//! An opened zone directory: its names, its trust document and its record of what was signed.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use zeroize::Zeroizing;
use zone_protocol::identity::{Identity, Label, Role};
use zone_protocol::merge::without_retired;
use zone_protocol::trust::{Trust, fingerprint};

use super::authority::{self, AuditEntry, Authority};
use super::files::{self, Lock, Mode};
use crate::error::{Error, Result};

/// How the names of files begin that hold a trust document in all its words.
const WHOLE_TRUST: &str = "trust-";

/// An opened zone directory.
#[derive(Debug, Clone)]
pub struct Zone {
    pub(super) directory: PathBuf,
    pub(super) names: Names,
}

/// What `zone.toml` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Names {
    pub(super) version: u32,
    pub(super) zone: Label,
    pub(super) module_server: Label,
}

impl Zone {
    /// Opens a zone directory.
    pub fn open(directory: &Path) -> Result<Self> {
        let path = directory.join("zone.toml");
        if !path.exists() {
            return Err(Error::NoZone(directory.to_owned()));
        }
        let text = files::read(&path)?;
        let names: Names = toml::from_str(&text)
            .map_err(|e| Error::Malformed { path: path.clone(), why: e.message().to_owned() })?;
        if names.version != 1 {
            let why = format!("version {} is not known here, only 1", names.version);
            return Err(Error::Malformed { path, why });
        }
        Ok(Self { directory: directory.to_owned(), names })
    }

    /// The zone's name.
    pub fn name(&self) -> &Label {
        &self.names.zone
    }

    /// This Module Server's name.
    pub fn module_server(&self) -> &Label {
        &self.names.module_server
    }

    /// The path of the directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The identity of a party of this zone.
    pub fn identity(&self, role: Role, name: &Label) -> Identity {
        Identity { zone: self.names.zone.clone(), role, name: name.clone() }
    }

    /// The certificate (PEM) of the authority for a role. Where the file holds several, the first one signs.
    pub fn anchor(&self, role: Role) -> Result<String> {
        files::read(&self.authority_paths(role).1)
    }

    /// Every authority (PEM) that vouches for a role: the one that signs, the one that is to sign next, and those before
    /// and after it that the trust document has as anchors. Whoever was signed by one of them is who they say, until it
    /// is retired.
    pub fn anchors(&self, role: Role) -> Result<Vec<String>> {
        let trust = self.trust()?;
        let mut anchors = vec![self.anchor(role)?];
        anchors.extend(self.next(role)?);
        match role {
            Role::Endpoint => anchors.extend(trust.anchors.endpoint),
            Role::ModuleServer => anchors.extend(trust.anchors.module_server),
            _ => {}
        }
        Ok(without_retired(&anchors, &trust.retired)?)
    }

    /// The trust document in force.
    pub fn trust(&self) -> Result<Trust> {
        let path = self.path("trust.json");
        let text = files::read(&path)?;
        let plain: Trust =
            serde_json::from_str(&text).map_err(|e| Error::Malformed { path, why: e.to_string() })?;
        // Without it, or with one that can't be read, the proxies still know which anchors are retired.
        let whole = files::read(&self.whole_trust(&text)).ok();
        let whole: Option<Trust> = whole.and_then(|text| serde_json::from_str(&text).ok());
        Ok(whole.filter(|whole| whole.in_first_version() == plain).unwrap_or(plain))
    }

    /// Everything that was ever signed, oldest first. A last line that a crash cut off is left out.
    pub fn audit(&self) -> Result<Vec<AuditEntry>> {
        let path = self.path("issued.jsonl");
        if !path.exists() {
            return Ok(Vec::new());
        }
        Ok(files::read(&path)?.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    pub(super) fn record(&self, certificate: &str) -> Result<()> {
        let path = self.path("issued.jsonl");
        let entry = AuditEntry::of(certificate, OffsetDateTime::now_utc())?;
        let line = serde_json::to_string(&entry)
            .map_err(|e| Error::Malformed { path: path.clone(), why: e.to_string() })?;
        files::append_line(&path, &line)
    }

    pub(super) fn authority(&self, role: Role) -> Result<Authority> {
        let (key, certificate) = self.authority_paths(role);
        let certificate = files::read(&certificate)?;
        let pem = Zeroizing::new(files::read(&key)?);
        // A replacement that broke off between two files leaves the new key where it was made.
        let next = Zeroizing::new(files::read(&self.next_paths(role).0).unwrap_or_default());
        let fits = |key: &str| authority::is_key_of(key, &certificate);
        let pem = if !fits(&pem)? && fits(&next)? { next } else { pem };
        Authority::from_pem(&certificate, &pem, &key.display().to_string())
    }

    /// Where a new authority is kept until it signs.
    pub(super) fn next_paths(&self, role: Role) -> (PathBuf, PathBuf) {
        (self.path(&format!("ca/{role}.next.key")), self.path(&format!("ca/{role}.next.crt")))
    }

    pub(super) fn authority_paths(&self, role: Role) -> (PathBuf, PathBuf) {
        (self.path(&format!("ca/{role}.key")), self.path(&format!("ca/{role}.crt")))
    }

    /// Writes `trust.json` in the words of its first version, which an older program reads too, and the whole of it
    /// into a file that is named after what `trust.json` holds: it counts for that content and no other, so an older
    /// program that changes `trust.json` is never contradicted by it.
    pub(super) fn write_trust(&self, trust: &Trust) -> Result<()> {
        let path = self.path("trust.json");
        let plain = json(&path, &trust.in_first_version())?;
        let whole = self.whole_trust(&plain);
        files::replace(&whole, json(&whole, trust)?.as_bytes(), Mode::Public)?;
        files::replace(&path, plain.as_bytes(), Mode::Public)?;
        files::remove_others(&whole, WHOLE_TRUST)
    }

    /// Where the whole of a trust document is whose first version's words are these.
    fn whole_trust(&self, plain: &str) -> PathBuf {
        self.path(&format!("{WHOLE_TRUST}{}.json", &fingerprint(plain.as_bytes())[..16]))
    }

    pub(super) fn write_json(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let path = self.path(name);
        files::replace(&path, json(&path, value)?.as_bytes(), Mode::Public)
    }

    pub(super) fn lock(&self) -> Result<Lock> {
        Lock::take(&self.directory)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// The text of a file of the zone directory.
fn json(path: &Path, value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Error::Malformed { path: path.to_owned(), why: e.to_string() })?;
    Ok(text + "\n")
}
