//! Lines on standard output. A reader that has gone is an error here, not a panic.

use std::fmt::Display;
use std::io::{self, Write as _};

use serde::Serialize;
use zone_module::{Error, Result};

/// One line.
pub(super) fn line(text: impl Display) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(failed)
}

/// A document.
pub(super) fn json(document: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(document).map_err(|e| failed(e.into()))?;
    line(text)
}

/// Columns under a heading, each as wide as its widest cell.
pub(super) fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> Result<()> {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heading[column].chars().count()]).max().unwrap_or_default()
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let row = |cells: [&str; N]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    line(row(heading))?;
    rows.iter().try_for_each(|cells| line(row(std::array::from_fn(|n| cells[n].as_str()))))
}

fn failed(source: io::Error) -> Error {
    Error::Local { what: "writing to standard output", source }
}
