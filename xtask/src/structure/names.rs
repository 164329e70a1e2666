//! Names and comments that tell a reader nothing.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// Words that stand for something the field has a word for: a permit, admission, a heartbeat, termination, a header.
const BANNED: [&str; 10] =
    ["face", "gate", "preface", "pulse", "beat", "keeper", "seldom", "strike", "struck", "poke"];
/// Names of constants that don't say of what they are the bound.
const BANNED_CONSTANTS: [&str; 3] = ["PATIENCE", "LONGEST", "MOST"];

/// What is wrong with the names of a file and its folders.
pub(crate) fn in_path(path: &str) -> Vec<String> {
    let names = path.strip_suffix(".rs").unwrap_or(path).split('/');
    names
        .filter_map(|name| banned_word(&name.replace('-', "_")))
        .map(|word| format!("{path}: '{word}' in its name"))
        .collect()
}

/// What is wrong with names and doc comments in a file, with the number of the line. Names of tests are sentences,
/// and pass.
pub(crate) fn in_source(text: &str) -> Result<Vec<(usize, String)>, syn::Error> {
    let tokens: TokenStream = text.parse()?;
    let mut found = Vec::new();
    look_at(tokens, &mut found);
    found.sort();
    Ok(found)
}

fn look_at(tokens: TokenStream, found: &mut Vec<(usize, String)>) {
    let mut comment = Comment::default();
    let (mut is_test, mut before) = (false, String::new());
    for token in tokens {
        if let TokenTree::Punct(mark) = &token
            && matches!(mark.as_char(), '#' | '!')
        {
            // `#[...]` and `#![...]`: the group comes next.
            before.clear();
            before.push(mark.as_char());
            continue;
        }
        match token {
            TokenTree::Group(group)
                if group.delimiter() == Delimiter::Bracket && matches!(before.as_str(), "#" | "!") =>
            {
                if let Some(line) = doc_line(&group) {
                    comment.add(group.span_open().start().line, &line);
                } else {
                    is_test |= is_test_attribute(&group);
                    look_at(group.stream(), found);
                }
                before.clear();
            }
            other => {
                comment.end(found);
                let name = match &other {
                    TokenTree::Ident(name) => {
                        let (line, name) = (name.span().start().line, name.to_string());
                        let is_sentence = before == "fn" && is_test;
                        if !is_sentence {
                            found.extend(wrong_name(&name, &before).map(|what| (line, what)));
                        }
                        is_test &= before != "fn";
                        name
                    }
                    TokenTree::Group(group) => {
                        look_at(group.stream(), found);
                        String::new()
                    }
                    _ => String::new(),
                };
                before = name;
            }
        }
    }
    comment.end(found);
}

fn wrong_name(name: &str, before: &str) -> Option<String> {
    if BANNED_CONSTANTS.contains(&name) && matches!(before, "const" | "static") {
        return Some(format!("the constant {name} does not say of what it is the bound"));
    }
    // Where it is only used, the definition tells already; a name of another crate is not ours to change.
    (!BANNED_CONSTANTS.contains(&name))
        .then(|| banned_word(name))?
        .map(|word| format!("'{word}' in the name {name}"))
}

/// The banned word among the parts of a name, be they joined by underscores or by capitals.
fn banned_word(name: &str) -> Option<&'static str> {
    let mut parts = vec![String::new()];
    let mut small = false;
    for one in name.chars() {
        if one == '_' || (one.is_uppercase() && small) {
            parts.push(String::new());
        }
        if one != '_' {
            parts.last_mut()?.extend(one.to_lowercase());
        }
        small = one.is_lowercase();
    }
    BANNED.into_iter().find(|word| parts.iter().any(|part| part == word))
}

/// The doc comment that is being read.
#[derive(Default)]
struct Comment {
    line: usize,
    words: Vec<String>,
}

impl Comment {
    fn add(&mut self, line: usize, text: &str) {
        if self.words.is_empty() {
            self.line = line;
        }
        self.words.extend(text.split_whitespace().map(str::to_owned));
    }

    fn end(&mut self, found: &mut Vec<(usize, String)>) {
        // A name that is code, a standard or a requirement (`R-42`) says something.
        if let [word] = self.words.as_slice()
            && word.trim_end_matches('.').chars().all(char::is_alphabetic)
        {
            found.push((self.line, format!("the comment '{word}' says nothing that the name does not")));
        }
        self.words.clear();
    }
}

/// The text of `doc = "text"`.
fn doc_line(attribute: &Group) -> Option<String> {
    let tokens: Vec<_> = attribute.stream().into_iter().collect();
    match tokens.as_slice() {
        [TokenTree::Ident(name), TokenTree::Punct(_), TokenTree::Literal(text)] if name == "doc" => {
            syn::parse_str::<syn::LitStr>(&text.to_string()).ok().map(|text| text.value())
        }
        _ => None,
    }
}

/// `test`, `tokio::test`, `tokio::test(...)`.
fn is_test_attribute(attribute: &Group) -> bool {
    let mut last = String::new();
    for token in attribute.stream() {
        match token {
            TokenTree::Ident(name) => last = name.to_string(),
            TokenTree::Punct(mark) if mark.as_char() == ':' => {}
            _ => break,
        }
    }
    last == "test"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        in_source(text).expect("tokens").into_iter().map(|(line, what)| format!("{line}: {what}")).collect()
    }

    #[test]
    fn banned_words_are_found_as_whole_parts_of_names() {
        assert_eq!(
            found("struct GateKeeper;\nfn park_face() { x.poke(); println!(\"{}\", pulse) }"),
            [
                "1: 'gate' in the name GateKeeper",
                "2: 'face' in the name park_face",
                "2: 'poke' in the name poke",
                "2: 'pulse' in the name pulse"
            ]
        );
        assert!(found("struct Interface; fn heartbeat() {} let navigate = aggregated;").is_empty());
    }

    #[test]
    fn strings_comments_and_the_sentences_of_tests_pass() {
        let text = "// a gate\n/// The gate of it.\n#[test] fn nobody_passes_the_gate() { let s = \"gate\"; }\n\
                    #[tokio::test(flavor = \"x\")] async fn a_beat_is_heard() {}";
        assert!(found(text).is_empty());
        assert_eq!(found("#[test]\nfn one() {}\nfn gate() {}"), ["3: 'gate' in the name gate"]);
    }

    #[test]
    fn constants_say_of_what_they_are_the_bound() {
        assert_eq!(
            found("const MOST: u8 = 1;\nconst MOST_PARKS: u8 = 1;"),
            ["1: the constant MOST does not say of what it is the bound"]
        );
    }

    #[test]
    fn a_comment_of_one_word_is_none() {
        let text = "enum E {\n    /// Which.\n    A,\n    /// The\n    /// second.\n    B { /** Why. */ c: u8 },\n    /// R-42\n    D,\n    /// `d`\n    E,\n}";
        assert_eq!(
            found(text),
            [
                "2: the comment 'Which.' says nothing that the name does not",
                "6: the comment 'Why.' says nothing that the name does not"
            ]
        );
    }

    #[test]
    fn names_of_files_count() {
        assert_eq!(in_path("a/keeper.rs"), ["a/keeper.rs: 'keeper' in its name"]);
        assert!(in_path("a/interface.rs").is_empty());
    }
}
