//! The trust document: which authorities vouch for which role, and who is denied all the same.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use crate::features::{Features, TRUST_MERGE};
use crate::identity::{Identity, Role};

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
        /// The certificate's notAfter, where it is known: a week later nobody needs the entry.
        #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::timestamp::option")]
        until: Option<OffsetDateTime>,
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

/// An anchor that was taken out, so that nobody who has not heard of it brings it back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retired {
    /// SHA-256 over its certificate (DER), hex.
    pub fingerprint: String,
    /// As long as a certificate under it could live.
    #[serde(with = "crate::timestamp")]
    pub until: OffsetDateTime,
}

/// Who made the last change of a trust document, when, and what it was; for people.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changed {
    /// When, by the clock of who changed it.
    #[serde(with = "crate::timestamp")]
    pub at: OffsetDateTime,
    /// The party that made it.
    pub by: Identity,
    /// In words for people: who was denied, what was renewed.
    pub what: String,
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
    /// Anchors that may not come back. With [`TRUST_MERGE`] only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retired: Vec<Retired>,
    /// The last change. With [`TRUST_MERGE`] only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<Changed>,
}

impl Trust {
    /// A document in the words of the first version.
    pub fn of(version: u64, anchors: Anchors, deny: Vec<Denied>) -> Self {
        Self { version, anchors, deny, retired: Vec::new(), changed: None }
    }

    /// As a party with these features can read it.
    #[must_use]
    pub fn for_reader(&self, features: &Features) -> Self {
        if features.has(TRUST_MERGE) { self.clone() } else { self.in_first_version() }
    }

    /// In the words of the first version. Later roles are no words of it, and whoever speaks it admits them nowhere.
    #[must_use]
    pub fn in_first_version(&self) -> Self {
        let plain = |entry: &Denied| match entry {
            Denied::Certificate { issuer, serial, .. } => {
                Some(Denied::Certificate { issuer: issuer.clone(), serial: serial.clone(), until: None })
            }
            Denied::Identity { identity, .. } if !Role::FIRST_VERSION.contains(&identity.role) => None,
            entry @ Denied::Identity { .. } => Some(entry.clone()),
        };
        Self::of(self.version, self.anchors.clone(), self.deny.iter().filter_map(plain).collect())
    }

    /// From an answer: what this version does not know of is passed over there.
    pub fn from_answer(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let mut value: Value = serde_json::from_slice(bytes)?;
        keep(&mut value, &["version", "anchors", "deny", "retired", "changed"]);
        for (key, keys) in [
            ("anchors", &["endpoint", "module_server"][..]),
            ("changed", &["at", "by", "what"]),
            ("deny", &["issuer", "serial", "until", "identity", "not_before"]),
            ("retired", &["fingerprint", "until"]),
        ] {
            match value.get_mut(key) {
                Some(Value::Array(entries)) => entries.iter_mut().for_each(|entry| keep(entry, keys)),
                Some(part) => keep(part, keys),
                None => {}
            }
        }
        serde_json::from_value(value)
    }
}

/// SHA-256 in lower-case hex, as documents name certificates and each other.
pub fn fingerprint(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

/// Hex as it is compared: lower case, without leading zeros, so that a serial number denies its certificate however it is
/// spelled.
pub fn plain_hex(text: &str) -> String {
    text.trim_start_matches('0').to_ascii_lowercase()
}

fn keep(value: &mut Value, keys: &[&str]) {
    if let Some(object) = value.as_object_mut() {
        object.retain(|key, _| keys.contains(&key.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn full() -> Trust {
        let at = datetime!(2026-11-23 10:00 UTC);
        let identity = |uri: &str| uri.parse().unwrap();
        Trust {
            retired: vec![Retired { fingerprint: "ab".into(), until: at }],
            changed: Some(Changed { at, by: identity("spiffe://z/module-server/m"), what: "renewed".into() }),
            ..Trust::of(
                3,
                Anchors { endpoint: vec!["e".into()], module_server: vec!["m".into()] },
                vec![
                    Denied::Certificate { issuer: "00".into(), serial: "1a".into(), until: Some(at) },
                    Denied::Identity { identity: identity("spiffe://z/endpoint/a"), not_before: at },
                    Denied::Identity { identity: identity("spiffe://z/monitor/a"), not_before: at },
                    Denied::Identity { identity: identity("spiffe://z/zone-control/a"), not_before: at },
                ],
            )
        }
    }

    #[test]
    fn a_party_that_names_no_feature_is_sent_the_first_versions_words_alone() {
        let sent = serde_json::to_value(full().for_reader(&Features::default())).unwrap();
        let keys: Vec<_> = sent.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["anchors", "deny", "version"]);
        assert_eq!(sent["deny"][0], serde_json::json!({"issuer": "00", "serial": "1a"}));
        assert_eq!(sent["deny"].as_array().unwrap().len(), 2);
        assert_eq!(full().for_reader(&Features::own()), full());
    }

    #[test]
    fn an_answer_may_hold_what_a_later_version_says_and_a_request_may_not() {
        let mut later = serde_json::to_value(full()).unwrap();
        later["later"] = 1.into();
        later["anchors"]["satellite"] = Value::Array(Vec::new());
        later["deny"][0]["why"] = "stolen".into();
        later["retired"][0]["by"] = "x".into();
        later["changed"]["from"] = "x".into();
        let text = serde_json::to_vec(&later).unwrap();
        assert_eq!(Trust::from_answer(&text).unwrap(), full());
        assert!(serde_json::from_slice::<Trust>(&text).is_err());
        let first = full().in_first_version();
        assert_eq!(Trust::from_answer(&serde_json::to_vec(&first).unwrap()).unwrap(), first);
        for wrong in ["", "[]", "{}", "1", "{\"anchors\":[]}", "{\"deny\":{},\"version\":1}"] {
            assert!(Trust::from_answer(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
