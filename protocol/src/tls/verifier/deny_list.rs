//! Certificates that are refused although their authority vouches for them.

use std::collections::{HashMap, HashSet};

use crate::identity::Identity;
use crate::tls::certificate::{Leaf, hex};
use crate::trust::Denied;

/// A deny-list made quick to ask.
#[derive(Debug, Clone, Default)]
pub struct DenyList {
    certificates: HashSet<(String, String)>,
    identities: HashMap<Identity, i64>,
}

impl DenyList {
    /// From the entries of a trust document.
    pub fn new(entries: &[Denied]) -> Self {
        let mut list = Self::default();
        for entry in entries {
            match entry {
                Denied::Certificate { issuer, serial, .. } => {
                    list.certificates.insert((issuer.to_ascii_lowercase(), serial.to_ascii_lowercase()));
                }
                Denied::Identity { identity, not_before } => {
                    let time = list.identities.entry(identity.clone()).or_insert(i64::MIN);
                    *time = (*time).max(not_before.unix_timestamp());
                }
            }
        }
        list
    }

    /// Whether this certificate is denied.
    pub fn denies(&self, leaf: &Leaf) -> bool {
        self.identities.get(&leaf.identity).is_some_and(|time| leaf.not_before < *time)
            || (!self.certificates.is_empty()
                && self.certificates.contains(&(hex(&leaf.issuer), hex(&leaf.serial))))
    }
}
