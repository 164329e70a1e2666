//! A record as an RFC 5424 message.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use syslog::{Facility, Formatter5424};

use crate::line::text;
use crate::record::Record;

/// Bytes of one datagram: every receiver should take so much (RFC 5426 section 3.2).
pub const MAX_DATAGRAM_BYTES: usize = 2_048;
/// Bytes of one message over TCP and TLS. RFC 5425 has servers take 8,192 at least.
pub(super) const MAX_FRAME_BYTES: usize = 8_192;

/// The element of structured data that holds a record's facts. 32473 is the enterprise number for examples and the
/// like (RFC 5612); this project has none of its own.
const ELEMENT: &str = "zone@32473";
/// Bytes left for the words when the facts are long.
const MIN_TEXT_BYTES: usize = 512;

const MAX_HOST_CHARS: usize = 255;
const MAX_PROCESS_CHARS: usize = 48;
const MAX_MESSAGE_ID_CHARS: usize = 32;
const MAX_PARAMETER_CHARS: usize = 32;

/// The name of this host as it stands in messages.
pub(super) fn host() -> String {
    printable(&rustix::system::uname().nodename().to_string_lossy(), MAX_HOST_CHARS)
}

/// The message, at most so long: facts are left out and words cut where they do not fit.
pub(super) fn message(record: &Record, host: &str, longest: usize) -> Vec<u8> {
    let source = record.source();
    let mut message = format!(
        "<{}>1 {} {host} {} {} {} ",
        Facility::LOG_DAEMON as u8 | record.severity() as u8,
        record.timestamp(),
        printable(&source.process, MAX_PROCESS_CHARS),
        source.pid,
        printable(&record.target(), MAX_MESSAGE_ID_CHARS),
    );
    let facts = facts(record, &source.process, source.pid);
    message.push_str(if message.len() + facts.len() + MIN_TEXT_BYTES <= longest { &facts } else { "-" });
    // Writing to a String can't fail.
    let _ = write!(message, " {}", text(record));
    let mut end = message.len().min(longest);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.truncate(end);
    message.into_bytes()
}

fn facts(record: &Record, process: &str, pid: u32) -> String {
    let facts: BTreeMap<_, _> = record
        .fields()
        .map(|field| (printable(field.name, MAX_PARAMETER_CHARS), field.value().into_owned()))
        .collect();
    if facts.is_empty() {
        return "-".to_owned();
    }
    // Only this part of the crate's formatter is used: the whole of it would stamp the moment of sending.
    let formatter =
        Formatter5424 { facility: Facility::LOG_DAEMON, hostname: None, process: process.to_owned(), pid };
    formatter.format_5424_structured_data(BTreeMap::from([(ELEMENT.to_owned(), facts)]))
}

/// What RFC 5424 calls PRINTUSASCII, and a `-` for nothing. `=`, `]` and `"` are no part of a name either.
fn printable(text: &str, longest: usize) -> String {
    let good = |c: char| if c.is_ascii_graphic() && !matches!(c, '=' | ']' | '"') { c } else { '_' };
    let shown: String = text.chars().take(longest).map(good).collect();
    if shown.is_empty() { "-".to_owned() } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{AUDIT, Level, Source};

    fn shown(record: &Record, longest: usize) -> String {
        String::from_utf8(message(record, "host", longest)).unwrap()
    }

    fn source() -> Source {
        Source { process: "zone-relay".into(), pid: 7 }
    }

    #[test]
    fn a_message_has_every_part_that_the_rfc_wants() {
        let record = Record::new(Level::Info, AUDIT, "done").with("who", "a]\"b\\").from_source(source());
        let text = shown(&record, MAX_FRAME_BYTES);
        let parts: Vec<_> = text.splitn(7, ' ').collect();
        assert_eq!(
            (parts[0], parts[2], parts[3], parts[4], parts[5]),
            ("<29>1", "host", "zone-relay", "7", "audit")
        );
        assert_eq!(parts[1], record.timestamp());
        assert_eq!(parts[6], r#"[zone@32473 who="a\]\"b\\"] audit: done who="a]\"b\\""#);
    }

    #[test]
    fn a_record_without_facts_has_a_nil_element() {
        assert!(shown(&Record::new(Level::Error, "a b", "words"), 2_048).ends_with(" a_b - a b: words"));
    }

    #[test]
    fn a_line_break_in_a_value_makes_no_second_message() {
        let forged = "x\n<29>1 - - - - - - done";
        let record = Record::new(Level::Warn, forged, forged)
            .with("who", forged)
            .from_source(Source { process: forged.into(), pid: 1 });
        assert!(!message(&record, "host", MAX_FRAME_BYTES).contains(&b'\n'));
    }

    #[test]
    fn a_message_is_cut_to_what_the_transport_takes() {
        let long = Record::new(Level::Info, "t", &"é".repeat(4_000)).with("why", "y".repeat(3_000));
        for longest in [MAX_DATAGRAM_BYTES, MAX_FRAME_BYTES] {
            let text = shown(&long, longest);
            assert!((longest - 1..=longest).contains(&text.len()), "{}", text.len());
        }
        assert!(
            shown(&long, MAX_DATAGRAM_BYTES).contains(" t - t: é"),
            "facts that do not fit are left out whole"
        );
        assert!(shown(&long, MAX_FRAME_BYTES).contains("[zone@32473 why=\"yyy"));
    }
}
