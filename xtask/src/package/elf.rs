//! What a program asks of the C library.

use std::path::Path;
use std::process::Command;

use crate::children;
use crate::report::Result;

/// The newest version of glibc that a program asks for, such as `2.28`.
pub(crate) fn newest_glibc(program: &Path) -> Result<String> {
    let symbols = children::output(Command::new("objdump").arg("-T").arg(program))?;
    newest(&symbols)
        .ok_or_else(|| format!("{} asks for no glibc: is it linked dynamically?", program.display()).into())
}

/// Whether one version is newer than another.
pub(crate) fn is_newer(version: &str, than: &str) -> bool {
    numbers(version) > numbers(than)
}

fn newest(symbols: &str) -> Option<String> {
    let versions = symbols.split("GLIBC_").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        &rest[..end]
    });
    versions.max_by_key(|version| numbers(version)).map(str::to_owned)
}

fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map(|part| part.parse().unwrap_or(u32::MAX)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers_and_not_words() {
        let symbols = "0000 DF *UND* 0000 (GLIBC_2.9) read\n0000 DF *UND* 0000 (GLIBC_2.28) fcntl64\n\
                       0000 DF *UND* 0000 (GLIBC_2.2.5) write\n";
        assert_eq!(newest(symbols).as_deref(), Some("2.28"));
        assert!(is_newer("2.34", "2.28") && !is_newer("2.9", "2.28") && !is_newer("2.28", "2.28"));
        assert!(is_newer("PRIVATE", "2.28"), "what is no number is not promised anywhere");
    }
}
