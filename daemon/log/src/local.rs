//! Standard error: a terminal, a file, a pipe, or the journal behind a service's standard error.

use std::io::{self, IsTerminal, Write};

use crate::line::{Style, line};
use crate::queue::Sink;
use crate::record::Record;

/// Writes lines to standard error, in the way that suits what is behind it.
#[derive(Debug)]
pub struct Stderr {
    style: Style,
}

impl Stderr {
    /// Finds out what is behind standard error.
    pub fn new() -> Self {
        let style = if stderr_is_the_journal() {
            Style::Prefixed
        } else if io::stderr().is_terminal() {
            Style::Terminal
        } else {
            Style::Plain
        };
        Self { style }
    }

    /// Writes one line. An error is dropped: there is no other place to report it to.
    pub fn put(&self, record: &Record) {
        let mut line = line(record, self.style);
        line.push('\n');
        let _ = io::stderr().lock().write_all(line.as_bytes());
    }
}

impl Default for Stderr {
    fn default() -> Self {
        Self::new()
    }
}

impl Sink for Stderr {
    fn write(&mut self, record: &Record) {
        self.put(record);
    }
}

/// Whether systemd connected standard error to the journal: `JOURNAL_STREAM` names its device and inode (systemd.exec(5)).
pub fn stderr_is_the_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(io::stderr()).is_ok_and(|behind| names(&named, behind.st_dev, behind.st_ino))
}

fn names(journal_stream: &str, device: u64, inode: u64) -> bool {
    journal_stream.split_once(':').is_some_and(|(d, i)| d.parse() == Ok(device) && i.parse() == Ok(inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_stream_that_systemd_named_is_the_journal() {
        assert!(names("8:1234", 8, 1234));
        for other in ["8:1235", "9:1234", "8", "", ":", "8:1234:5", "x:y"] {
            assert!(!names(other, 8, 1234), "{other}");
        }
    }
}
