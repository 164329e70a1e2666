//! How two trust documents become one, so that no right that was ended comes back.
//!
//! Documents of one zone are changed in several places at once: a standby Module Server, a restored backup, a proxy that
//! was down. Their versions alone say nothing of what is in them. So contents are compared, and merged by kind:
//!
//! - denied certificates are a union; each goes a week after its certificate's end, if everybody knows that;
//! - of two moments for a denied identity the later one counts;
//! - anchors are a union without those that are retired, and retired ones are a union as well;
//! - the last change, for people, is the later one.
//!
//! Merging is commutative, associative and idempotent at any one time, so it does not matter who meets whom first.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use time::{Duration, OffsetDateTime};

use crate::identity::Identity;
use crate::tls::TlsError;
use crate::tls::certificate::{chain_from_pem, facts};
use crate::trust::{Anchors, Denied, Retired, Trust, fingerprint, plain_hex};

/// How long a denied certificate stays on the list after its end: clocks differ.
pub const KEPT_AFTER_END: Duration = Duration::days(7);
/// Versions end here, so that every reader of JSON can hold one; no zone changes its trust as often.
pub const MAX_VERSION: u64 = (1 << 53) - 1;

/// An anchor by its fingerprint: its certificate (PEM), and its end.
type AnchorsOfRole = BTreeMap<String, (String, OffsetDateTime)>;

/// What is in a document, in an order of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    endpoint: AnchorsOfRole,
    module_server: AnchorsOfRole,
    certificates: BTreeMap<(String, String), Option<OffsetDateTime>>,
    identities: BTreeMap<Identity, OffsetDateTime>,
    retired: BTreeMap<String, OffsetDateTime>,
}

impl Content {
    fn of(trust: &Trust) -> Result<Self, TlsError> {
        let mut content = Self {
            endpoint: anchors(&trust.anchors.endpoint)?,
            module_server: anchors(&trust.anchors.module_server)?,
            certificates: BTreeMap::new(),
            identities: BTreeMap::new(),
            retired: BTreeMap::new(),
        };
        for entry in &trust.deny {
            content.deny(entry);
        }
        for Retired { fingerprint, until } in &trust.retired {
            later(&mut content.retired, fingerprint.to_ascii_lowercase(), *until);
        }
        Ok(content)
    }

    fn deny(&mut self, entry: &Denied) {
        match entry {
            Denied::Certificate { issuer, serial, until } => {
                longer(&mut self.certificates, (plain_hex(issuer), plain_hex(serial)), *until);
            }
            Denied::Identity { identity, not_before } => {
                later(&mut self.identities, identity.clone(), *not_before);
            }
        }
    }

    fn join(&mut self, other: Self) {
        self.endpoint.extend(other.endpoint);
        self.module_server.extend(other.module_server);
        for (certificate, until) in other.certificates {
            longer(&mut self.certificates, certificate, until);
        }
        for (identity, not_before) in other.identities {
            later(&mut self.identities, identity, not_before);
        }
        for (fingerprint, until) in other.retired {
            later(&mut self.retired, fingerprint, until);
        }
    }

    /// Without what is retired, and without what nobody needs any more.
    fn settle(&mut self, now: OffsetDateTime) {
        self.certificates.retain(|_, until| until.is_none_or(|until| now <= until + KEPT_AFTER_END));
        self.retired.retain(|_, until| now <= *until);
        for anchors in [&mut self.endpoint, &mut self.module_server] {
            anchors.retain(|fingerprint, _| !self.retired.contains_key(fingerprint));
            // A proxy takes no document with an anchor that has ended; but one without any would be worth no more.
            if anchors.values().any(|(_, end)| now <= *end) {
                anchors.retain(|_, (_, end)| now <= *end);
            }
        }
    }

    fn into_trust(self, version: u64) -> Trust {
        let pems = |anchors: AnchorsOfRole| anchors.into_values().map(|(pem, _)| pem).collect();
        let anchors = Anchors { endpoint: pems(self.endpoint), module_server: pems(self.module_server) };
        let certificates = self
            .certificates
            .into_iter()
            // Zeros don't count, but a document is refused whose issuer is no whole SHA-256.
            .map(|((issuer, serial), until)| Denied::Certificate {
                issuer: format!("{issuer:0>64}"),
                serial: format!("{serial:0>1}"),
                until,
            });
        let identities = self
            .identities
            .into_iter()
            .map(|(identity, not_before)| Denied::Identity { identity, not_before });
        let deny = identities.chain(certificates).collect();
        let retired = self.retired.into_iter().map(|(fingerprint, until)| Retired { fingerprint, until });
        Trust { retired: retired.collect(), ..Trust::of(version, anchors, deny) }
    }

    fn digest(&self) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        for (role, anchors) in [("endpoint", &self.endpoint), ("module-server", &self.module_server)] {
            for fingerprint in anchors.keys() {
                let _ = writeln!(text, "anchor {role} {fingerprint}");
            }
        }
        for (identity, not_before) in &self.identities {
            let _ = writeln!(text, "denied {identity} {}", not_before.unix_timestamp_nanos());
        }
        for (issuer, serial) in self.certificates.keys() {
            let _ = writeln!(text, "denied {issuer} {serial}");
        }
        for fingerprint in self.retired.keys() {
            let _ = writeln!(text, "retired {fingerprint}");
        }
        fingerprint(text.as_bytes())
    }
}

/// What two documents say together at this time. Its version is above both where it says more than either; where it says
/// what one of them says already, it is that one's, as long as the other's is not as high.
pub fn merge(one: &Trust, other: &Trust, now: OffsetDateTime) -> Result<Trust, TlsError> {
    let (mine, theirs) = (Content::of(one)?, Content::of(other)?);
    let mut merged = mine.clone();
    merged.join(theirs.clone());
    merged.settle(now);
    let highest = one.version.max(other.version);
    let digest = merged.digest();
    let (as_mine, as_theirs) = (mine.digest() == digest, theirs.digest() == digest);
    let version = match (as_mine, as_theirs) {
        (true, true) => highest,
        (true, false) if one.version > other.version => one.version,
        (false, true) if other.version > one.version => other.version,
        _ => highest.saturating_add(1),
    };
    let changed = one.changed.clone().max(other.changed.clone());
    Ok(Trust { changed, ..merged.into_trust(version) })
}

/// A digest of what a document says: SHA-256, hex, whatever its version, its order, and the spelling of its entries. Two
/// documents with the same digest let the same parties in.
pub fn digest(trust: &Trust) -> Result<String, TlsError> {
    Ok(Content::of(trust)?.digest())
}

/// The document `base` with every denial of `other` as well, and without the anchors that either has retired.
pub fn with_denials(base: &Trust, other: &Trust, now: OffsetDateTime) -> Result<Trust, TlsError> {
    let mut content = Content::of(base)?;
    let mut denials = Content::of(other)?;
    denials.endpoint.clear();
    denials.module_server.clear();
    content.join(denials);
    content.settle(now);
    Ok(Trust { changed: base.changed.clone(), ..content.into_trust(base.version) })
}

/// The denials of `theirs` that `ours` does not say.
pub fn unknown_denials(ours: &Trust, theirs: &Trust) -> Result<Vec<Denied>, TlsError> {
    let ours = Content::of(ours)?;
    let news = theirs.deny.iter().filter(|entry| match entry {
        Denied::Certificate { issuer, serial, .. } => {
            !ours.certificates.contains_key(&(plain_hex(issuer), plain_hex(serial)))
        }
        Denied::Identity { identity, not_before } => {
            ours.identities.get(identity).is_none_or(|known| known < not_before)
        }
    });
    Ok(news.cloned().collect())
}

/// The certificates of a list of PEM texts, each once and by itself, in their order and without those that are retired.
pub fn without_retired(pems: &[String], retired: &[Retired]) -> Result<Vec<String>, TlsError> {
    let mut seen: BTreeSet<_> =
        retired.iter().map(|retired| retired.fingerprint.to_ascii_lowercase()).collect();
    let mut kept = Vec::new();
    for pem in pems {
        for der in chain_from_pem(pem, "trust anchor")? {
            if seen.insert(fingerprint(&der)) {
                kept.push(to_pem(&der));
            }
        }
    }
    Ok(kept)
}

/// What `next` would take back of what `in_force` says, one line each: denials, retired anchors that come back, and anchors
/// that go without being retired.
pub fn takes_back(in_force: &Trust, next: &Trust, now: OffsetDateTime) -> Result<Vec<String>, TlsError> {
    let (mut old, new) = (Content::of(in_force)?, Content::of(next)?);
    old.settle(now);
    let mut lines = Vec::new();
    for (identity, not_before) in &old.identities {
        if new.identities.get(identity).is_none_or(|next| next < not_before) {
            lines.push(format!("{identity} would be let in again"));
        }
    }
    for (issuer, serial) in old.certificates.keys() {
        if !new.certificates.contains_key(&(issuer.clone(), serial.clone())) {
            lines.push(format!("certificate {serial} of issuer {issuer} would be let in again"));
        }
    }
    let names = |content: &Content| -> BTreeSet<String> {
        content.endpoint.keys().chain(content.module_server.keys()).cloned().collect()
    };
    let (old_anchors, new_anchors) = (names(&old), names(&new));
    for fingerprint in old.retired.keys() {
        if new_anchors.contains(fingerprint) {
            lines.push(format!("anchor {fingerprint} is retired, and would come back"));
        } else if !new.retired.contains_key(fingerprint) {
            lines.push(format!("anchor {fingerprint} is retired, and would be so no more"));
        }
    }
    for fingerprint in old_anchors.difference(&new_anchors) {
        if !new.retired.contains_key(fingerprint) {
            lines.push(format!("anchor {fingerprint} would go without being retired"));
        }
    }
    Ok(lines)
}

/// The certificates of a list of PEM texts, each by itself, with its end.
fn anchors(pems: &[String]) -> Result<AnchorsOfRole, TlsError> {
    let mut anchors = AnchorsOfRole::new();
    for pem in pems {
        for der in chain_from_pem(pem, "trust anchor")? {
            let end = facts(&der, "trust anchor")?.not_after;
            anchors.insert(fingerprint(&der), (to_pem(&der), end));
        }
    }
    Ok(anchors)
}

/// A certificate as PEM (RFC 7468).
fn to_pem(der: &[u8]) -> String {
    let base64 = data_encoding::BASE64.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        pem.extend([line, "\n"]);
        rest = more;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// An end that somebody does not know is the latest: otherwise it would matter who meets whom first.
fn longer<K: Ord>(map: &mut BTreeMap<K, Option<OffsetDateTime>>, key: K, end: Option<OffsetDateTime>) {
    let known = map.entry(key).or_insert(end);
    *known = known.zip(end).map(|(one, other)| one.max(other));
}

fn later<K: Ord>(map: &mut BTreeMap<K, OffsetDateTime>, key: K, time: OffsetDateTime) {
    let known = map.entry(key).or_insert(time);
    *known = (*known).max(time);
}
