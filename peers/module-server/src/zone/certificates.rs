//! What the zone signs for its parties, what it denies them, and its own certificate.

use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;
use zone_protocol::identity::{Identity, Label, Role};
use zone_protocol::merge::{digest, unknown_denials, with_denials};
use zone_protocol::provisioning::{Certificates, SigningRequests};
use zone_protocol::tls::certificate::{KeyKind, Leaf, certified_key, facts};
use zone_protocol::tls::policy::Versions;
use zone_protocol::tls::verifier::DenyList;
use zone_protocol::trust::{Changed, Denied, Trust};

use super::authority::{self, BACKDATING, HostName, Issued, Validity};
use super::directory::Zone;
use super::files::{self, Mode};
use crate::error::Result;

/// Our own certificate is renewed when less than this is left of it.
const RENEWAL_MARGIN: Duration = Duration::days(30);
/// How far into the future a moment may lie that another clock has written.
const CLOCK_TOLERANCE: Duration = Duration::minutes(5);

/// What a Module Server needs to reach proxies and endpoints: no authority's key among it.
#[derive(Debug, Clone, PartialEq, Eq)]
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
            proxy_anchors: self.anchors(Role::ZoneProxy)?,
            endpoint_anchors: self.anchors(Role::Endpoint)?,
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
        self.sign_pair(Role::ZoneProxy, name, requests, hosts, validity)
    }

    /// The same for the two keys that 17488 shows and no relay holds. The authority for proxies vouches for them.
    pub fn sign_control(
        &self,
        name: &Label,
        requests: &SigningRequests,
        hosts: &[HostName],
        validity: Validity,
    ) -> Result<Certificates> {
        self.sign_pair(Role::ZoneControl, name, requests, hosts, validity)
    }

    fn sign_pair(
        &self,
        role: Role,
        name: &Label,
        requests: &SigningRequests,
        hosts: &[HostName],
        validity: Validity,
    ) -> Result<Certificates> {
        let identity = self.identity(role, name);
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
        trust.changed = Some(self.change(format!("denied {identity}")));
        trust.deny.push(Denied::Identity { identity, not_before });
        trust.version += 1;
        self.write_trust(&trust)?;
        if role == Role::ModuleServer && *name == self.names.module_server {
            self.issue_own()?;
        }
        Ok(trust)
    }

    /// What a proxy denies and this zone's document does not, as far as it is believed: a captured one could try to have
    /// everybody locked out, us and the certificates to come among them.
    pub(crate) fn news(&self, theirs: &Trust, now: OffsetDateTime) -> Result<Vec<Denied>> {
        let own = self.own_leaf()?;
        let mut news = unknown_denials(&self.trust()?, theirs)?;
        news.retain(|entry| match entry {
            Denied::Identity { identity, not_before } => {
                *identity != own.identity
                    && identity.zone == self.names.zone
                    && !Role::TO_COME.contains(&identity.role)
                    && *not_before <= now + CLOCK_TOLERANCE
            }
            Denied::Certificate { .. } => !DenyList::new(std::slice::from_ref(entry)).denies(&own),
        });
        Ok(news)
    }

    /// Takes denials into the zone's document, and the version of a proxy that has heard of more changes than this
    /// directory. Says whether the document says more now.
    pub(crate) fn learn(&self, denials: &[Denied], version: u64) -> Result<bool> {
        let _lock = self.lock()?;
        let before = self.trust()?;
        let theirs = Trust { deny: denials.to_vec(), ..before.clone() };
        let mut trust = with_denials(&before, &theirs, OffsetDateTime::now_utc())?;
        let more = digest(&trust)? != digest(&before)?;
        trust.version = before.version.max(version);
        if more {
            trust.version = trust.version.max(before.version + 1);
        }
        if trust.version != before.version {
            self.write_trust(&trust)?;
        }
        Ok(more)
    }

    pub(super) fn change(&self, what: String) -> Changed {
        let by = self.identity(Role::ModuleServer, &self.names.module_server);
        Changed { at: OffsetDateTime::now_utc(), by, what }
    }

    pub(super) fn own_leaf(&self) -> Result<Leaf> {
        Ok(Leaf::read(&authority::first(&files::read(&self.path("own.crt"))?)?)?)
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

    pub(super) fn validity(&self, identity: &Identity, wanted: Option<Validity>) -> Result<Validity> {
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
    pub(super) fn read_own(&self) -> Result<Option<Issued>> {
        let certificate = files::read(&self.path("own.crt"))?;
        let key = Zeroizing::new(files::read(&self.path("own.key"))?);
        let end = facts(&authority::first(&certificate)?, "own.crt")?.not_after;
        let left = end - OffsetDateTime::now_utc();
        let authority = authority::first(&self.anchor(Role::ModuleServer)?)?;
        // A new one would end with its authority, too.
        let renewable = facts(&authority, "authority")?.not_after > end;
        let fits = certified_key(&certificate, &key, "own.crt", &Versions::Tls12.provider()).is_ok();
        Ok((fits && (left >= RENEWAL_MARGIN || !renewable)).then_some(Issued { certificate, key }))
    }

    fn renew_own(&self) -> Result<Issued> {
        let _lock = self.lock()?;
        match self.read_own()? {
            Some(own) => Ok(own),
            None => self.issue_own(),
        }
    }

    pub(super) fn issue_own(&self) -> Result<Issued> {
        let own = self.issue(Role::ModuleServer, &self.names.module_server, None)?;
        files::replace(&self.path("own.key"), own.key.as_bytes(), Mode::Secret)?;
        files::replace(&self.path("own.crt"), own.certificate.as_bytes(), Mode::Public)?;
        Ok(own)
    }
}
