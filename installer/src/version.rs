//! Versions of packages, as they stand in file names: `VERSION-REVISION`, such as `0.1.0-1`.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest version, bytes.
const MAX_VERSION_BYTES: usize = 64;

/// A version with its revision. The order is the one of deb-version(7), with which rpm's agrees for what can be
/// written here.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version {
    upstream: String,
    revision: String,
}

/// This is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is no version: it must be VERSION-REVISION, such as 0.1.0-1; 'zone-installer list' shows what there is"
)]
pub struct NoVersion;

impl FromStr for Version {
    type Err = NoVersion;

    fn from_str(text: &str) -> Result<Self, NoVersion> {
        let good = |part: &str| {
            part.starts_with(|first: char| first.is_ascii_digit())
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+~".contains(&byte))
        };
        match text.split_once('-') {
            Some((upstream, revision))
                if text.len() <= MAX_VERSION_BYTES && good(upstream) && good(revision) =>
            {
                Ok(Self { upstream: upstream.to_owned(), revision: revision.to_owned() })
            }
            _ => Err(NoVersion),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.upstream, self.revision)
    }
}

impl TryFrom<String> for Version {
    type Error = NoVersion;

    fn try_from(text: String) -> Result<Self, NoVersion> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.upstream, &other.upstream).then_with(|| compare(&self.revision, &other.revision))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

/// deb-version(7): stretches without digits and stretches of digits take turns.
fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while !a.is_empty() || !b.is_empty() {
        let ((words_a, rest_a), (words_b, rest_b)) = (split(a, false), split(b, false));
        let ((number_a, rest_a), (number_b, rest_b)) = (split(rest_a, true), split(rest_b, true));
        let order = compare_words(words_a, words_b).then_with(|| compare_numbers(number_a, number_b));
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
    Ordering::Equal
}

fn split(text: &[u8], digits: bool) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| byte.is_ascii_digit() != digits).unwrap_or(text.len());
    text.split_at(end)
}

fn compare_words(a: &[u8], b: &[u8]) -> Ordering {
    // '~' sorts before the end, the end before letters, letters before the rest.
    let weight = |byte: Option<&u8>| match byte {
        Some(b'~') => -1,
        None => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    };
    (0..a.len().max(b.len()))
        .map(|at| weight(a.get(at)).cmp(&weight(b.get(at))))
        .find(|order| *order != Ordering::Equal)
        .unwrap_or(Ordering::Equal)
}

/// By value: numbers of any length, without leading zeros.
fn compare_numbers(a: &[u8], b: &[u8]) -> Ordering {
    let bare = |digits: &[u8]| {
        let start = digits.iter().position(|digit| *digit != b'0').unwrap_or(digits.len());
        digits[start..].to_vec()
    };
    let (a, b) = (bare(a), bare(b));
    a.len().cmp(&b.len()).then_with(|| a.cmp(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn versions_are_ordered_by_value_and_not_by_letter() {
        let ordered = [
            "0.1.0~rc1-1",
            "0.1.0-1",
            "0.1.0-2",
            "0.1.0-10",
            "0.1.0+fix-1",
            "0.1.1-1",
            "0.9.0-1",
            "0.10.0-1",
        ];
        for (at, lower) in ordered.iter().enumerate() {
            for higher in &ordered[at + 1..] {
                assert!(version(lower) < version(higher), "{lower} is below {higher}");
            }
        }
        assert_eq!(version("0.01.0-1"), version("0.1.0-1"));
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in [
            "", "-", "1", "1-", "-1", "../x", "1.0-1/..", "1.0-1 ", "1.0-1\n", "1.0--1", "1-1-1", "v1-1",
            "1;ls-1", "--help",
        ] {
            assert_eq!(text.parse::<Version>(), Err(NoVersion), "{text:?}");
        }
        assert_eq!(format!("{}-1", "1".repeat(MAX_VERSION_BYTES)).parse::<Version>(), Err(NoVersion));
        assert!(serde_json::from_str::<Version>("\"../x\"").is_err());
    }
}
