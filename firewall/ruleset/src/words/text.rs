//! Text of others, in one line.

use std::fmt::Write as _;

use crate::model::{Name, Verdict};

/// A verdict, such as `accept` or `jump services`.
#[must_use]
pub fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Queue => "queue".to_owned(),
        Verdict::Continue => "continue".to_owned(),
        Verdict::Break => "break".to_owned(),
        Verdict::Jump(chain) => format!("jump {}", name(chain)),
        Verdict::Goto(chain) => format!("goto {}", name(chain)),
        Verdict::Return => "return".to_owned(),
    }
}

/// A name in one line: what a terminal would act upon is escaped.
#[must_use]
pub fn name(name: &Name) -> String {
    printable(&name.to_string())
}

/// Text in one line, whatever it holds: what a terminal would act upon, or would show as something else, is escaped.
pub(super) fn printable(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        if acts(character) {
            let _ = write!(plain, "{}", character.escape_default());
        } else {
            plain.push(character);
        }
    }
    plain
}

/// The same in quotes, which the text can't close.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", printable(text).replace('"', "\\\""))
}

/// Controls, ends of lines and paragraphs, and what turns the direction of writing round.
fn acts(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}')
        || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_ends_its_line_or_its_quotes() {
        assert_eq!(quoted("a\n\u{1b}[2J\u{202e}\"b"), "\"a\\n\\u{1b}[2J\\u{202e}\\\"b\"");
    }
}
