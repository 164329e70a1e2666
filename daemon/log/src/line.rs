//! A record as one line for people.

use crate::escape::push_quoted;
use crate::record::{Level, Record};

/// For whom a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A file or a pipe: time, level and text.
    Plain,
    /// A terminal: the same, in colour.
    Terminal,
    /// The journal, which knows the time itself and reads `<N>` as the priority (sd-daemon(3)).
    Prefixed,
}

const RESET: &str = "\x1b[0m";
const DIM: &str = "\x1b[2m";

/// The whole line, without its end.
pub fn line(record: &Record, style: Style) -> String {
    let (word, colour) = match record.level() {
        Level::Error => ("ERROR", "\x1b[31m"),
        Level::Warn => (" WARN", "\x1b[33m"),
        Level::Info => (" INFO", "\x1b[32m"),
        Level::Debug => ("DEBUG", "\x1b[34m"),
        Level::Trace => ("TRACE", "\x1b[35m"),
    };
    let mut line = match style {
        Style::Plain => format!("{} {word} ", record.timestamp()),
        Style::Terminal => format!("{DIM}{}{RESET} {colour}{word}{RESET} ", record.timestamp()),
        Style::Prefixed => format!("<{}>", record.severity() as u8),
    };
    line.push_str(&text(record));
    if record.source().pid != std::process::id() {
        line.push_str(" process=");
        push_quoted(&mut line, &record.source().process);
        line.push_str(" pid=");
        line.push_str(&record.source().pid.to_string());
    }
    line
}

/// `target: message key=value key="text"`, without time, level and source.
pub fn text(record: &Record) -> String {
    let mut text = format!("{}:", record.target());
    let message = record.message();
    if !message.is_empty() {
        text.push(' ');
        text.push_str(&message);
    }
    for field in record.fields() {
        text.push(' ');
        text.push_str(field.name);
        text.push('=');
        if field.quoted {
            push_quoted(&mut text, field.raw());
        } else {
            text.push_str(&field.value());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Source;

    #[test]
    fn a_line_names_time_level_target_words_and_facts() {
        let record =
            Record::new(Level::Warn, "audit", "failed").with("change", "provision").with("step", "a \"b\"");
        let line = line(&record, Style::Plain);
        let (time, rest) = line.split_once(' ').unwrap();
        assert_eq!(time.len(), "2026-01-01T00:00:00.000000Z".len());
        assert_eq!(rest, r#" WARN audit: failed change="provision" step="a \"b\"""#);
    }

    #[test]
    fn a_line_break_in_a_value_makes_no_second_line() {
        let forged = "x\n2026-01-01T00:00:00.000000Z  INFO audit: done change=\"reset\"";
        let record = Record::new(Level::Info, "a\nb", forged).with("who", forged);
        for style in [Style::Plain, Style::Terminal, Style::Prefixed] {
            let line = line(&record, style);
            assert!(!line.contains('\n'), "{line}");
            assert!(!line.contains("done change=\"reset\"\n"), "{line}");
        }
    }

    #[test]
    fn the_journal_gets_a_priority_in_front() {
        let shown = |level, target| line(&Record::new(level, target, "m"), Style::Prefixed);
        assert_eq!(shown(Level::Error, "t"), "<3>t: m");
        assert_eq!(shown(Level::Info, "t"), "<6>t: m");
        assert_eq!(shown(Level::Info, "audit"), "<5>audit: m");
    }

    #[test]
    fn a_line_of_another_process_says_so() {
        let source = Source { process: "zone-relay".into(), pid: u32::MAX };
        let record = Record::new(Level::Info, "t", "m").from_source(source);
        assert!(line(&record, Style::Plain).ends_with(" INFO t: m process=\"zone-relay\" pid=4294967295"));
    }
}
