//! The sessions that a relay has said are open, so that each one that begins in the audit log also ends there: when its
//! relay is killed, control writes the end.
//!
//! They stand in a file of the runtime directory too, for the control that follows one which was killed. What began and ended
//! meanwhile, the relay is asked for.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zone_channel::OpenSession;

use crate::log::AUDIT;

/// Lines of the file above those of open sessions before it is written anew.
const MAX_STALE_LINES: usize = 4_096;
/// The longest line of the file that is read back.
const MAX_LINE_BYTES: usize = 1_024;
/// The longest id, target or caller that is kept; what is longer is no session of ours.
const MAX_TEXT_BYTES: usize = 256;
/// The reason of an end that the relay did not live to write.
const RELAY_LOST: &str = "relay_lost";

/// The file of a generation.
pub(super) fn path(runtime_dir: &Path, generation: u64) -> PathBuf {
    runtime_dir.join(format!("relay-{generation}.sessions"))
}

/// Where that file is before it is whole.
pub(super) fn next(runtime_dir: &Path, generation: u64) -> PathBuf {
    path(runtime_dir, generation).with_extension("sessions.next")
}

/// What became of a line about a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// It was begun in the log.
    Logged,
    /// Its beginning was dropped, so its end is too.
    Dropped,
    /// It is not known here: it began while no control took records in.
    Unknown,
}

/// The open sessions of one relay.
#[derive(Debug)]
pub(super) struct Sessions {
    path: PathBuf,
    inner: RefCell<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By id.
    open: HashMap<String, Open>,
    file: Option<File>,
    lines: usize,
    failing: bool,
}

/// What is known of an open session.
#[derive(Debug, PartialEq, Eq)]
enum Open {
    /// It begins in the log.
    Logged(OpenSession),
    /// The relay has listed it. Its beginning went to the relay's standard error, or is on its way.
    Listed(OpenSession),
    /// Its beginning was dropped.
    Dropped,
}

impl Open {
    fn session(&self) -> Option<&OpenSession> {
        match self {
            Self::Logged(session) | Self::Listed(session) => Some(session),
            Self::Dropped => None,
        }
    }
}

#[derive(Serialize, Deserialize)]
enum Line {
    Begins(OpenSession),
    Ended(String),
}

impl Sessions {
    /// Those of a generation, with what an earlier control has noted of it.
    pub(super) fn of(runtime_dir: &Path, generation: u64) -> Self {
        let path = path(runtime_dir, generation);
        let mut inner = Inner::default();
        if let Ok(file) = File::open(&path) {
            inner.read(BufReader::new(file));
        }
        Self { path, inner: RefCell::new(inner) }
    }

    /// A session begins. `None` where it can't be one, or `limit` are open already: then it is not to be logged.
    pub(super) fn begins(&self, session: OpenSession, limit: usize) -> Option<()> {
        let mut inner = self.inner.borrow_mut();
        if let Some(Open::Listed(_)) = inner.open.get(&session.id) {
            inner.open.insert(session.id.clone(), Open::Logged(session));
            return Some(());
        }
        if !fits(&session) || inner.open.len() >= limit || inner.open.contains_key(&session.id) {
            return None;
        }
        inner.open.insert(session.id.clone(), Open::Logged(session.clone()));
        inner.note(&self.path, &Line::Begins(session));
        Some(())
    }

    /// The relay says which ones are open: what ended, or began, while no control took its records in.
    pub(super) fn reconcile(&self, listed: Vec<OpenSession>, limit: usize) {
        let mut inner = self.inner.borrow_mut();
        let mut known = std::mem::take(&mut inner.open);
        for session in listed.into_iter().filter(fits).take(limit) {
            let id = session.id.clone();
            let open = known.remove(&id).unwrap_or(Open::Listed(session));
            inner.open.insert(id, open);
        }
        inner.rewrite(&self.path);
    }

    /// The beginning of a session was dropped: its end is to be too.
    pub(super) fn begins_unlogged(&self, id: String, limit: usize) {
        let mut inner = self.inner.borrow_mut();
        if id.len() <= MAX_TEXT_BYTES && inner.open.len() < limit {
            inner.open.entry(id).or_insert(Open::Dropped);
        }
    }

    /// A session has ended.
    pub(super) fn ended(&self, id: &str) -> Known {
        let mut inner = self.inner.borrow_mut();
        match inner.open.remove(id) {
            Some(Open::Logged(_) | Open::Listed(_)) => {
                inner.note(&self.path, &Line::Ended(id.to_owned()));
                Known::Logged
            }
            Some(Open::Dropped) => Known::Dropped,
            None => Known::Unknown,
        }
    }

    /// The relay is gone: the end of each one that is still open is logged.
    pub(super) fn lost(&self) {
        let open = std::mem::take(&mut self.inner.borrow_mut().open);
        let mut lost: Vec<_> = open.values().filter_map(Open::session).collect();
        lost.sort_by(|one, other| one.id.cmp(&other.id));
        for OpenSession { id, target, caller } in lost {
            tracing::info!(target: AUDIT, session = id, target = target, caller, reason = RELAY_LOST, "session ended");
        }
    }
}

impl Inner {
    fn read(&mut self, mut file: impl BufRead) {
        let mut line = Vec::new();
        while let Ok(1..) = io::Read::take(&mut file, MAX_LINE_BYTES as u64 * 8).read_until(b'\n', &mut line)
        {
            self.lines += 1;
            // The last line may be cut.
            match serde_json::from_slice(&line) {
                Ok(Line::Begins(session)) => {
                    self.open.insert(session.id.clone(), Open::Logged(session));
                }
                Ok(Line::Ended(id)) => {
                    self.open.remove(&id);
                }
                Err(_) => {}
            }
            line.clear();
        }
    }

    /// Appends a line, and writes the file anew where most of it is of the past.
    fn note(&mut self, path: &Path, line: &Line) {
        if self.lines > 2 * self.open.len() + MAX_STALE_LINES {
            self.rewrite(path);
            return;
        }
        let noted = self.append(path, line);
        self.report(path, &noted);
    }

    fn append(&mut self, path: &Path, line: &Line) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(OpenOptions::new().create(true).append(true).open(path)?);
        }
        self.lines += 1;
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(&bytes(line)?))
    }

    /// Writes the file anew, with what is open.
    fn rewrite(&mut self, path: &Path) {
        self.file = None;
        let lines: Vec<_> = self.open.values().filter_map(Open::session).cloned().map(Line::Begins).collect();
        self.lines = lines.len();
        let next = path.with_extension("sessions.next");
        let write = || {
            let mut file = File::create(&next)?;
            lines.iter().try_for_each(|line| file.write_all(&bytes(line)?))?;
            std::fs::rename(&next, path)
        };
        let written = write();
        self.report(path, &written);
    }

    /// Says what went wrong, once until it goes well again.
    fn report(&mut self, path: &Path, noted: &io::Result<()>) {
        if let (Err(error), false) = (noted, self.failing) {
            tracing::warn!(path = %path.display(), %error, "the open sessions can't be noted for the next control");
        }
        self.failing = noted.is_err();
    }
}

fn fits(session: &OpenSession) -> bool {
    [&session.id, &session.target, &session.caller].iter().all(|text| text.len() <= MAX_TEXT_BYTES)
}

fn bytes(line: &Line) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 3;

    fn session(id: &str) -> OpenSession {
        OpenSession { id: id.to_owned(), target: "host-7:ssh".to_owned(), caller: "module-1".to_owned() }
    }

    fn open(sessions: &Sessions) -> Vec<String> {
        let mut open: Vec<_> = sessions.inner.borrow().open.keys().cloned().collect();
        open.sort();
        open
    }

    #[test]
    fn the_next_control_knows_the_sessions_that_were_open() {
        let directory = tempfile::tempdir().unwrap();
        let sessions = Sessions::of(directory.path(), 7);
        for id in ["a", "b", "c"] {
            sessions.begins(session(id), LIMIT).unwrap();
        }
        assert_eq!(sessions.ended("b"), Known::Logged);
        std::fs::OpenOptions::new().append(true).open(&sessions.path).unwrap().write_all(b"{\"Beg").unwrap();
        drop(sessions);
        let sessions = Sessions::of(directory.path(), 7);
        assert_eq!(open(&sessions), ["a", "c"]);
        assert_eq!(sessions.ended("b"), Known::Unknown);
        assert_eq!(sessions.ended("a"), Known::Logged);
        sessions.lost();
        assert!(open(&sessions).is_empty());
    }

    #[test]
    fn what_the_relay_lists_is_open_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let sessions = Sessions::of(directory.path(), 7);
        for id in ["ended meanwhile", "goes on"] {
            sessions.begins(session(id), LIMIT).unwrap();
        }
        sessions
            .reconcile(["goes on", "began meanwhile", "on its way", "too many"].map(session).into(), LIMIT);
        assert_eq!(open(&sessions), ["began meanwhile", "goes on", "on its way"]);
        assert_eq!(open(&Sessions::of(directory.path(), 7)), open(&sessions));
        let on_its_way = || sessions.begins(session("on its way"), LIMIT);
        assert_eq!((on_its_way(), on_its_way()), (Some(()), None), "it is logged once");
        assert_eq!(sessions.ended("began meanwhile"), Known::Logged);
        assert_eq!(sessions.ended("ended meanwhile"), Known::Unknown);
    }

    #[test]
    fn no_more_are_kept_than_there_can_be() {
        let directory = tempfile::tempdir().unwrap();
        let sessions = Sessions::of(directory.path(), 7);
        let began: Vec<_> = ["a", "b", "b", "c", "d"].map(|id| sessions.begins(session(id), LIMIT)).into();
        assert_eq!(began, [Some(()), Some(()), None, Some(()), None], "not twice, and not beyond the limit");
        sessions.ended("a");
        assert!(sessions.begins(session(&"x".repeat(MAX_TEXT_BYTES + 1)), LIMIT).is_none());
        sessions.begins_unlogged("e".to_owned(), LIMIT);
        assert_eq!(sessions.ended("e"), Known::Dropped);
    }

    #[test]
    fn the_file_does_not_grow_with_the_sessions_of_the_past() {
        let directory = tempfile::tempdir().unwrap();
        let sessions = Sessions::of(directory.path(), 7);
        sessions.begins(session("stays"), LIMIT).unwrap();
        for number in 0..20_000 {
            let id = number.to_string();
            sessions.begins(session(&id), LIMIT).unwrap();
            sessions.ended(&id);
        }
        let bytes = std::fs::metadata(&sessions.path).unwrap().len();
        assert!(bytes < 1024 * 1024, "{bytes}");
        assert_eq!(open(&Sessions::of(directory.path(), 7)), ["stays"]);
    }
}
