//! The zone directory: its name, its three authorities, its trust document, its proxies.
//!
//! ```text
//! zone.toml            the zone's name and this Module Server's
//! ca/<role>.{key,crt}  one authority per role
//! own.{key,crt}        this Module Server's certificate
//! trust.json           the trust document in force, with its version
//! proxies.json         the zone's proxies, and which trust version each was last sent
//! issued.jsonl         every certificate that was ever signed
//! ```

mod authority;
mod bundle;
mod files;
mod proxies;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;
use zone_protocol::identity::{Identity, Label, Role};
use zone_protocol::provisioning::{Certificates, SigningRequests};
use zone_protocol::tls::certificate::{KeyKind, certified_key, facts};
use zone_protocol::tls::policy::Versions;
use zone_protocol::trust::{Anchors, Denied, Trust};

pub use authority::{AUTHORITY_LIFETIME, AuditEntry, BACKDATING, HostName, Issued, LEAF_LIFETIME, Validity};
pub(crate) use proxies::host_names;
pub use proxies::{Ports, ProxyEntry, Settings};

use authority::Authority;
use files::{Lock, Mode};

use crate::error::{Error, Result};

/// This Module Server's name, unless another is given.
pub const DEFAULT_MODULE_SERVER: &str = "module-1";
/// Our own certificate is renewed when less than this is left of it.
const RENEWAL_MARGIN: Duration = Duration::days(30);

/// An opened zone directory.
#[derive(Debug, Clone)]
pub struct Zone {
    directory: PathBuf,
    names: Names,
}

/// What `zone.toml` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Names {
    version: u32,
    zone: Label,
    module_server: Label,
}

/// What a Module Server needs to reach proxies and endpoints: no authority's key among it.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The zone.
    pub zone: Label,
    /// Our name in it.
    pub name: Label,
    /// Our chain, PEM.
    pub certificate: String,
    /// Our key, PEM.
    pub key: Zeroizing<String>,
    /// Who vouches for proxies, PEM.
    pub proxy_anchors: Vec<String>,
    /// Who vouches for endpoints, PEM; for TLS end to end.
    pub endpoint_anchors: Vec<String>,
}

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
        for role in Role::ALL {
            let authority = Authority::create(&self.names.zone, role, now)?;
            let (key, certificate) = self.authority_paths(role);
            files::create(&key, authority.key.as_bytes(), Mode::Secret)?;
            files::create(&certificate, authority.certificate.as_bytes(), Mode::Public)?;
        }
        let anchors = Anchors {
            endpoint: vec![self.anchor(Role::Endpoint)?],
            module_server: vec![self.anchor(Role::ModuleServer)?],
        };
        self.write_trust(&Trust { version: 1, anchors, deny: Vec::new() })?;
        self.issue_own()?;
        self.write_proxies(&[])?;
        let names = toml::to_string(&self.names)
            .map_err(|e| Error::Malformed { path: self.path("zone.toml"), why: e.to_string() })?;
        files::create(&self.path("zone.toml"), names.as_bytes(), Mode::Public)
    }

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

    /// Where it lies.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The identity of a party of this zone.
    pub fn identity(&self, role: Role, name: &Label) -> Identity {
        Identity { zone: self.names.zone.clone(), role, name: name.clone() }
    }

    /// The certificate (PEM) of the authority for a role.
    pub fn anchor(&self, role: Role) -> Result<String> {
        files::read(&self.authority_paths(role).1)
    }

    /// Our own certificate and key, and whom to trust. Renews the certificate where it soon runs out.
    pub fn credentials(&self) -> Result<Credentials> {
        let own = match self.read_own()? {
            Some(own) => own,
            None => self.renew_own()?,
        };
        Ok(Credentials {
            zone: self.names.zone.clone(),
            name: self.names.module_server.clone(),
            certificate: own.certificate,
            key: own.key,
            proxy_anchors: vec![self.anchor(Role::ZoneProxy)?],
            endpoint_anchors: vec![self.anchor(Role::Endpoint)?],
        })
    }

    /// Signs a certificate with a new P-256 key. It is on record before it is handed out.
    ///
    /// Without `validity` it begins an hour ago, but never before the time up to which earlier certificates of
    /// this identity are denied: a replacement is good at once.
    pub fn issue(&self, role: Role, name: &Label, validity: Option<Validity>) -> Result<Issued> {
        let identity = self.identity(role, name);
        let validity = self.validity(&identity, validity)?;
        let hosts = [HostName::Dns(name.to_string())];
        let issued = self.authority(role)?.issue(&identity, &hosts, validity)?;
        self.record(&issued.certificate)?;
        Ok(issued)
    }

    /// Signs a proxy's two keys under one identity that also names `hosts` and the proxy's name.
    pub fn sign_proxy(
        &self,
        name: &Label,
        requests: &SigningRequests,
        hosts: &[HostName],
        validity: Validity,
    ) -> Result<Certificates> {
        let identity = self.identity(Role::ZoneProxy, name);
        let mut all = vec![HostName::Dns(name.to_string())];
        all.extend_from_slice(hosts);
        let authority = self.authority(Role::ZoneProxy)?;
        let sign = |request, kind| authority.sign_request(request, kind, &identity, &all, validity);
        let certificates = Certificates {
            rsa: sign(&requests.rsa, KeyKind::Rsa(2048))?,
            ec: sign(&requests.ec, KeyKind::P256)?,
        };
        self.record(&certificates.rsa)?;
        self.record(&certificates.ec)?;
        Ok(certificates)
    }

    /// Denies every certificate that an identity has been issued so far: the next trust document, to be sent
    /// to every proxy. Revoking our own name issues us a new certificate first.
    pub fn revoke(&self, role: Role, name: &Label) -> Result<Trust> {
        let _lock = self.lock()?;
        let identity = self.identity(role, name);
        let mut trust = self.trust()?;
        let not_before = self.after_all_issued(&identity)?;
        trust.deny.retain(
            |entry| !matches!(entry, Denied::Identity { identity: denied, .. } if *denied == identity),
        );
        trust.deny.push(Denied::Identity { identity, not_before });
        trust.version += 1;
        self.write_trust(&trust)?;
        if role == Role::ModuleServer && *name == self.names.module_server {
            self.issue_own()?;
        }
        Ok(trust)
    }

    /// The trust document in force.
    pub fn trust(&self) -> Result<Trust> {
        let path = self.path("trust.json");
        serde_json::from_str(&files::read(&path)?).map_err(|e| Error::Malformed { path, why: e.to_string() })
    }

    /// Everything that was ever signed, oldest first. A last line that a crash cut off is left out.
    pub fn audit(&self) -> Result<Vec<AuditEntry>> {
        let path = self.path("issued.jsonl");
        if !path.exists() {
            return Ok(Vec::new());
        }
        Ok(files::read(&path)?.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// A time later than notBefore of every certificate of this identity, and not later than that of the next.
    fn after_all_issued(&self, identity: &Identity) -> Result<OffsetDateTime> {
        let second = Duration::SECOND;
        let by_clock = OffsetDateTime::now_utc() - BACKDATING + second;
        let by_record =
            self.audit()?.iter().filter(|e| e.identity == *identity).map(|e| e.not_before + second).max();
        let time = by_record.map_or(by_clock, |recorded| recorded.max(by_clock));
        Ok(time.replace_nanosecond(0).unwrap_or(time))
    }

    fn validity(&self, identity: &Identity, wanted: Option<Validity>) -> Result<Validity> {
        if let Some(wanted) = wanted {
            return Ok(wanted);
        }
        let mut validity = Validity::at(OffsetDateTime::now_utc());
        for entry in self.trust()?.deny {
            if let Denied::Identity { identity: denied, not_before } = entry
                && denied == *identity
            {
                validity.not_before = validity.not_before.max(not_before);
            }
        }
        Ok(validity)
    }

    /// Our own certificate, unless it soon runs out or, after a crash between two writes, does not fit its key.
    fn read_own(&self) -> Result<Option<Issued>> {
        let certificate = files::read(&self.path("own.crt"))?;
        let key = Zeroizing::new(files::read(&self.path("own.key"))?);
        let left = facts(&authority::first(&certificate)?, "own.crt")?.not_after - OffsetDateTime::now_utc();
        let fits = certified_key(&certificate, &key, "own.crt", &Versions::Tls12.provider()).is_ok();
        Ok((fits && left >= RENEWAL_MARGIN).then_some(Issued { certificate, key }))
    }

    fn renew_own(&self) -> Result<Issued> {
        let _lock = self.lock()?;
        match self.read_own()? {
            Some(own) => Ok(own),
            None => self.issue_own(),
        }
    }

    fn issue_own(&self) -> Result<Issued> {
        let own = self.issue(Role::ModuleServer, &self.names.module_server, None)?;
        files::replace(&self.path("own.key"), own.key.as_bytes(), Mode::Secret)?;
        files::replace(&self.path("own.crt"), own.certificate.as_bytes(), Mode::Public)?;
        Ok(own)
    }

    fn record(&self, certificate: &str) -> Result<()> {
        let path = self.path("issued.jsonl");
        let entry = AuditEntry::of(certificate, OffsetDateTime::now_utc())?;
        let line = serde_json::to_string(&entry)
            .map_err(|e| Error::Malformed { path: path.clone(), why: e.to_string() })?;
        files::append_line(&path, &line)
    }

    fn authority(&self, role: Role) -> Result<Authority> {
        let (key, certificate) = self.authority_paths(role);
        let pem = Zeroizing::new(files::read(&key)?);
        Authority::from_pem(&files::read(&certificate)?, &pem, &key.display().to_string())
    }

    fn authority_paths(&self, role: Role) -> (PathBuf, PathBuf) {
        (self.path(&format!("ca/{role}.key")), self.path(&format!("ca/{role}.crt")))
    }

    fn write_trust(&self, trust: &Trust) -> Result<()> {
        self.write_json("trust.json", trust)
    }

    fn write_json(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let path = self.path(name);
        let mut text = serde_json::to_vec_pretty(value)
            .map_err(|e| Error::Malformed { path: path.clone(), why: e.to_string() })?;
        text.push(b'\n');
        files::replace(&path, &text, Mode::Public)
    }

    fn lock(&self) -> Result<Lock> {
        Lock::take(&self.directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

#[cfg(test)]
mod tests;
