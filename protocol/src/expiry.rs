//! Warning of certificates that run out, early enough to do something about it.

use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

/// How long before its end a certificate is warned of.
pub const WARNING_PERIOD: Duration = Duration::days(30);
/// How often that is said again in a log.
pub const WARNING_INTERVAL: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);

/// The line about a certificate that ends at `end`, where that is soon or over. `what` names it, and `todo` says what its
/// owner can do.
pub fn warning(what: &str, end: OffsetDateTime, now: OffsetDateTime, todo: &str) -> Option<String> {
    let left = end - now;
    if left > WARNING_PERIOD {
        return None;
    }
    let at = end.replace_nanosecond(0).unwrap_or(end).format(&Rfc3339).unwrap_or_else(|_| end.to_string());
    Some(match (left.whole_days(), left.is_negative()) {
        (_, true) => format!("{what} has expired, at {at}: {todo}"),
        (0, _) => format!("{what} expires in less than a day, at {at}: {todo}"),
        (1, _) => format!("{what} expires in 1 day, at {at}: {todo}"),
        (days, _) => format!("{what} expires in {days} days, at {at}: {todo}"),
    })
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn the_warning_begins_thirty_days_before_and_goes_on_after_the_end() {
        let now = datetime!(2026-11-23 10:00 UTC);
        let said = |left: Duration| warning("it", now + left, now, "renew it");
        assert_eq!(said(Duration::days(30) + Duration::SECOND), None);
        for (left, words) in [
            (Duration::days(30), "it expires in 30 days, at 2026-12-23T10:00:00Z: renew it"),
            (Duration::hours(25), "it expires in 1 day, at 2026-11-24T11:00:00Z: renew it"),
            (Duration::ZERO, "it expires in less than a day, at 2026-11-23T10:00:00Z: renew it"),
            (Duration::seconds(-1), "it has expired, at 2026-11-23T09:59:59Z: renew it"),
            (Duration::days(-400), "it has expired, at 2025-10-19T10:00:00Z: renew it"),
        ] {
            assert_eq!(said(left).as_deref(), Some(words));
        }
    }
}
