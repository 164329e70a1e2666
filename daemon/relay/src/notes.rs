//! What becomes of sessions while no control takes records in, written down for the next one: see [`Note`].
//!
//! A record that was sent may never have been read, where control was killed. So the last ones that were sent are kept, and
//! noted when the channel is gone; the next control knows by its own notes which of them it has.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};

use zone_channel::Note;
use zone_channel::note::session;
use zone_log::{Level, Record};

/// Bytes of notes that wait for a control, some ten thousand sessions. What is beyond is in the log, and not noted.
const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Records about sessions that are kept after they were sent: more than wait in the socket of a control that reads nothing.
const MAX_SENT: usize = 1_024;

/// The notes of one relay. Without a file nothing is noted.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    file: Option<File>,
    sent: Sent,
    /// Whether it was said that no more can be noted.
    failing: bool,
}

impl Notes {
    /// Notes are appended to this file from now on.
    pub(crate) fn write_to(&mut self, file: File) {
        self.file = Some(file);
    }

    /// A control takes records in, and the notes too: it empties the file.
    pub(crate) fn begin_anew(&mut self) {
        self.note_sent();
        self.failing = false;
    }

    /// A record was sent to control.
    pub(crate) fn sent(&mut self, record: Record) {
        if self.file.is_none() || session(&record).is_none() {
            return;
        }
        // A note of what can't be written as JSON could not be appended either.
        if let Ok(line) = line(&Note::Sent(record)) {
            self.sent.push(&line);
        }
    }

    /// Nobody may have read what was sent last.
    pub(crate) fn note_sent(&mut self) {
        while let Some(line) = self.sent.pop() {
            // That there is no more room is said where something is lost by it.
            let _ = self.append(&line);
        }
    }

    /// A record is about to be written to standard error. Returns what is to be said, once, if it can't be noted.
    pub(crate) fn written(&mut self, record: &Record) -> Option<Record> {
        self.file.as_ref()?;
        let note = Note::written(record)?;
        // What was sent comes before, as it does in the log.
        self.note_sent();
        let error = line(&note).and_then(|line| self.append(&line)).err()?;
        if std::mem::replace(&mut self.failing, true) {
            return None;
        }
        let words =
            "sessions that begin or end without control can't be noted: the audit log may lack their ends";
        Some(Record::new(Level::Warn, env!("CARGO_CRATE_NAME"), words).with("error", error))
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let taken = u64::try_from(rustix::fs::fstat(&*file)?.st_size).unwrap_or_default();
        if taken + line.len() as u64 > MAX_BYTES {
            return Err(io::Error::other(format!("there are {MAX_BYTES} bytes of them")));
        }
        file.write_all(line)
    }
}

/// The last notes of what was sent, as lines, [`MAX_SENT`] at most: in one piece of memory, because they stay for long. As
/// records they would be some ten thousand small pieces, each of which keeps a page from going back to the system.
#[derive(Debug, Default)]
struct Sent {
    bytes: VecDeque<u8>,
    lengths: VecDeque<usize>,
}

impl Sent {
    fn push(&mut self, line: &[u8]) {
        if self.lengths.len() >= MAX_SENT {
            self.pop();
        }
        self.bytes.extend(line);
        self.lengths.push_back(line.len());
    }

    /// The oldest.
    fn pop(&mut self) -> Option<Vec<u8>> {
        self.lengths.pop_front().map(|length| self.bytes.drain(..length).collect())
    }
}

fn line(note: &Note) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(note)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use zone_log::AUDIT;

    use super::*;

    struct Scene {
        notes: Notes,
        path: PathBuf,
        _directory: tempfile::TempDir,
    }

    fn scene() -> Scene {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes");
        let mut notes = Notes::default();
        notes.write_to(File::options().create(true).append(true).open(&path).unwrap());
        Scene { notes, path, _directory: directory }
    }

    impl Scene {
        fn noted(&self) -> Vec<String> {
            let of = |line: &str| match serde_json::from_str(line).unwrap() {
                Note::Begins(session) => format!("{} begins", session.id),
                Note::Ended(id) => format!("{id} ended"),
                Note::Sent(record) => format!("{} sent", session(&record).unwrap()),
            };
            fs::read_to_string(&self.path).unwrap().lines().map(of).collect()
        }
    }

    fn about(words: &str, id: &str) -> Record {
        Record::new(Level::Info, AUDIT, words).with("session", id)
    }

    #[test]
    fn what_was_sent_last_is_noted_once_the_channel_is_gone_and_before_what_comes_then() {
        let mut scene = scene();
        scene.notes.sent(about("session begins", "a"));
        scene.notes.sent(Record::new(Level::Info, "zone_relay", "something else"));
        assert!(scene.noted().is_empty());
        assert_eq!(scene.notes.written(&about("session ended", "a")), None);
        assert_eq!(scene.notes.written(&about("session begins", "b")), None);
        scene.notes.note_sent();
        assert_eq!(scene.noted(), ["a sent", "a ended", "b begins"]);
    }

    #[test]
    fn notes_and_what_is_kept_for_them_are_bounded_and_a_loss_is_said_once() {
        let mut scene = scene();
        for number in 0..3 * MAX_SENT {
            scene.notes.sent(about("session begins", &number.to_string()));
        }
        scene.notes.note_sent();
        let noted = scene.noted();
        assert_eq!((noted.len(), noted[0].as_str()), (MAX_SENT, "2048 sent"), "the last ones");
        let id = "x".repeat(1_000);
        let said = (0..10_000).filter_map(|_| scene.notes.written(&about("session ended", &id))).count();
        assert_eq!(said, 1);
        assert!(fs::metadata(&scene.path).unwrap().len() <= MAX_BYTES);
        fs::write(&scene.path, "").unwrap();
        scene.notes.begin_anew();
        assert!(scene.notes.written(&about("session ended", "y")).is_none());
        assert_eq!(scene.noted().last().unwrap(), "y ended", "there is room again");
    }
}
