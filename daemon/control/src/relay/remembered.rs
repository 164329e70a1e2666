//! What control notes of each relay in the runtime directory, so that the next control knows its process whether or not
//! it answers: a file of a few bytes beside its rendezvous.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::process::ProcessFacts;
use super::{notes, rendezvous, session_file};

fn path(runtime_dir: &Path, generation: u64) -> PathBuf {
    runtime_dir.join(format!("relay-{generation}.json"))
}

/// Where a note is before it is whole.
fn next(runtime_dir: &Path, generation: u64) -> PathBuf {
    runtime_dir.join(format!("relay-{generation}.json.next"))
}

/// Notes the process of a generation.
pub(super) fn note(runtime_dir: &Path, generation: u64, facts: ProcessFacts) -> io::Result<()> {
    let (path, next) = (path(runtime_dir, generation), next(runtime_dir, generation));
    fs::write(&next, serde_json::to_string(&facts)?)?;
    fs::rename(next, path)
}

/// The process that was noted for a generation.
pub(super) fn read(runtime_dir: &Path, generation: u64) -> Option<ProcessFacts> {
    serde_json::from_slice(&fs::read(path(runtime_dir, generation)).ok()?).ok()
}

/// Removes everything of a generation whose relay is gone, once all that was logged so far is written: what of it is not, the
/// next control has to log. What can't be removed is found again at the next start.
pub(super) fn forget_when_logged(runtime_dir: &Path, generation: u64) {
    let runtime_dir = runtime_dir.to_owned();
    zone_log::when_written(move || forget(&runtime_dir, generation));
}

/// Removes it now.
fn forget(runtime_dir: &Path, generation: u64) {
    for path in [
        rendezvous::path(runtime_dir, generation),
        path(runtime_dir, generation),
        next(runtime_dir, generation),
        session_file::path(runtime_dir, generation),
        session_file::next(runtime_dir, generation),
        notes::path(runtime_dir, generation),
    ] {
        let _ = fs::remove_file(path);
    }
}

/// Every generation that left something in the runtime directory, the newest first.
pub(super) fn all_below(runtime_dir: &Path) -> Vec<u64> {
    let entries = fs::read_dir(runtime_dir).into_iter().flatten().filter_map(Result::ok);
    let generations: BTreeSet<u64> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let (generation, kind) = name.to_str()?.strip_prefix("relay-")?.split_once('.')?;
            ["sock", "json", "json.next", "sessions", "sessions.next", "notes"]
                .contains(&kind)
                .then(|| generation.parse().ok())?
        })
        .collect();
    generations.into_iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_found_by_anything_that_it_left_and_forgotten_whole() {
        let directory = tempfile::tempdir().unwrap();
        let facts = ProcessFacts { pid: 42, uid: 7, started: Some(99) };
        note(directory.path(), 3, facts).unwrap();
        drop(rendezvous::bind(directory.path(), 12).unwrap());
        fs::write(directory.path().join("relay-8.json.next"), "{").unwrap();
        for other in ["admin.sock", "relay.sock", "relay-end.sock", "relay-x.sock", "relay-7.txt"] {
            fs::write(directory.path().join(other), "").unwrap();
        }
        assert_eq!(all_below(directory.path()), [12, 8, 3]);
        assert_eq!(read(directory.path(), 3), Some(facts));
        assert_eq!(read(directory.path(), 12), None);
        forget(directory.path(), 3);
        forget(directory.path(), 8);
        forget(directory.path(), 12);
        assert!(all_below(directory.path()).is_empty());
    }
}
