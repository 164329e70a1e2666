//! The files of an authority that is being replaced: a new one beside the old one, then the new one alone.
//!
//! How far that is can be told from the files, so each step can be done again after it broke off:
//!
//! 1. `ca/<role>.next.{key,crt}` holds the new one, which vouches from then on and does not sign yet.
//! 2. It is an anchor in the trust document, for endpoints and Module Servers. There is none for proxies.
//! 3. `ca/<role>.{key,crt}` holds the new one: it signs. The old one still vouches, by the trust document or, for proxies,
//!    by standing behind the new one in `ca/zone-proxy.crt`.
//! 4. The trust document has the old one as retired, and it vouches no more.

use std::fs;

use time::OffsetDateTime;
use zone_protocol::identity::Role;
use zone_protocol::merge::without_retired;
use zone_protocol::tls::certificate::{Anchor, Issued, facts, hex};
use zone_protocol::tls::verifier::DenyList;
use zone_protocol::trust::{Denied, Retired, Trust};

use super::authority::{self, Authority};
use super::directory::Zone;
use super::files::{self, Mode};
use crate::error::{Error, Result};

/// An authority's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityFacts {
    /// Itself, PEM.
    pub pem: String,
    /// What names it.
    pub anchor: Anchor,
    /// Its first second.
    pub not_before: OffsetDateTime,
    /// Its last second.
    pub not_after: OffsetDateTime,
}

impl AuthorityFacts {
    fn read(pem: &str) -> Result<Self> {
        let der = authority::first(pem)?;
        let found = facts(&der, "authority")?;
        let anchor = Anchor::read(&der)?;
        Ok(Self { pem: pem.to_owned(), anchor, not_before: found.not_before, not_after: found.not_after })
    }

    /// What a certificate that it signed names as its issuer, as the record of what was signed has it.
    pub(super) fn as_issuer(&self) -> String {
        hex(&self.anchor.subject)
    }
}

/// The authorities that vouch for a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    /// Whom they vouch for.
    pub role: Role,
    /// The one that signs.
    pub signs: AuthorityFacts,
    /// The one that is to sign next.
    pub next: Option<AuthorityFacts>,
    /// Those that signed before and are not retired yet.
    pub former: Vec<AuthorityFacts>,
}

impl Replacement {
    /// The one whose certificates stay good.
    pub fn newest(&self) -> &AuthorityFacts {
        self.next.as_ref().unwrap_or(&self.signs)
    }

    /// Those whose certificates are to be replaced.
    pub fn old(&self) -> Vec<&AuthorityFacts> {
        let signs = self.next.is_some().then_some(&self.signs);
        signs.into_iter().chain(&self.former).collect()
    }
}

impl Zone {
    /// Which authorities vouch for a role.
    pub fn replacement(&self, role: Role) -> Result<Replacement> {
        let signs = AuthorityFacts::read(&self.signing(role)?)?;
        let next = self.next(role)?.map(|pem| AuthorityFacts::read(&pem)).transpose()?;
        let mut former = Vec::new();
        for pem in self.anchors(role)? {
            let found = AuthorityFacts::read(&pem)?;
            let known = |other: &AuthorityFacts| other.anchor == found.anchor;
            if !known(&signs) && !next.as_ref().is_some_and(known) {
                former.push(found);
            }
        }
        Ok(Replacement { role, signs, next, former })
    }

    /// The certificate of an authority that is made and does not sign yet.
    pub(super) fn next(&self, role: Role) -> Result<Option<String>> {
        let (_, path) = self.next_paths(role);
        let next = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file(&path, "read")(error)),
        };
        let der = authority::first(&next).map_err(|error| Error::Malformed {
            path,
            why: format!("no authority's certificate: {error}"),
        })?;
        Ok((der != authority::first(&self.anchor(role)?)?).then_some(next))
    }

    /// Makes the authority that is to sign next, unless there is one, or one that signs already while the old one vouches. Its
    /// key is on disk before its certificate.
    pub(crate) fn make_next(&self, role: Role) -> Result<()> {
        let _lock = self.lock()?;
        self.clear_next(role)?;
        if !self.replacement(role)?.old().is_empty() {
            return Ok(());
        }
        let made = Authority::create(&self.names.zone, role, OffsetDateTime::now_utc())?;
        let (key, certificate) = self.next_paths(role);
        files::replace(&key, made.key.as_bytes(), Mode::Secret)?;
        files::replace(&certificate, made.certificate.as_bytes(), Mode::Public)
    }

    /// Has the next authority stand among the anchors of the trust document, to be sent to every proxy. Its version.
    pub(crate) fn add_next_to_trust(&self, role: Role) -> Result<u64> {
        let _lock = self.lock()?;
        let mut trust = self.trust()?;
        let Some(next) = self.next(role)? else { return Ok(trust.version) };
        let Some(anchors) = anchors_of(&mut trust, role) else { return Ok(trust.version) };
        if !without_retired(anchors, &[])?
            .contains(&without_retired(std::slice::from_ref(&next), &[])?.concat())
        {
            let name = AuthorityFacts::read(&next)?.anchor.name;
            anchors.push(next);
            trust.version += 1;
            trust.changed = Some(self.change(format!("{name} vouches for {role} as well")));
            self.write_trust(&trust)?;
        }
        Ok(trust.version)
    }

    /// Has the next authority sign from now on. The old one's key is gone afterwards.
    pub(crate) fn sign_with_next(&self, role: Role) -> Result<()> {
        let _lock = self.lock()?;
        if let Some(next) = self.next(role)? {
            let (_, certificate) = self.authority_paths(role);
            // Proxies are in no trust document: whoever has vouched for them stands behind the one that signs.
            let former = if role == Role::ZoneProxy { self.anchor(role)? } else { String::new() };
            files::replace(&certificate, (next + &former).as_bytes(), Mode::Public)?;
        }
        self.clear_next(role)
    }

    /// Ends what was begun: puts the key of the authority that signs in its place, and removes what is left of its making.
    fn clear_next(&self, role: Role) -> Result<()> {
        let ((key, certificate), (next_key, next)) = (self.authority_paths(role), self.next_paths(role));
        let signs = files::read(&certificate)?;
        let fits = |path| {
            fs::read_to_string(path).ok().is_some_and(|key| {
                let key = zeroize::Zeroizing::new(key);
                authority::is_key_of(&key, &signs).unwrap_or(false)
            })
        };
        if !fits(&key) && fits(&next_key) {
            fs::rename(&next_key, &key).map_err(Error::file(&key, "put in place"))?;
            files::sync_directory(files::parent(&key))?;
        }
        if next.exists() && self.next(role)?.is_none() {
            fs::remove_file(&next).map_err(Error::file(&next, "remove"))?;
            files::sync_directory(files::parent(&next))?;
        }
        Ok(())
    }

    /// Takes the former authorities of a role out of trust: the next trust document, to be sent to every proxy. With `cut`
    /// it denies them as well, and those that were retired before, so that sessions of whoever was signed by them end. The
    /// names of those that were retired now.
    pub(crate) fn retire_former(&self, role: Role, cut: bool) -> Result<Vec<String>> {
        let _lock = self.lock()?;
        self.clear_next(role)?;
        let former = self.replacement(role)?.former;
        let names: Vec<_> = former.iter().map(|old| old.anchor.name.clone()).collect();
        let retired = self.keep_retired(role, &former)?;
        let before = self.trust()?;
        let mut trust = before.clone();
        for old in &former {
            let until = self.last_end(old)?;
            trust.retired.push(Retired { fingerprint: old.anchor.fingerprint.clone(), until });
        }
        for old in retired.iter().filter(|_| cut) {
            let Issued { issuer, serial } = &old.anchor.certificate;
            let denied = Denied::Certificate {
                issuer: hex(issuer),
                serial: hex(serial),
                until: Some(self.last_end(old)?),
            };
            if !DenyList::new(&trust.deny).names(&old.anchor.certificate) {
                trust.deny.push(denied);
            }
        }
        if trust != before {
            let (signs, retired) = (self.signing(role)?, trust.retired.clone());
            if let Some(anchors) = anchors_of(&mut trust, role) {
                // An authority that was put in place by hand may not be among them.
                anchors.push(signs);
                *anchors = without_retired(anchors, &retired)?;
            }
            trust.version += 1;
            let verb = if former.is_empty() { "denied retired authorities for" } else { "retired" };
            let whom = if former.is_empty() { role.to_string() } else { names.join(", ") };
            trust.changed = Some(self.change(format!("{verb} {whom}")));
            self.write_trust(&trust)?;
        }
        let (_, certificate) = self.authority_paths(role);
        let signs = self.signing(role)?;
        if files::read(&certificate)? != signs {
            files::replace(&certificate, signs.as_bytes(), Mode::Public)?;
        }
        Ok(names)
    }

    /// Keeps the certificates of authorities that are to be retired, for as long as they could be of interest; all of a role.
    fn keep_retired(&self, role: Role, former: &[AuthorityFacts]) -> Result<Vec<AuthorityFacts>> {
        let path = self.path(&format!("ca/{role}.retired.crt"));
        let kept = if path.exists() { vec![files::read(&path)?] } else { Vec::new() };
        let all = [kept, former.iter().map(|old| old.pem.clone()).collect()].concat();
        let all = without_retired(&all, &[])?;
        let mut facts = all.iter().map(|pem| AuthorityFacts::read(pem)).collect::<Result<Vec<_>>>()?;
        let now = OffsetDateTime::now_utc();
        facts.retain(|authority| authority.not_after > now);
        if !former.is_empty() {
            let pems: String = facts.iter().map(|authority| authority.pem.as_str()).collect();
            files::replace(&path, pems.as_bytes(), Mode::Public)?;
        }
        Ok(facts)
    }

    /// The last second of an authority, and of every certificate that it signed.
    fn last_end(&self, authority: &AuthorityFacts) -> Result<OffsetDateTime> {
        let issuer = authority.as_issuer();
        let signed =
            self.audit()?.into_iter().filter(|entry| entry.issuer == issuer).map(|entry| entry.not_after);
        Ok(signed.fold(authority.not_after, OffsetDateTime::max))
    }

    /// The certificate (PEM) of the authority that signs, alone.
    fn signing(&self, role: Role) -> Result<String> {
        let all = without_retired(&[self.anchor(role)?], &[])?;
        Ok(all.into_iter().next().unwrap_or_default())
    }
}

/// The anchors of a role in a trust document; it has none for proxies.
fn anchors_of(trust: &mut Trust, role: Role) -> Option<&mut Vec<String>> {
    match role {
        Role::Endpoint => Some(&mut trust.anchors.endpoint),
        Role::ModuleServer => Some(&mut trust.anchors.module_server),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use zone_protocol::identity::Label;
    use zone_protocol::tls::certificate::Leaf;

    use super::*;

    fn zone() -> (tempfile::TempDir, Zone) {
        let scratch = tempfile::tempdir().unwrap();
        let zone = Zone::init(&scratch.path().join("zone"), label("plant-7"), label("module-1")).unwrap();
        (scratch, zone)
    }

    fn label(text: &str) -> Label {
        text.parse().unwrap()
    }

    /// Who signs what is issued now.
    fn issuer(zone: &Zone, role: Role) -> String {
        let issued = zone.issue(role, &label("host-7"), None).unwrap();
        hex(&Leaf::read(&authority::first(&issued.certificate).unwrap()).unwrap().issuer)
    }

    #[test]
    fn a_new_authority_signs_only_when_it_is_told_to_and_vouches_before() {
        let (_scratch, zone) = zone();
        for role in Role::FIRST_VERSION {
            let old = zone.replacement(role).unwrap().signs;
            zone.make_next(role).unwrap();
            zone.make_next(role).unwrap();
            let version = zone.add_next_to_trust(role).unwrap();
            assert_eq!(zone.add_next_to_trust(role).unwrap(), version, "once is enough");
            let both = zone.replacement(role).unwrap();
            assert_eq!((&both.signs, both.former.len()), (&old, 0));
            let new = both.next.unwrap();
            assert_ne!(new.anchor.name, old.anchor.name);
            assert_eq!(zone.anchors(role).unwrap().len(), 2);
            zone.sign_with_next(role).unwrap();
            zone.sign_with_next(role).unwrap();
            let signed = zone.replacement(role).unwrap();
            assert_eq!(
                (signed.signs.anchor, signed.next, signed.former),
                (new.anchor, None, vec![old.clone()])
            );
            assert_eq!(zone.anchors(role).unwrap().len(), 2);
            assert_eq!(zone.retire_former(role, false).unwrap(), [old.anchor.name]);
            assert_eq!(zone.anchors(role).unwrap().len(), 1);
            assert_eq!(zone.retire_former(role, false).unwrap(), [""; 0]);
        }
        let trust = zone.trust().unwrap();
        assert_eq!((trust.anchors.endpoint.len(), trust.anchors.module_server.len()), (1, 1));
        assert_eq!((trust.retired.len(), trust.deny.len()), (3, 0));
    }

    #[test]
    fn whatever_file_comes_last_the_key_that_signs_is_that_of_the_certificate_that_is_shown() {
        let (_scratch, zone) = zone();
        let role = Role::Endpoint;
        zone.make_next(role).unwrap();
        let ((key, certificate), (next_key, next)) = (zone.authority_paths(role), zone.next_paths(role));
        // As a kill leaves it behind the certificate, and before the key.
        let (old, new) = (fs::read(&certificate).unwrap(), fs::read(&next).unwrap());
        fs::write(&certificate, &new).unwrap();
        let new = zone.replacement(role).unwrap();
        assert!(new.next.is_none());
        assert_eq!(issuer(&zone, role), new.signs.as_issuer());
        zone.make_next(role).unwrap();
        assert!(!next.exists() && !next_key.exists(), "another one while the old one vouches");
        assert_eq!(issuer(&zone, role), new.signs.as_issuer());
        // Of two that don't belong together nothing is signed.
        fs::write(&certificate, old).unwrap();
        let error = zone.issue(role, &label("host-7"), None).unwrap_err().to_string();
        assert!(error.contains("it is not the key of the authority's certificate"), "{error}");
        assert!(key.exists());
    }

    #[test]
    fn a_retired_authority_stays_so_for_as_long_as_anything_that_it_signed() {
        let (_scratch, zone) = zone();
        let role = Role::ModuleServer;
        zone.make_next(role).unwrap();
        zone.sign_with_next(role).unwrap();
        let old = zone.replacement(role).unwrap().former.remove(0);
        zone.retire_former(role, true).unwrap();
        let trust = zone.trust().unwrap();
        assert_eq!(trust.retired[0].fingerprint, old.anchor.fingerprint);
        assert!(trust.retired[0].until >= old.not_after);
        let Denied::Certificate { issuer, serial, until } = &trust.deny[0] else { panic!("{trust:?}") };
        assert_eq!(*issuer, old.as_issuer(), "it signed itself");
        assert_eq!((serial, until), (&hex(&old.anchor.certificate.serial), &Some(trust.retired[0].until)));
        // An older program reads no 'retired', so the anchor itself is gone from what it reads.
        assert_eq!(trust.in_first_version().anchors.module_server.len(), 1);
    }

    #[test]
    fn an_authority_that_was_retired_can_be_denied_later_and_once() {
        let (_scratch, zone) = zone();
        let role = Role::Endpoint;
        for _ in 0..2 {
            zone.make_next(role).unwrap();
            zone.add_next_to_trust(role).unwrap();
            zone.sign_with_next(role).unwrap();
            zone.retire_former(role, false).unwrap();
        }
        assert_eq!(zone.trust().unwrap().deny, []);
        zone.retire_former(role, true).unwrap();
        let trust = zone.trust().unwrap();
        assert_eq!((trust.deny.len(), trust.retired.len()), (2, 2));
        zone.retire_former(role, true).unwrap();
        assert_eq!(zone.trust().unwrap(), trust);
    }
}
