//! Certificates that are refused although their authority vouches for them.

use std::collections::{HashMap, HashSet};

use crate::identity::Identity;
use crate::tls::certificate::{Issued, Leaf, NameHash, hex};
use crate::trust::{Denied, plain_hex};

const NANOSECONDS: i128 = 1_000_000_000;

/// A deny-list made quick to ask.
#[derive(Debug, Clone, Default)]
pub struct DenyList {
    certificates: HashSet<(String, String)>,
    /// The moments in nanoseconds since 1970: a certificate's are whole seconds, an entry's need not be.
    identities: HashMap<Identity, i128>,
}

impl DenyList {
    /// From the entries of a trust document.
    pub fn new(entries: &[Denied]) -> Self {
        let mut list = Self::default();
        for entry in entries {
            match entry {
                Denied::Certificate { issuer, serial, .. } => {
                    list.certificates.insert((plain_hex(issuer), plain_hex(serial)));
                }
                Denied::Identity { identity, not_before } => {
                    let time = list.identities.entry(identity.clone()).or_insert(i128::MIN);
                    *time = (*time).max(not_before.unix_timestamp_nanos());
                }
            }
        }
        list
    }

    /// Whether this certificate is denied, or one that was shown with it: an authority that is denied takes all with it
    /// that it has signed.
    pub fn denies(&self, leaf: &Leaf) -> bool {
        let not_before = i128::from(leaf.not_before) * NANOSECONDS;
        self.identities.get(&leaf.identity).is_some_and(|time| not_before < *time)
            || self.denies_certificate(&leaf.issuer, &leaf.serial)
            || leaf.shown_with.iter().any(|other| self.denies_certificate(&other.issuer, &other.serial))
    }

    /// Whether this certificate itself is denied, be it an authority's.
    pub fn names(&self, certificate: &Issued) -> bool {
        self.denies_certificate(&certificate.issuer, &certificate.serial)
    }

    fn denies_certificate(&self, issuer: &NameHash, serial: &[u8]) -> bool {
        !self.certificates.is_empty()
            && self.certificates.contains(&(plain_hex(&hex(issuer)), plain_hex(&hex(serial))))
    }
}
