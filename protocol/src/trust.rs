//! The trust document: which authorities vouch for which role, and who is denied all the same.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::identity::Identity;

/// Trust anchors by role, each a list of PEM certificates. An endpoint's authority can't vouch for a Module
/// Server, because the lists are never mixed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchors {
    /// The authorities that vouch for endpoints.
    pub endpoint: Vec<String>,
    /// The authorities that vouch for Module Servers.
    pub module_server: Vec<String>,
}

/// One entry of the deny-list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Denied {
    /// One certificate.
    Certificate {
        /// SHA-256 over the issuer's distinguished name in DER, as it stands in the certificate; hex.
        issuer: String,
        /// The serial number, hex, no leading zeros.
        serial: String,
    },
    /// Every certificate of an identity whose notBefore lies before a time.
    Identity {
        /// The party that is denied.
        identity: Identity,
        /// Certificates with a later notBefore are good again.
        #[serde(with = "crate::timestamp")]
        not_before: OffsetDateTime,
    },
}

/// The whole of what a proxy trusts, as one versioned document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// Grows by at least one with every change; a proxy refuses a lower one.
    pub version: u64,
    /// The authorities by the role that they vouch for.
    pub anchors: Anchors,
    /// The certificates and parties that are denied all the same.
    #[serde(default)]
    pub deny: Vec<Denied>,
}
