//! Words of others, for a terminal.

/// Text for a terminal: what is not plain becomes a question mark.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii() && !c.is_ascii_control() { c } else { '?' }).take(200).collect()
}
