//! Characters that would let a value forge a line or steer a terminal are shown, not obeyed.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The text with control characters, line separators and marks of writing direction as `\n`, `\x1b`, `\u{202e}`.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.chars().any(needs_escape) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        push(&mut shown, c);
    }
    Cow::Owned(shown)
}

/// The same between quotation marks, in which neither a quotation mark nor a backslash can pass for an end.
pub(crate) fn push_quoted(line: &mut String, text: &str) {
    line.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            line.push('\\');
        }
        push(line, c);
    }
    line.push('"');
}

fn push(shown: &mut String, c: char) {
    match c {
        '\n' => shown.push_str("\\n"),
        '\r' => shown.push_str("\\r"),
        '\t' => shown.push_str("\\t"),
        // Writing to a String can't fail.
        c if needs_escape(c) && c.is_ascii() => drop(write!(shown, "\\x{:02x}", u32::from(c))),
        c if needs_escape(c) => drop(write!(shown, "\\u{{{:x}}}", u32::from(c))),
        c => shown.push(c),
    }
}

fn needs_escape(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_text_is_left_as_it_is() {
        assert!(matches!(escaped("Grüße, 日本 \"a\\b\""), Cow::Borrowed(_)));
    }

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        assert_eq!(escaped("a\nb\r\t\x1b[2J\x7f\u{9b}\u{202e}"), r"a\nb\r\t\x1b[2J\x7f\u{9b}\u{202e}");
    }

    #[test]
    fn a_quoted_value_can_not_end_early() {
        let mut line = String::new();
        push_quoted(&mut line, "x\\\" y=\"1\n");
        assert_eq!(line, r#""x\\\" y=\"1\n""#);
    }
}
