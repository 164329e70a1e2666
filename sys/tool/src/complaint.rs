//! What a tool complained about, in one line.

/// The most characters that [`Complaint::Beginning`] shows.
const MAX_BEGINNING_CHARS: usize = 400;
/// The most characters that [`Complaint::End`] shows.
const MAX_END_CHARS: usize = 300;
/// The most lines that [`Complaint::End`] shows.
const MAX_END_LINES: usize = 4;

/// Which part of what a tool said is shown to a person. Both are one line without control characters, whose parts are
/// separated by semicolons, and which is empty where the tool said nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Complaint {
    /// The first 400 characters, for tools that name the cause first, as nft(8). Lines that only point at a place in
    /// the line above (`^^^^`) are left out.
    Beginning,
    /// The last 300 characters of the last four lines, for tools that tell what they do before they fail, as dpkg(1).
    End,
}

impl Complaint {
    /// That part of `said`.
    pub fn of(self, said: &[u8]) -> String {
        let text = String::from_utf8_lossy(said);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let plain = |lines: &[&str]| -> Vec<char> {
            lines.join("; ").chars().filter(|character| !character.is_control()).collect()
        };
        match self {
            Self::Beginning => {
                let points = |line: &&str| line.chars().all(|character| character == '^');
                let characters = plain(&lines.filter(|line| !points(line)).collect::<Vec<_>>());
                characters.into_iter().take(MAX_BEGINNING_CHARS).collect()
            }
            Self::End => {
                let lines: Vec<_> = lines.collect();
                let characters = plain(&lines[lines.len().saturating_sub(MAX_END_LINES)..]);
                characters[characters.len().saturating_sub(MAX_END_CHARS)..].iter().collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_one_line_without_control_characters() {
        let said = b"  one\n\n\x1b[2Jtwo\x07\r\n";
        assert_eq!(Complaint::Beginning.of(said), "one; [2Jtwo");
        assert_eq!(Complaint::End.of(said), "one; [2Jtwo");
        assert_eq!(Complaint::Beginning.of(b"a\n^^^^\nb\n"), "a; b");
        assert_eq!(Complaint::End.of(b"\n \n"), "");
    }

    #[test]
    fn of_a_long_complaint_the_part_that_was_asked_for_is_shown() {
        let said = (0..1000).map(|number| format!("line {number}")).collect::<Vec<_>>().join("\n");
        let beginning = Complaint::Beginning.of(said.as_bytes());
        assert!(beginning.starts_with("line 0; line 1; "), "{beginning}");
        assert_eq!(beginning.chars().count(), MAX_BEGINNING_CHARS);
        assert_eq!(Complaint::End.of(said.as_bytes()), "line 996; line 997; line 998; line 999");
        let wide = format!("{}end", "\u{e9}".repeat(1000));
        let end = Complaint::End.of(wide.as_bytes());
        assert!(end.ends_with("end") && end.chars().count() == MAX_END_CHARS, "{end}");
    }
}
