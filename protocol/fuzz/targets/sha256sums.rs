//! The index of packages that the installer reads as root: a file that is taken has a plain name that stands in the index
//! beside its sum, and a line that is no line of sha256sum(1) is named by its number.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use zone_installer::packages::parse_index;

fuzz_target!(|data: &[u8]| {
    let lines = data.split(|byte| *byte == b'\n').count();
    match parse_index(data) {
        Ok(entries) => {
            assert!(entries.len() <= lines, "more packages than lines");
            let text = std::str::from_utf8(data).expect("an index is text");
            for entry in entries {
                let path = Path::new(&entry.file);
                assert_eq!(
                    path.file_name().and_then(|name| name.to_str()),
                    Some(&*entry.file),
                    "a folder in it"
                );
                // A name that begins with a hyphen is harmless: files are named to tools by their whole paths.
                assert!(!entry.file.starts_with('.'), "{}", entry.file);
                let sum: String = entry.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
                let listed = |line: &str| {
                    line.to_ascii_lowercase().starts_with(&sum)
                        && line.trim_end_matches('\r').ends_with(&entry.file)
                };
                assert!(text.lines().any(listed), "{} is not listed with its sum", entry.file);
            }
        }
        Err(line) => assert!((1..=lines).contains(&line), "line {line} of {lines}"),
    }
});
