//! Words of our own in the documents must stand in the glossary of docs/contributing.md.

use std::collections::BTreeSet;

use super::markdown;

/// Words that mean something else, or nothing, to who does not know this project. Each has to be in the glossary as
/// soon as a document uses it.
const OURS: &[&str] = &[
    "adopt",
    "anchor",
    "boot",
    "bootstrap leaf",
    "broker",
    "call",
    "caller",
    "ceiling",
    "clone",
    "control",
    "deny-list",
    "drain",
    "endpoint",
    "generation",
    "helper",
    "identity",
    "instance",
    "lab",
    "label",
    "leg",
    "lifeline",
    "Module Server",
    "offer",
    "orphan",
    "park",
    "payload",
    "pin",
    "proof",
    "provisioning",
    "relay",
    "release",
    "rendezvous",
    "resync",
    "role",
    "service",
    "session",
    "suite",
    "switchboard",
    "token",
    "trust document",
    "zone",
    "zone proxy",
];

/// The words that these documents use and the glossary lacks, as lines for a person.
pub(crate) fn missing(contributing: &str, documents: &[(&str, &str)]) -> Vec<String> {
    let Some(lines) = markdown::section(contributing, "Glossary") else {
        return vec!["docs/contributing.md has no section '## Glossary'".to_owned()];
    };
    let known = words(&lines);
    let mut missing = Vec::new();
    for (name, text) in documents {
        // A word may be broken over two lines.
        let prose = markdown::prose(text).collect::<Vec<_>>().join(" ");
        let prose = markdown::without_code(&prose);
        let used = OURS.iter().filter(|word| occurs(&prose, word)).map(|word| (*word).to_owned());
        let defined =
            markdown::marked(&prose, "*").into_iter().filter(|word| is_word(word)).map(str::to_owned);
        let lacking: BTreeSet<_> = used.chain(defined).filter(|word| !known.contains(&stem(word))).collect();
        missing.extend(lacking.into_iter().map(|word| format!("{name}: '{word}' is not in the glossary")));
    }
    missing
}

/// The words that the glossary explains: in the first column of its table or at the front of an entry of its list, in
/// bold or as code.
fn words(lines: &[&str]) -> BTreeSet<String> {
    let cells = markdown::rows(lines.iter().copied()).into_iter().filter_map(|row| row.first().copied());
    let entries = lines.iter().filter_map(|line| {
        let entry = line.trim_start().strip_prefix(['-', '*'])?.strip_prefix(' ')?;
        Some(entry.split_once([':', '|']).map_or(entry, |(word, _)| word))
    });
    cells
        .chain(entries)
        .flat_map(|text| markdown::marked(text, "**").into_iter().chain(markdown::marked(text, "`")))
        .map(stem)
        .collect()
}

/// A word without the differences that make no other word of it.
fn stem(word: &str) -> String {
    let word = word.trim().to_lowercase();
    match word.strip_suffix('s') {
        Some(one) if !one.ends_with(['s', 'u']) => one.to_owned(),
        _ => word,
    }
}

/// Remarks in brackets and whole sentences are emphasised as well.
fn is_word(emphasised: &str) -> bool {
    emphasised.starts_with(char::is_alphabetic) && emphasised.split_whitespace().count() <= 3
}

/// Whether a word stands in a text, by itself or in the plural.
fn occurs(text: &str, word: &str) -> bool {
    let (text, word) = (text.to_lowercase(), word.to_lowercase());
    let inside = |one: Option<char>| one.is_some_and(|one| one.is_alphanumeric() || matches!(one, '_' | '-'));
    text.match_indices(&word).any(|(at, _)| {
        let behind = &text[at + word.len()..];
        let behind = behind.strip_prefix('s').unwrap_or(behind);
        !inside(text[..at].chars().next_back()) && !inside(behind.chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GLOSSARY: &str = "# C\n## Glossary\n| word | meaning |\n|---|---|\n| **park**, `leg` | text of a session |\n- `zone`: text\n## N\n";

    fn found(text: &str) -> Vec<String> {
        missing(GLOSSARY, &[("d.md", text)])
    }

    #[test]
    fn a_word_of_ours_that_is_not_explained_is_told() {
        assert_eq!(found("Sessions end."), ["d.md: 'session' is not in the glossary"]);
        assert_eq!(found("The Module\nServer."), ["d.md: 'Module Server' is not in the glossary"]);
    }

    #[test]
    fn what_is_explained_in_a_table_or_a_list_passes_in_singular_and_plural() {
        assert!(found("A park, parks, Legs, and two zones.").is_empty());
    }

    #[test]
    fn a_word_within_another_and_code_are_no_use_of_it() {
        assert!(found("obsession sessionless `session`\n```\nsession\n```\n").is_empty());
    }

    #[test]
    fn what_is_emphasised_is_a_definition() {
        let text = "It *parks*, in a *berth*. *(inference)* **bold** and *one that is a sentence*.";
        assert_eq!(found(text), ["d.md: 'berth' is not in the glossary"]);
    }

    #[test]
    fn a_document_without_a_glossary_is_told() {
        assert_eq!(missing("# C\n", &[]).len(), 1);
    }
}
