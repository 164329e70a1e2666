//! A terminal's screen as an SVG picture, for documents.

use std::fmt::Write as _;

/// The size of a character cell, in the picture's units.
const CELL: (usize, usize) = (8, 17);
const MARGIN: usize = 12;

/// Draws a screen of this many columns. The text is what tmux(1) `capture-pane -p` prints.
pub fn svg(screen: &str, columns: usize, rows: usize) -> String {
    let (width, height) = (columns * CELL.0 + 2 * MARGIN, rows * CELL.1 + 2 * MARGIN);
    let mut picture = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"6\" fill=\"#1d1f21\"/>\n\
         <g font-family=\"DejaVu Sans Mono, Menlo, Consolas, monospace\" font-size=\"13\" fill=\"#d8d8d8\" xml:space=\"preserve\">\n"
    );
    for (row, line) in screen.lines().take(rows).enumerate() {
        let line: String = line.trim_end().chars().take(columns).collect();
        if line.is_empty() {
            continue;
        }
        // A font may be wider or narrower than a cell; the length makes it fit.
        let (y, length) = (MARGIN + row * CELL.1 + 13, line.chars().count() * CELL.0);
        let text = line.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let _ = writeln!(picture, "<text x=\"{MARGIN}\" y=\"{y}\" textLength=\"{length}\">{text}</text>");
    }
    picture + "</g>\n</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_stands_in_its_row() {
        let picture = svg("A > <B>\n\n  Z  log out\n", 80, 24);
        assert!(picture.contains("y=\"25\" textLength=\"56\">A &gt; &lt;B&gt;</text>"), "{picture}");
        assert!(picture.contains("y=\"59\" textLength=\"96\">  Z  log out</text>"), "{picture}");
        assert_eq!(picture.matches("<text").count(), 2);
    }
}
