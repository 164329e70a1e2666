//! The sessions that a relay has said are open, so that each one that begins in the audit log also ends there: when its
//! relay is killed, control writes the end.
//!
//! They stand in a file of the runtime directory too, for the control that follows one which was killed. What began and ended
//! meanwhile, the relay has noted, and is asked for.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use zone_channel::OpenSession;

use super::session_file::{Line, SessionFile};
use crate::log::AUDIT;

/// Lines of the file above those of open sessions before it is written anew.
const MAX_STALE_LINES: usize = 4_096;
/// Ended sessions that are remembered, by which a record that comes twice is known: more than a relay keeps of those that it
/// sent.
const MAX_ENDED: usize = 2_048;
/// The longest id, target or caller that is kept; what is longer is no session of ours.
const MAX_TEXT_BYTES: usize = 256;
/// The reason of an end that the relay did not live to write.
const RELAY_LOST: &str = "relay_lost";

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
    file: Arc<SessionFile>,
    inner: RefCell<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By id.
    open: HashMap<String, Open>,
    /// The ids of those that ended last, the oldest first.
    ended: VecDeque<String>,
    /// The same, to look them up.
    ended_ids: HashSet<String>,
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

impl Sessions {
    /// Those of a generation, with what an earlier control has noted of it.
    pub(super) fn of(runtime_dir: &Path, generation: u64) -> Self {
        let (file, lines) = SessionFile::read(runtime_dir, generation);
        let mut inner = Inner::default();
        for line in lines {
            match line {
                Line::Begins(session) => drop(inner.open.insert(session.id.clone(), Open::Logged(session))),
                Line::Ended(id) => inner.end(id),
            }
        }
        Self { file: Arc::new(file), inner: RefCell::new(inner) }
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
        inner.open.insert(session.id.clone(), Open::Logged(session));
        Some(())
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
            Some(Open::Dropped) => Known::Dropped,
            open => {
                if id.len() <= MAX_TEXT_BYTES {
                    inner.end(id.to_owned());
                }
                open.map_or(Known::Unknown, |_| Known::Logged)
            }
        }
    }

    /// That a session begins, or has ended, is on its way into the log: it is noted once it is there.
    pub(super) fn note_when_logged(&self, id: &str) {
        let Some(line) = self.line(id) else { return };
        self.keep_short();
        let file = Arc::clone(&self.file);
        zone_log::when_written(move || file.append(&line));
    }

    /// A session begins in the log, where the relay itself has written it.
    pub(super) fn begins_elsewhere(&self, session: OpenSession, limit: usize) {
        let id = session.id.clone();
        if !self.has_logged(&id, true) && self.begins(session, limit).is_some() {
            self.note(&id);
        }
    }

    /// A session has ended in the log, where the relay itself has written it.
    pub(super) fn ended_elsewhere(&self, id: &str) {
        if !self.has_logged(id, false) && self.ended(id) != Known::Dropped {
            self.note(id);
        }
    }

    /// Whether a session begins, or has ended, in the log already, as far as that is remembered.
    pub(super) fn has_logged(&self, id: &str, begins: bool) -> bool {
        let inner = self.inner.borrow();
        match inner.open.get(id) {
            Some(Open::Logged(_) | Open::Dropped) => begins,
            Some(Open::Listed(_)) => false,
            None => inner.ended_ids.contains(id),
        }
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
        self.file.replace(&inner.lines());
    }

    /// The relay is gone: the end of each one that is still open is logged.
    pub(super) fn lost(&self) {
        let open = std::mem::take(&mut self.inner.borrow_mut().open);
        // Each is noted once it is written, for this control may be killed meanwhile.
        let mut lost: Vec<_> = open.values().filter_map(Open::session).collect();
        lost.sort_by(|one, other| one.id.cmp(&other.id));
        for OpenSession { id, target, caller } in lost {
            tracing::info!(target: AUDIT, session = id, target = target, caller, reason = RELAY_LOST, "session ended");
            self.inner.borrow_mut().end(id.clone());
            self.note_when_logged(id);
        }
    }

    fn note(&self, id: &str) {
        let Some(line) = self.line(id) else { return };
        self.keep_short();
        self.file.append(&line);
    }

    /// What is to be noted of a session now.
    fn line(&self, id: &str) -> Option<Line> {
        match self.inner.borrow().open.get(id) {
            Some(open) => open.session().cloned().map(Line::Begins),
            None => (id.len() <= MAX_TEXT_BYTES).then(|| Line::Ended(id.to_owned())),
        }
    }

    /// Writes the file anew where most of it is of the past.
    fn keep_short(&self) {
        let inner = self.inner.borrow();
        if self.file.lines() > 2 * inner.open.len() + MAX_STALE_LINES {
            self.file.replace(&inner.lines());
        }
    }
}

impl Inner {
    fn end(&mut self, id: String) {
        self.open.remove(&id);
        if !self.ended_ids.insert(id.clone()) {
            return;
        }
        self.ended.push_back(id);
        if self.ended.len() > MAX_ENDED
            && let Some(oldest) = self.ended.pop_front()
        {
            self.ended_ids.remove(&oldest);
        }
    }

    /// What is open, and what ended last.
    fn lines(&self) -> Vec<Line> {
        let ended = self.ended.iter().cloned().map(Line::Ended);
        let open = self.open.values().filter_map(Open::session).cloned().map(Line::Begins);
        ended.chain(open).collect()
    }
}

fn fits(session: &OpenSession) -> bool {
    [&session.id, &session.target, &session.caller].iter().all(|text| text.len() <= MAX_TEXT_BYTES)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::path::PathBuf;

    use super::super::session_file;
    use super::*;

    const LIMIT: usize = 3;

    fn file(directory: &tempfile::TempDir) -> PathBuf {
        session_file::path(directory.path(), 7)
    }

    fn begins(sessions: &Sessions, id: &str) -> Option<()> {
        sessions.begins(session(id), LIMIT)?;
        sessions.note(id);
        Some(())
    }

    fn ended(sessions: &Sessions, id: &str) -> Known {
        let known = sessions.ended(id);
        sessions.note(id);
        known
    }

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
            begins(&sessions, id).unwrap();
        }
        assert_eq!(ended(&sessions, "b"), Known::Logged);
        std::fs::OpenOptions::new()
            .append(true)
            .open(file(&directory))
            .unwrap()
            .write_all(b"{\"Beg")
            .unwrap();
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
            begins(&sessions, id).unwrap();
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
    fn the_next_control_knows_what_is_in_the_log_already() {
        let directory = tempfile::tempdir().unwrap();
        let sessions = Sessions::of(directory.path(), 7);
        for id in ["open", "over"] {
            begins(&sessions, id).unwrap();
        }
        for id in ["over", "began before"] {
            ended(&sessions, id);
        }
        sessions.begins_elsewhere(session("by itself"), LIMIT);
        drop(sessions);
        let sessions = Sessions::of(directory.path(), 7);
        let logged = |id| (sessions.has_logged(id, true), sessions.has_logged(id, false));
        assert_eq!(
            ["open", "by itself", "over", "began before", "new"].map(logged),
            [(true, false), (true, false), (true, true), (true, true), (false, false)]
        );
        sessions.ended_elsewhere("by itself");
        sessions.begins_elsewhere(session("by itself"), LIMIT);
        assert_eq!(open(&sessions), ["open"], "what has ended does not begin again");
        sessions.reconcile(Vec::new(), LIMIT);
        assert!(
            Sessions::of(directory.path(), 7).has_logged("over", false),
            "also once the file is written anew"
        );
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
        begins(&sessions, "stays").unwrap();
        for number in 0..20_000 {
            let id = number.to_string();
            begins(&sessions, &id).unwrap();
            ended(&sessions, &id);
        }
        let bytes = std::fs::metadata(file(&directory)).unwrap().len();
        assert!(bytes < 1024 * 1024, "{bytes}");
        assert_eq!(open(&Sessions::of(directory.path(), 7)), ["stays"]);
    }
}
