//! As much of Markdown as the checks ask for: sections, tables, lists, emphasis.

/// The lines of the first section whose headline is this, without its headline and up to the next one of its depth
/// or above.
pub(crate) fn section<'a>(text: &'a str, headline: &str) -> Option<Vec<&'a str>> {
    let depth = |line: &str| line.bytes().take_while(|byte| *byte == b'#').count();
    let mut lines = prose_and_code(text).skip_while(|(line, code)| {
        *code || depth(line) == 0 || line.trim_start_matches('#').trim() != headline
    });
    let (first, _) = lines.next()?;
    let ends = |line: &str, code: bool| !code && (1..=depth(first)).contains(&depth(line));
    Some(lines.take_while(|(line, code)| !ends(line, *code)).map(|(line, _)| line).collect())
}

/// The lines of a text that are no code between fences.
pub(crate) fn prose(text: &str) -> impl Iterator<Item = &str> {
    prose_and_code(text).filter(|(_, code)| !code).map(|(line, _)| line)
}

fn prose_and_code(text: &str) -> impl Iterator<Item = (&str, bool)> {
    let mut code = false;
    text.lines().map(move |line| {
        let fence = line.trim_start().starts_with("```");
        let is_code = code || fence;
        code ^= fence;
        (line, is_code)
    })
}

/// The cells of every row of every table in these lines, rules left out and titles kept.
pub(crate) fn rows<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<Vec<&'a str>> {
    let cells = |line: &'a str| -> Option<Vec<&'a str>> {
        let inner = line.trim().strip_prefix('|')?;
        let inner = inner.strip_suffix('|').unwrap_or(inner);
        Some(inner.split('|').map(str::trim).collect())
    };
    let is_rule = |row: &Vec<&str>| {
        row.iter().all(|cell| !cell.is_empty() && cell.chars().all(|one| matches!(one, '-' | ':')))
    };
    lines.into_iter().filter_map(cells).filter(|row| !is_rule(row)).collect()
}

/// What stands between pairs of this mark: `` ` `` for code, `**` for bold, `*` for emphasis.
pub(crate) fn marked<'a>(text: &'a str, mark: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = cut(rest, mark) {
        let Some((inside, behind)) = cut(after, mark) else { break };
        // What begins or ends with a space is no mark but a star, as in `2 * 3`.
        if inside.is_empty() || inside.starts_with(' ') || inside.ends_with(' ') {
            rest = after;
        } else {
            found.push(inside);
            rest = behind;
        }
    }
    found
}

/// Cuts at the first such mark that is not part of a longer one.
fn cut<'a>(text: &'a str, mark: &str) -> Option<(&'a str, &'a str)> {
    let same = |byte: Option<&u8>| byte == mark.as_bytes().first();
    text.match_indices(mark).find_map(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + mark.len()..]);
        let longer = same(before.as_bytes().last()) || same(after.as_bytes().first());
        (!longer).then_some((before, after))
    })
}

/// A text without what stands between backticks.
pub(crate) fn without_code(text: &str) -> String {
    text.split('`').step_by(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_ends_where_the_next_one_begins_and_holds_its_own_parts() {
        let text = "# T\n## One\na\n### Part\nb\n```sh\n# no headline\n```\n## Two\nc\n";
        let lines = section(text, "One").expect("a section");
        assert_eq!(lines, ["a", "### Part", "b", "```sh", "# no headline", "```"]);
        assert_eq!(section(text, "Two").expect("the last section"), ["c"]);
        assert_eq!(section(text, "no headline"), None);
    }

    #[test]
    fn rows_are_cut_into_cells() {
        let table = ["| a | b |", "|---|:-:|", "| `c/` | d, e |", "no row"];
        assert_eq!(rows(table), [["a", "b"], ["`c/`", "d, e"]]);
    }

    #[test]
    fn marks_are_told_apart() {
        let text = "a **bold** and *slanted* word, `code`, 2 * 3 * 4";
        assert_eq!(marked(text, "**"), ["bold"]);
        assert_eq!(marked(text, "*"), ["slanted"]);
        assert_eq!(marked(text, "`"), ["code"]);
        assert_eq!(without_code("a `b *c*` d").trim_end(), "a   d");
    }
}
