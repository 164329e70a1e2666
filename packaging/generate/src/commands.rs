//! Section 8 of the manual: one page for a program, and one for each of its commands.

use clap::Command;
use clap_mangen::Man;

/// What a page says that is not in a command's definition.
struct Supplement {
    program: &'static str,
    /// Paths, each with what it holds.
    files: &'static [(&'static str, &'static str)],
    /// Other pages, roff.
    see_also: &'static str,
}

const SUPPLEMENTS: [Supplement; 3] = [
    Supplement {
        program: "zone-proxy",
        files: &[
            ("/etc/zone-proxy/zone-proxy.toml", "What the admin of the host decides."),
            ("/var/lib/zone-proxy", "Keys, certificates, trust and token."),
            ("/run/zone-proxy", "Sockets between the processes and for these commands."),
        ],
        see_also: ".BR zone-proxy.toml (5),\n.BR zone-relay (8),\n.BR zone-firewall (8)",
    },
    Supplement {
        program: "zone-firewall",
        files: &[
            ("/etc/zone-proxy/firewall.toml", "What may be opened at all, and for whom 17488 is open."),
            ("/var/lib/zone-firewall/relay-ports.json", "The relay ports that were granted."),
            ("/run/zone-firewall.sock", "Where the broker is asked."),
        ],
        see_also: ".BR firewall.toml (5),\n.BR zone-proxy (8),\n.BR nft (8)",
    },
    Supplement {
        program: "zone-installer",
        files: &[
            ("/etc/zone-installer/installer.toml", "Settings."),
            ("/etc/zone-installer/trusted-keys/*.pub", "Keys that packages may be signed with."),
            (
                "/var/lib/zone-installer/packages",
                "Where packages, SHA256SUMS and SHA256SUMS.minisig are dropped.",
            ),
        ],
        see_also: ".BR installer.toml (5),\n.BR zone-proxy (8),\n.BR minisign (1)",
    },
];

/// A page of the manual.
pub(crate) struct Page {
    /// Its file name.
    pub(crate) file: String,
    /// Its text, roff.
    pub(crate) text: Vec<u8>,
}

/// The pages of a program and of all commands that are not hidden.
pub(crate) fn pages(program: Command) -> Vec<Page> {
    let name = program.get_name().to_owned();
    let version = program.get_version().unwrap_or_default().to_owned();
    let mut program = program.disable_help_subcommand(true);
    program.build();
    let mut pages = Vec::new();
    add_pages(&program, &name, &version, &mut pages);
    pages
}

fn add_pages(command: &Command, program: &str, version: &str, pages: &mut Vec<Page>) {
    let page = Man::new(command.clone()).section("8").source(format!("{program} {version}"));
    let file = page.get_filename();
    let mut text = Vec::new();
    // Writing to memory does not fail.
    let _ = page.render(&mut text);
    text.extend_from_slice(supplement(command, program).as_bytes());
    pages.push(Page { file, text: with_section_8(&text) });
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        add_pages(inner, program, version, pages);
    }
}

/// clap_mangen refers to the pages of commands as section 1.
fn with_section_8(text: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(text)
        .replace("(1)\n", "(8)\n")
        .replace(".BR minisign (8)", ".BR minisign (1)")
        .into_bytes()
}

/// The sections that [`SUPPLEMENTS`] adds to a page, roff.
fn supplement(command: &Command, program: &str) -> String {
    let Some(supplement) = SUPPLEMENTS.iter().find(|one| one.program == program) else {
        return String::new();
    };
    if command.get_name() != program {
        return format!(".SH \"SEE ALSO\"\n.BR {program} (8)\n");
    }
    let files = supplement
        .files
        .iter()
        .fold(String::from(".SH FILES\n"), |text, (path, what)| text + &format!(".TP\n.I {path}\n{what}\n"));
    format!("{files}.SH \"SEE ALSO\"\n{}\n", supplement.see_also)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shown_command_has_a_page_and_hidden_ones_have_none() {
        let program = Command::new("zone-proxy")
            .version("1.2.3")
            .subcommand(Command::new("show").subcommand(Command::new("payload")))
            .subcommand(Command::new("secret").hide(true));
        let pages = pages(program);
        let files: Vec<_> = pages.iter().map(|page| page.file.as_str()).collect();
        assert_eq!(files, ["zone-proxy.8", "zone-proxy-show.8", "zone-proxy-show-payload.8"]);
        let text = String::from_utf8_lossy(&pages[0].text);
        assert!(text.contains("zone\\-proxy\\-show(8)"), "{text}");
        assert!(text.contains(".SH FILES\n.TP\n.I /etc/zone-proxy/zone-proxy.toml"), "{text}");
    }
}
