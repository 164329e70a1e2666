//! The journal, with each fact of a record as a field of its own. The relay must never link what this needs.

use std::path::Path;

use zone_log::{Record, Sink, Stderr, text};

/// Where the journal takes records (systemd-journald.service(8)).
const SOCKET: &str = "/run/systemd/journal/socket";
/// In front of the names of our fields.
const PREFIX: &str = "ZONE_";
/// The facility "daemon" of syslog(3).
const DAEMON: u8 = 3;

/// Writes records to the journal; to standard error what the journal does not take.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    otherwise: Stderr,
}

impl Journal {
    /// Nothing is opened before the first record.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The socket that is missing where no journal runs: sending to none would count as success.
    pub(crate) fn missing() -> Option<&'static Path> {
        let socket = Path::new(SOCKET);
        (!socket.exists()).then_some(socket)
    }
}

impl Sink for Journal {
    fn write(&mut self, record: &Record) {
        let fields = fields(record);
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        if systemd::journal::send(&fields).is_err() {
            self.otherwise.put(record);
        }
    }
}

/// The fields of a record as `NAME=value` (systemd.journal-fields(7)).
fn fields(record: &Record) -> Vec<String> {
    let source = record.source();
    let mut fields = vec![
        format!("MESSAGE={}", text(record)),
        format!("PRIORITY={}", record.severity() as u8),
        format!("SYSLOG_FACILITY={DAEMON}"),
        format!("SYSLOG_IDENTIFIER={}", source.process),
        format!("SYSLOG_PID={}", source.pid),
        format!("{PREFIX}LOG_TARGET={}", record.target()),
    ];
    // Names of a record's fields are of ASCII letters, digits and `_` already, and short enough.
    fields.extend(
        record.fields().map(|field| format!("{PREFIX}{}={}", field.name.to_ascii_uppercase(), field.value())),
    );
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use zone_log::{AUDIT, Level, MAX_NAME_BYTES, Source};

    /// The longest name that the journal takes.
    const MAX_FIELD_NAME_CHARS: usize = 64;

    #[test]
    fn every_fact_becomes_a_field_that_can_be_searched_for() {
        let record = Record::new(Level::Info, AUDIT, "session ended")
            .with("session", "0190")
            .with("bytes-out", 7)
            .from_source(Source { process: "zone-relay".into(), pid: 42 });
        assert_eq!(
            fields(&record),
            [
                "MESSAGE=audit: session ended session=\"0190\" bytes_out=\"7\"",
                "PRIORITY=5",
                "SYSLOG_FACILITY=3",
                "SYSLOG_IDENTIFIER=zone-relay",
                "SYSLOG_PID=42",
                "ZONE_LOG_TARGET=audit",
                "ZONE_SESSION=0190",
                "ZONE_BYTES_OUT=7",
            ]
        );
    }

    #[test]
    fn no_name_is_one_that_the_journal_refuses_or_trusts() {
        let record =
            Record::new(Level::Warn, "t", "m").with("_pid", 1).with("größe=\n", 2).with(&"n".repeat(99), 3);
        for field in fields(&record) {
            let (name, _) = field.split_once('=').unwrap();
            assert!(name.starts_with(|c: char| c.is_ascii_uppercase()), "{name}");
            assert!(name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'), "{name}");
        }
        const { assert!(PREFIX.len() + MAX_NAME_BYTES <= MAX_FIELD_NAME_CHARS) };
    }

    #[test]
    fn a_line_break_in_a_value_makes_no_field_of_its_own() {
        let record = Record::new(Level::Info, "t", "m\nPRIORITY=0").with("who", "x\n_UID=0\nMESSAGE=forged");
        assert!(fields(&record).iter().all(|field| !field.contains('\n')));
    }
}
