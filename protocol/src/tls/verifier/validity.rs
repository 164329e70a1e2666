//! When a certificate is valid, and the words where it is not.

use rustls::pki_types::UnixTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::tls::certificate::Leaf;
use crate::tls::refusal::Refusal;

/// Refuses a leaf whose time has not come or is over; both ends belong to it.
pub(super) fn check(leaf: &Leaf, now: i64) -> Result<(), Refusal> {
    if (leaf.not_before..=leaf.not_after).contains(&now) {
        return Ok(());
    }
    Err(Refusal::NotNow {
        identity: leaf.identity.clone(),
        not_before: rfc3339(leaf.not_before),
        not_after: rfc3339(leaf.not_after),
        now: rfc3339(now),
    })
}

/// What rustls calls now, in seconds since 1970.
pub(super) fn seconds(now: UnixTime) -> i64 {
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

fn rfc3339(seconds: i64) -> String {
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| seconds.to_string())
}
