//! Moments in documents: RFC 3339 text, always brought to UTC.
//!
//! An offset can push a moment at the end of the calendar beyond it, so such a text is refused when it is read
//! and not when somebody first does sums with it.

use serde::{Deserialize, Deserializer, Serializer, de, ser};
use time::OffsetDateTime;
use time::UtcOffset;
use time::format_description::well_known::Rfc3339;

/// Writes a moment; for `#[serde(with = ...)]`.
pub fn serialize<S: Serializer>(moment: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&moment.format(&Rfc3339).map_err(ser::Error::custom)?)
}

/// Reads a moment; for `#[serde(with = ...)]`.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OffsetDateTime, D::Error> {
    let text = String::deserialize(deserializer)?;
    let moment = OffsetDateTime::parse(&text, &Rfc3339).map_err(de::Error::custom)?;
    moment
        .checked_to_offset(UtcOffset::UTC)
        .filter(|moment| (0..=9999).contains(&moment.year()))
        .ok_or_else(|| de::Error::custom(format_args!("'{text}' is beyond the calendar")))
}

/// The same for a moment that may be missing.
pub mod option {
    use super::{Deserialize, Deserializer, OffsetDateTime, Serializer};

    #[derive(Deserialize)]
    struct Present(#[serde(deserialize_with = "super::deserialize")] OffsetDateTime);

    /// Writes a moment or null.
    pub fn serialize<S: Serializer>(
        moment: &Option<OffsetDateTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match moment {
            Some(moment) => super::serialize(moment, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// Reads a moment or null.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<OffsetDateTime>, D::Error> {
        Ok(Option::<Present>::deserialize(deserializer)?.map(|present| present.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Serialize, Deserialize, PartialEq)]
    struct Document {
        #[serde(with = "super")]
        at: OffsetDateTime,
        #[serde(default, with = "super::option")]
        until: Option<OffsetDateTime>,
    }

    #[test]
    fn moments_are_brought_to_utc() {
        let document: Document = serde_json::from_str(r#"{"at":"2026-01-01T01:00:00+01:00"}"#).unwrap();
        assert_eq!(
            serde_json::to_string(&document).unwrap(),
            r#"{"at":"2026-01-01T00:00:00Z","until":null}"#
        );
    }

    #[test]
    fn a_moment_beyond_the_calendar_is_refused_when_it_is_read() {
        for text in ["9999-12-31T23:59:59-23:59", "0000-01-01T00:00:00+23:59"] {
            let error = serde_json::from_str::<Document>(&format!(r#"{{"at":"{text}"}}"#)).unwrap_err();
            assert!(error.to_string().contains("beyond the calendar"), "{error}");
        }
    }
}
