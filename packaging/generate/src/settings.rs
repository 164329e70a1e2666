//! Section 5 of the manual: the configuration files, from the examples that show every key at its default.

/// A configuration file.
pub(crate) struct File {
    /// Its name and its page's.
    pub(crate) name: &'static str,
    /// Where it is on a host.
    path: &'static str,
    /// What it is, after the dash of the page's first line.
    about: &'static str,
    /// The text of the example, which has every key at its default.
    example: &'static str,
    /// The program that reads it.
    see_also: &'static str,
}

/// The configuration files of the packages.
pub(crate) const FILES: &[File] = &[
    File {
        name: "zone-proxy.toml",
        path: "/etc/zone-proxy/zone-proxy.toml",
        about: "what the admin of a Zone Proxy host decides",
        example: include_str!("../../../daemon/control/zone-proxy.example.toml"),
        see_also: "zone-proxy",
    },
    File {
        name: "firewall.toml",
        path: "/etc/zone-proxy/firewall.toml",
        about: "what Zone Proxy may open in the host's firewall",
        example: include_str!("../../../firewall/zone-firewall.example.toml"),
        see_also: "zone-firewall",
    },
    File {
        name: "installer.toml",
        path: "/etc/zone-installer/installer.toml",
        about: "settings of the appliance menu",
        example: include_str!("../../../installer/installer.example.toml"),
        see_also: "zone-installer",
    },
];

/// A piece of an example: words about what follows, or a line of it.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    /// Comment lines that stand together, without their marks.
    Words(String),
    /// `[table]`.
    Table(&'a str),
    /// `key = value`.
    Key(&'a str),
}

/// The page of a file, roff.
pub(crate) fn page(file: &File) -> String {
    let File { name, path, about, example, see_also } = file;
    let mut pieces = pieces(example).into_iter().peekable();
    let mut text =
        format!(".TH {name} 5\n.SH NAME\n{name} \\- {about}\n.SH SYNOPSIS\n.I {path}\n.SH DESCRIPTION\n");
    let mut words = String::new();
    if let Some(Piece::Words(first)) = pieces.next_if(|piece| matches!(piece, Piece::Words(_))) {
        text.extend([&plain(&first), "\n.SH KEYS\n"]);
    }
    for piece in pieces {
        let (request, what) = match piece {
            Piece::Words(next) => {
                words = next;
                continue;
            }
            Piece::Table(table) => (".SS ", table),
            Piece::Key(key) => (".TP\n.B ", key),
        };
        text.extend([request, &plain(what), "\n", &plain(&std::mem::take(&mut words)), "\n"]);
    }
    text.extend([".SH \"SEE ALSO\"\n.BR ", see_also, " (8)\n"]);
    text
}

fn pieces(example: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut together = false;
    for line in example.lines().map(str::trim) {
        let comment = line.strip_prefix('#').map(str::trim);
        match (comment, pieces.last_mut()) {
            (Some(more), Some(Piece::Words(words))) if together => {
                words.push(' ');
                words.push_str(more);
            }
            (Some(first), _) => pieces.push(Piece::Words(first.to_owned())),
            (None, _) if line.starts_with('[') => pieces.push(Piece::Table(line)),
            (None, _) if line.is_empty() => {}
            (None, _) => pieces.push(Piece::Key(line)),
        }
        together = comment.is_some();
    }
    pieces
}

/// Text as roff takes it: no line begins with a control character, and dashes and backslashes are themselves.
fn plain(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_belong_to_the_key_below_them() {
        let text = "# About.\n\n# One\n# two.\n[table]\n# Of a key.\nkey = [1]\n";
        let expected = [
            Piece::Words("About.".to_owned()),
            Piece::Words("One two.".to_owned()),
            Piece::Table("[table]"),
            Piece::Words("Of a key.".to_owned()),
            Piece::Key("key = [1]"),
        ];
        assert_eq!(pieces(text), expected);
    }

    #[test]
    fn every_key_of_every_example_is_on_its_page() {
        for file in FILES {
            let page = page(file);
            let keys = file.example.lines().filter(|line| !line.starts_with('#') && line.contains(" = "));
            for key in keys {
                assert!(page.contains(&format!(".B {}\n", plain(key.trim()))), "{}: {key}", file.name);
            }
        }
    }

    #[test]
    fn roff_reads_no_command_in_it() {
        assert_eq!(plain(".so /etc/passwd"), "\\&.so /etc/passwd");
        assert_eq!(plain("a-b\\n"), "a\\-b\\en");
    }
}
