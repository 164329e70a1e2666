//! Times for people.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A time for people, RFC 3339, to the second, UTC.
pub fn rfc3339(time: OffsetDateTime) -> String {
    let time = time.to_offset(time::UtcOffset::UTC).replace_nanosecond(0).unwrap_or(time);
    time.format(&Rfc3339).unwrap_or_else(|_| time.to_string())
}
