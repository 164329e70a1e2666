//! One thing that happened: bounded when it is made or received, escaped when it is read.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::escape::escaped;

/// The target of what an auditor reads: who changed what, from where, before and after (R-53).
pub const AUDIT: &str = "audit";

/// Bytes of a target; the rest is cut off.
pub(crate) const MAX_TARGET_BYTES: usize = 64;
/// Bytes of a message; the rest is cut off.
pub(crate) const MAX_MESSAGE_BYTES: usize = 4 * 1024;
/// Fields of a record; further ones are left out.
pub(crate) const MAX_FIELDS: usize = 32;
/// Bytes of a field's name; the rest is cut off.
pub const MAX_NAME_BYTES: usize = 48;
/// Bytes of a field's value; the rest is cut off.
pub(crate) const MAX_VALUE_BYTES: usize = 2 * 1024;
/// Bytes of all names and values of a record together.
pub(crate) const MAX_RECORD_BYTES: usize = 16 * 1024;

/// What stands for the part of a text that was cut off.
const CUT: &str = "...";
/// The last microsecond that RFC 3339 can write: the end of the year 9999.
const LAST_MICROSECOND: u64 = 253_402_300_799_999_999;

/// From which severity on something is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// What needs an admin.
    Error,
    /// What went wrong and was dealt with.
    Warn,
    /// What happens.
    #[default]
    Info,
    /// What happens inside.
    Debug,
    /// Everything, down to single steps.
    Trace,
}

impl Level {
    /// The word in configuration files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// A word that is no level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no log level: use error, warn, info, debug or trace")]
pub struct NoLevel(String);

impl FromStr for Level {
    type Err = NoLevel;

    fn from_str(word: &str) -> Result<Self, NoLevel> {
        [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace]
            .into_iter()
            .find(|level| level.as_str().eq_ignore_ascii_case(word))
            .ok_or_else(|| NoLevel(escaped(word).into_owned()))
    }
}

impl From<tracing::Level> for Level {
    fn from(level: tracing::Level) -> Self {
        match level {
            tracing::Level::ERROR => Self::Error,
            tracing::Level::WARN => Self::Warn,
            tracing::Level::INFO => Self::Info,
            tracing::Level::DEBUG => Self::Debug,
            tracing::Level::TRACE => Self::Trace,
        }
    }
}

/// A severity as syslog(3), RFC 5424 and the journal number it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Severity {
    /// [`Level::Error`].
    Error = 3,
    /// [`Level::Warn`].
    Warning = 4,
    /// An audit line at [`Level::Info`]: it stands out, and a filter for "notice" keeps it.
    Notice = 5,
    /// [`Level::Info`].
    Informational = 6,
    /// [`Level::Debug`] and [`Level::Trace`].
    Debug = 7,
}

/// The process that a record comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The program.
    pub process: Arc<str>,
    /// Its process id.
    pub pid: u32,
}

impl Source {
    /// This process, under the name of its program.
    pub fn own(process: &str) -> Self {
        Self { process: process.into(), pid: std::process::id() }
    }
}

impl Default for Source {
    fn default() -> Self {
        Self::own("")
    }
}

/// One thing that happened, with its facts. Cheap to hold: all its texts are bounded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Raw")]
pub struct Record {
    /// Since the epoch.
    microseconds: u64,
    level: Level,
    target: String,
    message: String,
    fields: Vec<Stored>,
    #[serde(skip)]
    source: Source,
}

/// A record as another process sends it: nothing about it is bounded yet.
#[derive(Deserialize)]
struct Raw {
    microseconds: u64,
    level: Level,
    target: String,
    message: String,
    fields: Vec<Stored>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Stored {
    name: String,
    value: String,
    quoted: bool,
}

/// One fact of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its name, of ASCII letters, digits and `_`.
    pub name: &'a str,
    raw: &'a str,
    /// Whether it was logged as a text, which stands in quotation marks on a line.
    pub(crate) quoted: bool,
}

impl<'a> Field<'a> {
    /// Its value, with control characters escaped.
    pub fn value(&self) -> Cow<'a, str> {
        escaped(self.raw)
    }

    pub(crate) fn raw(&self) -> &'a str {
        self.raw
    }
}

impl Record {
    /// Something that happens now in this process.
    pub fn new(level: Level, target: &str, message: &str) -> Self {
        Self::at(now(), level, target, message)
    }

    fn at(microseconds: u64, level: Level, target: &str, message: &str) -> Self {
        Self {
            microseconds: microseconds.min(LAST_MICROSECOND),
            level,
            target: cut(target, MAX_TARGET_BYTES),
            message: cut(message, MAX_MESSAGE_BYTES),
            fields: Vec::new(),
            source: Source::default(),
        }
    }

    /// The same with a fact.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.push(name, &limited(format_args!("{value}")), true);
        self
    }

    /// The same as coming from a process.
    #[must_use]
    pub fn from_source(mut self, source: Source) -> Self {
        self.source = source;
        self
    }

    /// The same, at most so much older than now, and not from the future: what another process says of time is
    /// not taken for more than it can be.
    #[must_use]
    pub fn within(mut self, age: Duration) -> Self {
        let now = now();
        let oldest = now.saturating_sub(u64::try_from(age.as_micros()).unwrap_or(u64::MAX));
        self.microseconds = self.microseconds.clamp(oldest, now);
        self
    }

    /// The same under another target.
    #[must_use]
    pub fn with_target(mut self, target: &str) -> Self {
        self.target = cut(target, MAX_TARGET_BYTES);
        self
    }

    /// The same with its facts under the names that `name_of` gives them; what gets none is left out.
    #[must_use]
    pub fn renamed(mut self, name_of: impl for<'a> Fn(&'a str) -> Option<Cow<'a, str>>) -> Self {
        for Stored { name, value, quoted } in std::mem::take(&mut self.fields) {
            if let Some(name) = name_of(&name) {
                self.push(&name, &value, quoted);
            }
        }
        self
    }

    /// How important.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The same in syslog's numbers.
    pub fn severity(&self) -> Severity {
        match self.level {
            Level::Error => Severity::Error,
            Level::Warn => Severity::Warning,
            Level::Info if self.is_audit() => Severity::Notice,
            Level::Info => Severity::Informational,
            Level::Debug | Level::Trace => Severity::Debug,
        }
    }

    /// Whether it is a line for the auditor.
    pub fn is_audit(&self) -> bool {
        self.target == AUDIT
    }

    /// Which part of the program logged it, escaped.
    pub fn target(&self) -> Cow<'_, str> {
        escaped(&self.target)
    }

    /// What happened, in words, escaped.
    pub fn message(&self) -> Cow<'_, str> {
        escaped(&self.message)
    }

    /// Its facts, in the order in which they were logged.
    pub fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        self.fields.iter().map(|field| Field { name: &field.name, raw: &field.value, quoted: field.quoted })
    }

    /// Where it comes from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// When, as RFC 3339 in UTC with six digits of a second.
    pub fn timestamp(&self) -> String {
        let moment = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.microseconds) * 1_000)
            .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
        let (date, (hour, minute, second)) = (moment.date(), moment.to_hms());
        format!(
            "{:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z",
            date.year(),
            u8::from(date.month()),
            date.day(),
            moment.microsecond()
        )
    }

    /// About how many bytes of memory it takes.
    pub fn size(&self) -> usize {
        let fields = self.fields.iter().map(|field| field.name.len() + field.value.len());
        size_of::<Self>()
            + self.target.len()
            + self.message.len()
            + self.fields.len() * size_of::<Stored>()
            + fields.sum::<usize>()
    }

    /// Of an event, without its facts yet.
    pub(crate) fn of_event(event: &tracing::Event<'_>, source: Source) -> Self {
        let metadata = event.metadata();
        Self::new((*metadata.level()).into(), metadata.target(), "").from_source(source)
    }

    /// Takes in the message and the facts of an event.
    pub(crate) fn take_event(&mut self, event: &tracing::Event<'_>) {
        event.record(&mut Facts(self));
    }

    /// Takes in the facts of a span.
    pub(crate) fn take_span(&mut self, facts: &SpanFacts) {
        for fact in &facts.0 {
            self.push(&fact.name, &fact.value, fact.quoted);
        }
    }

    fn push(&mut self, name: &str, value: &str, quoted: bool) {
        let taken: usize = self.fields.iter().map(|field| field.name.len() + field.value.len()).sum();
        let room = MAX_RECORD_BYTES.saturating_sub(taken + MAX_NAME_BYTES);
        if self.fields.len() >= MAX_FIELDS || room == 0 {
            return;
        }
        let name = name.strip_prefix("r#").unwrap_or(name);
        let good = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let name: String = name.chars().take(MAX_NAME_BYTES).map(good).collect();
        self.fields.push(Stored { name, value: cut(value, MAX_VALUE_BYTES.min(room)), quoted });
    }
}

impl From<Raw> for Record {
    fn from(raw: Raw) -> Self {
        let mut record = Self::at(raw.microseconds, raw.level, &raw.target, &raw.message);
        for field in raw.fields.iter().take(MAX_FIELDS) {
            record.push(&field.name, &field.value, field.quoted);
        }
        record
    }
}

/// The facts of a span, for the records of all that happens in it.
#[derive(Debug)]
pub(crate) struct SpanFacts(Box<[Stored]>);

impl SpanFacts {
    pub(crate) fn new(attributes: &tracing::span::Attributes<'_>) -> Self {
        let mut record = Record::at(0, Level::Info, "", "");
        attributes.record(&mut Facts(&mut record));
        Self(record.fields.into_boxed_slice())
    }
}

struct Facts<'a>(&'a mut Record);

impl Facts<'_> {
    fn take(&mut self, field: &tracing::field::Field, value: fmt::Arguments<'_>, quoted: bool) {
        if field.name() == "message" {
            self.0.message = cut(&limited(value), MAX_MESSAGE_BYTES);
        } else {
            self.0.push(field.name(), &limited(value), quoted);
        }
    }
}

impl tracing::field::Visit for Facts<'_> {
    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        self.take(field, format_args!("{value}"), true);
    }

    fn record_error(&mut self, field: &tracing::field::Field, value: &(dyn std::error::Error + 'static)) {
        self.take(field, format_args!("{value}"), false);
    }

    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        self.take(field, format_args!("{value:?}"), false);
    }
}

/// Formats no more than can be kept.
fn limited(value: fmt::Arguments<'_>) -> String {
    struct Limited(String);

    impl fmt::Write for Limited {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let room = MAX_MESSAGE_BYTES + CUT.len() - self.0.len();
            let fits = start(text, room);
            self.0.push_str(fits);
            if fits.len() == text.len() { Ok(()) } else { Err(fmt::Error) }
        }
    }

    let mut text = Limited(String::new());
    // The only error is that it was cut off, which `cut` marks.
    let _ = fmt::write(&mut text, value);
    text.0
}

fn cut(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let kept = start(text, limit.saturating_sub(CUT.len()));
    format!("{kept}{CUT}")
}

/// The most whole characters within so many bytes.
fn start(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(LAST_MICROSECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_another_process_is_cut_to_its_bounds() {
        let field = serde_json::json!({"name": "a b\n=", "value": "v".repeat(100_000), "quoted": true});
        let text = serde_json::json!({
            "microseconds": u64::MAX, "level": "warn", "target": "t".repeat(1_000), "message": "é".repeat(10_000),
            "fields": vec![field; 1_000],
        });
        let record: Record = serde_json::from_value(text).unwrap();
        assert!(
            record.size() <= MAX_RECORD_BYTES + MAX_MESSAGE_BYTES + MAX_FIELDS * size_of::<Stored>() + 1_024
        );
        assert_eq!(record.timestamp(), "9999-12-31T23:59:59.999999Z");
        assert!(record.message().ends_with("é..."));
        assert_eq!(record.target().len(), MAX_TARGET_BYTES);
        assert_eq!(record.fields().next().unwrap().name, "a_b__");
        assert!(record.fields().count() <= MAX_FIELDS);
    }

    #[test]
    fn another_process_can_not_move_its_lines_in_time() {
        let late: Record = Record::at(5, Level::Info, "t", "m").within(Duration::from_secs(60));
        let early = Record::at(u64::MAX, Level::Info, "t", "m").within(Duration::from_secs(60));
        assert!(now() - late.microseconds < 61_000_000);
        assert!(early.microseconds <= now());
    }

    #[test]
    fn a_record_survives_the_way_to_another_process() {
        let record = Record::new(Level::Error, "a", "b").with("session", "x\ny").with("n", 3);
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    }

    #[test]
    fn a_value_without_end_is_formatted_only_as_far_as_it_is_kept() {
        struct Endless;
        impl fmt::Display for Endless {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                loop {
                    f.write_str("more and ")?;
                }
            }
        }
        let record = Record::new(Level::Info, "t", "m").with("endless", Endless);
        assert_eq!(record.fields().next().unwrap().value().len(), MAX_VALUE_BYTES);
    }

    #[test]
    fn levels_are_read_from_their_words() {
        assert_eq!("WARN".parse(), Ok(Level::Warn));
        assert!("loud\n".parse::<Level>().unwrap_err().to_string().starts_with("'loud\\n' is no log level"));
    }
}
