//! What a person reads: lines, errors of one line, the table at the end.

use std::fmt;
use std::io::Write;
use std::time::Duration;

/// An error of one line: what is wrong, where, and what to do.
#[derive(Debug, Clone)]
pub(crate) struct Failure(String);

/// A result whose error is for a person.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Puts what was being done before the system's own words.
pub(crate) trait Context<T> {
    /// Makes an error into a [`Failure`] that begins with `what`.
    fn or_fail(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn or_fail(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Failure(format!("{}: {error}", what())))
    }
}

/// One line of a table of results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// What was done.
    pub(crate) step: String,
    /// What was seen.
    pub(crate) seen: String,
    /// How long it took.
    pub(crate) time: Duration,
}

impl Row {
    /// The row as one line of a file.
    pub(crate) fn to_line(&self) -> String {
        let flat = |text: &str| text.replace(['\t', '\n'], " ");
        format!("{}\t{}\t{}\n", flat(&self.step), flat(&self.seen), self.time.as_millis())
    }

    /// Reads what [`Row::to_line`] wrote.
    pub(crate) fn from_line(line: &str) -> Option<Self> {
        let mut cells = line.split('\t');
        let (step, seen) = (cells.next()?.to_owned(), cells.next()?.to_owned());
        Some(Self { step, seen, time: Duration::from_millis(cells.next()?.parse().ok()?) })
    }
}

/// Prints a line. Where nobody reads any more, the work and its clean-up go on.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Replaces the terminal's current line.
pub(crate) fn say_over(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = write!(out, "\r{line}\x1b[K").and_then(|()| out.flush());
}

/// A headline with an empty line before it.
pub(crate) fn headline(text: &str) {
    say(&format!("\n== {text}"));
}

/// The table of all rows, columns lined up.
pub(crate) fn table(rows: &[Row]) -> String {
    let width = |cell: fn(&Row) -> &str, title: &str| {
        rows.iter().map(|row| cell(row).chars().count()).chain([title.len()]).max().unwrap_or_default()
    };
    let (step, seen) = (width(|row| &row.step, "step"), width(|row| &row.seen, "what was seen"));
    let title = format!("{:step$}  {:seen$}     time", "step", "what was seen");
    let rule = format!("{}  {}  -------", "-".repeat(step), "-".repeat(seen));
    let body =
        rows.iter().map(|row| format!("{:step$}  {:seen$}  {:>7}", row.step, row.seen, seconds(row.time)));
    [title, rule].into_iter().chain(body).collect::<Vec<_>>().join("\n")
}

/// A duration in seconds, to a tenth.
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_survives_its_file() {
        let row =
            Row { step: "1 start".into(), seen: "17488\tlistens".into(), time: Duration::from_millis(1234) };
        let read = Row::from_line(row.to_line().trim_end()).expect("a row");
        assert_eq!(read, Row { seen: "17488 listens".into(), ..row });
    }

    #[test]
    fn columns_line_up() {
        let rows = [Row { step: "one".into(), seen: "\u{e9}t\u{e9}".into(), time: Duration::from_secs(1) }];
        let text = table(&rows);
        let widths: Vec<_> = text.lines().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{text}");
    }
}
