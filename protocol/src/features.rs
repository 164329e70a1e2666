//! What a party can do beyond the first version of this protocol, by name, so that versions can meet.
//!
//! A proxy names its features in every offer and in its status, a client of 17488 and an endpoint in the request field
//! [`fields::FEATURES`](crate::fields::FEATURES). Documents refuse keys that they do not know, so each side writes only
//! what the other has named, and a party that names nothing is spoken to as ever.
//!
//! ```
//! use zone_protocol::features::{Features, TRUST_MERGE};
//!
//! let theirs = Features::from_field("trust-merge, something-later");
//! assert!(theirs.has(TRUST_MERGE));
//! assert!(!Features::default().has(TRUST_MERGE));
//! ```

use serde::{Deserialize, Serialize};

/// The trust document says who changed it, until when a denial counts and which anchors are retired, and denials are
/// merged and never dropped.
pub const TRUST_MERGE: &str = "trust-merge";
/// 17488 has an identity of its own, [`Role::ZoneControl`](crate::identity::Role::ZoneControl), by keys that no relay sees.
pub const CONTROL_IDENTITY: &str = "control-identity";

/// Of an endpoint: it understands the last request on a park, in which the proxy says why it lets the park go.
pub const PARK_END: &str = "park-end";

/// More names than any version has; those behind are not looked at.
const MAX_FEATURES: usize = 32;
/// The longest name that is looked at.
const MAX_NAME_BYTES: usize = 64;

/// The names of one party.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<String>", into = "Vec<String>")]
pub struct Features(Vec<String>);

impl Features {
    /// Those of this version on 17488.
    pub fn own() -> Self {
        Self([TRUST_MERGE, CONTROL_IDENTITY].map(str::to_owned).to_vec())
    }

    /// From the value of the request field: names with commas between.
    pub fn from_field(value: &str) -> Self {
        value.split(',').map(str::trim).collect()
    }

    /// The value of the request field.
    pub fn to_field(&self) -> String {
        self.0.join(", ")
    }

    /// Whether a feature is among them.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|known| known == name)
    }

    /// Whether nothing is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> FromIterator<&'a str> for Features {
    fn from_iter<I: IntoIterator<Item = &'a str>>(names: I) -> Self {
        Self(names.into_iter().filter(|name| is_name(name)).take(MAX_FEATURES).map(str::to_owned).collect())
    }
}

impl From<Vec<String>> for Features {
    fn from(names: Vec<String>) -> Self {
        names.iter().map(String::as_str).collect()
    }
}

impl From<Features> for Vec<String> {
    fn from(features: Features) -> Self {
        features.0
    }
}

fn is_name(text: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_reads_back_as_it_was_written() {
        assert_eq!(Features::from_field(&Features::own().to_field()), Features::own());
        assert_eq!(Features::from_field(""), Features::default());
    }

    #[test]
    fn what_is_no_name_is_passed_over_and_the_rest_is_read() {
        let long = "x".repeat(65);
        let field = format!(" ,A, a b,\u{fc},{long},trust-merge");
        assert_eq!(Features::from_field(&field), Features::from_field(TRUST_MERGE));
        let many = vec!["a"; 1_000].join(",");
        assert_eq!(Vec::from(Features::from_field(&many)).len(), MAX_FEATURES);
    }
}
