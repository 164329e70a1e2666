//! What the parties of a zone need while an authority is replaced: a certificate of the new one, or to know it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use time::OffsetDateTime;
use zone_protocol::identity::{Identity, Role};
use zone_protocol::trust::{Denied, plain_hex};

use super::authority::{AuditEntry, Authority, HostName};
use super::directory::Zone;
use super::files::{self, Mode};
use super::replacement::AuthorityFacts;
use crate::error::{Error, Result};

/// What a party needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A certificate of the new authority, and the anchors.
    Certificate,
    /// The anchors: it verifies others by them.
    Anchors,
}

/// A party that needs something, and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The party.
    pub identity: Identity,
    /// What it needs.
    pub need: Need,
    /// The directory that holds it, if one was asked for.
    pub directory: Option<PathBuf>,
}

impl Zone {
    /// The endpoints and other Module Servers that need something while the authority for a role is replaced, in the order
    /// in which they should get it: whoever verifies the new certificates before whoever shows one. Where the old authority
    /// is retired, nobody needs a certificate any more, but the anchors without it.
    pub fn renewals(&self, role: Role, retired: bool) -> Result<Vec<Bundle>> {
        let own = self.identity(Role::ModuleServer, &self.names.module_server);
        let mut bundles = Vec::new();
        for of in [Role::Endpoint, Role::ModuleServer] {
            let need = match (of == role, retired) {
                (true, true) => continue,
                (true, false) => Need::Certificate,
                (false, _) => Need::Anchors,
            };
            let parties = self.parties(of)?.into_keys().filter(|identity| *identity != own);
            bundles.extend(parties.map(|identity| Bundle { identity, need, directory: None }));
        }
        bundles.sort_by_key(|bundle| bundle.need == Need::Certificate);
        Ok(bundles)
    }

    /// The parties of a role that have no certificate of its newest authority, and will be nobody without the others.
    pub fn without_new(&self, role: Role) -> Result<Vec<Identity>> {
        let newest = self.replacement(role)?.newest().as_issuer();
        let own = self.identity(Role::ModuleServer, &self.names.module_server);
        let without = |(identity, issuers): &(Identity, BTreeSet<String>)| {
            *identity != own && !issuers.contains(&newest)
        };
        Ok(self.parties(role)?.into_iter().filter(without).map(|(identity, _)| identity).collect())
    }

    /// Writes what a party needs into a directory of its own below `out`. What is there already and good stays as it is.
    pub(crate) fn write_renewal(&self, bundle: &Bundle, out: &Path) -> Result<PathBuf> {
        let Identity { role, name, .. } = &bundle.identity;
        let parent = out.join(role.as_str());
        let directory = parent.join(name.as_str());
        files::make_directory(&parent)?;
        let newest = self.replacement(*role)?.newest().clone();
        let certificate = directory.join(format!("{role}.crt"));
        if directory.exists() {
            let good = bundle.need == Need::Anchors || is_of(&certificate, &newest)?;
            if !good {
                return Err(Error::Exists(directory));
            }
            self.write_anchors(*role, &directory)?;
            return Ok(directory);
        }
        let draft = tempfile::Builder::new()
            .prefix(".new-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(&parent)
            .map_err(Error::file(&parent, "write into"))?;
        if bundle.need == Need::Certificate {
            let validity = self.validity(&bundle.identity, None)?;
            let issued = self.newest_authority(*role)?.issue(
                &bundle.identity,
                &[HostName::Dns(name.to_string())],
                validity,
            )?;
            self.record(&issued.certificate)?;
            files::create(&draft.path().join(format!("{role}.key")), issued.key.as_bytes(), Mode::Secret)?;
            files::create(
                &draft.path().join(format!("{role}.crt")),
                issued.certificate.as_bytes(),
                Mode::Public,
            )?;
        }
        self.write_anchors(*role, draft.path())?;
        fs::rename(draft.path(), &directory).map_err(Error::file(&directory, "put in place"))?;
        let _moved = draft.keep();
        files::sync_directory(&parent)?;
        Ok(directory)
    }

    fn write_anchors(&self, role: Role, directory: &Path) -> Result<()> {
        self.write_anchor(Role::ZoneProxy, directory)?;
        let other = if role == Role::Endpoint { Role::ModuleServer } else { Role::Endpoint };
        self.write_anchor(other, directory)
    }

    fn newest_authority(&self, role: Role) -> Result<Authority> {
        let Some(next) = self.next(role)? else { return self.authority(role) };
        let (path, _) = self.next_paths(role);
        let key = zeroize::Zeroizing::new(files::read(&path)?);
        Authority::from_pem(&next, &key, &path.display().to_string())
    }

    /// The parties of a role that have a certificate which is good now, with the issuers of those.
    fn parties(&self, role: Role) -> Result<BTreeMap<Identity, BTreeSet<String>>> {
        let now = OffsetDateTime::now_utc();
        let authorities = self.replacement(role)?;
        let in_force: BTreeSet<_> = std::iter::once(authorities.newest())
            .chain(authorities.old())
            .map(AuthorityFacts::as_issuer)
            .collect();
        let denied = self.denied()?;
        let certificates: BTreeSet<_> = self
            .trust()?
            .deny
            .into_iter()
            .filter_map(|entry| match entry {
                Denied::Certificate { issuer, serial, .. } => Some((plain_hex(&issuer), plain_hex(&serial))),
                Denied::Identity { .. } => None,
            })
            .collect();
        let mut parties = BTreeMap::<Identity, BTreeSet<String>>::new();
        for AuditEntry { identity, issuer, serial, not_before, not_after, .. } in self.audit()? {
            let good = identity.role == role
                && not_after > now
                && in_force.contains(&issuer)
                && denied.get(&identity).is_none_or(|time| not_before >= *time)
                && !certificates.contains(&(plain_hex(&issuer), plain_hex(&serial)));
            if good {
                parties.entry(identity).or_default().insert(issuer);
            }
        }
        Ok(parties)
    }

    /// Whether our own certificate is of the authority that signs.
    pub(crate) fn own_is_new(&self) -> Result<bool> {
        let newest = self.replacement(Role::ModuleServer)?;
        Ok(self.own_leaf()?.issuer == newest.newest().anchor.subject)
    }

    /// Signs our own certificate anew, unless the authority that signs has done so already.
    pub(crate) fn renew_own_by_new(&self) -> Result<()> {
        let _lock = self.lock()?;
        if !self.own_is_new()? || self.read_own()?.is_none() {
            self.issue_own()?;
        }
        Ok(())
    }

    /// Signs our own certificate anew while the old authority signs, where there is little left of it: until everybody
    /// knows the new authority, it should not have to be renewed.
    pub(crate) fn prolong_own(&self) -> Result<()> {
        const MIN_LEFT: time::Duration = time::Duration::days(180);
        let _lock = self.lock()?;
        let end = OffsetDateTime::from_unix_timestamp(self.own_leaf()?.not_after).ok();
        if end.is_none_or(|end| end - OffsetDateTime::now_utc() < MIN_LEFT) {
            // An authority whose key is lost, or that has ended, signs nothing: then it stays as it is.
            let _ = self.issue_own();
        }
        Ok(())
    }
}

/// Whether the file holds a certificate of this authority.
fn is_of(certificate: &Path, authority: &AuthorityFacts) -> Result<bool> {
    let Ok(text) = fs::read_to_string(certificate) else { return Ok(false) };
    let entry = AuditEntry::of(&text, OffsetDateTime::now_utc())?;
    Ok(entry.issuer == authority.as_issuer())
}
