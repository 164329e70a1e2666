//! The file of the runtime directory in which control notes which sessions of a relay begin and end in the log, for the
//! control that follows one which was killed.
//!
//! A line is appended by the thread that writes the log, right after it has written what the line is about: a control that
//! is killed has noted what it logged, and nothing else.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use zone_channel::OpenSession;

/// The longest line that is read back.
const MAX_LINE_BYTES: u64 = 8 * 1_024;

/// The file of a generation.
pub(super) fn path(runtime_dir: &Path, generation: u64) -> PathBuf {
    runtime_dir.join(format!("relay-{generation}.sessions"))
}

/// Where that file is before it is whole.
pub(super) fn next(runtime_dir: &Path, generation: u64) -> PathBuf {
    path(runtime_dir, generation).with_extension("sessions.next")
}

/// One line of the file, JSON: lines are appended as sessions begin and end.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Line {
    /// A session begins in the log.
    Begins(OpenSession),
    /// The session with this id has ended there.
    Ended(String),
}

/// The file of one relay.
#[derive(Debug)]
pub(super) struct SessionFile {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    file: Option<File>,
    lines: usize,
    failing: bool,
}

impl SessionFile {
    /// The file of a generation, with the lines that an earlier control has written.
    pub(super) fn read(runtime_dir: &Path, generation: u64) -> (Self, Vec<Line>) {
        let path = path(runtime_dir, generation);
        let mut lines = Vec::new();
        if let Ok(file) = File::open(&path) {
            let (mut file, mut line) = (BufReader::new(file), Vec::new());
            while let Ok(1..) = file.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line) {
                // The last line may be cut.
                lines.extend(serde_json::from_slice::<Line>(&line));
                line.clear();
            }
        }
        let state = State { lines: lines.len(), ..State::default() };
        (Self { path, state: Mutex::new(state) }, lines)
    }

    /// How many lines it has.
    pub(super) fn lines(&self) -> usize {
        self.lock().lines
    }

    /// Appends a line.
    pub(super) fn append(&self, line: &Line) {
        let mut state = self.lock();
        let appended = state.append(&self.path, line);
        self.report(&mut state, &appended);
    }

    /// Puts these lines in the place of all that it has.
    pub(super) fn replace(&self, lines: &[Line]) {
        let mut state = self.lock();
        state.file = None;
        state.lines = lines.len();
        let next = self.path.with_extension("sessions.next");
        let write = || {
            let mut file = File::create(&next)?;
            lines.iter().try_for_each(|line| file.write_all(&bytes(line)?))?;
            std::fs::rename(&next, &self.path)
        };
        let written = write();
        self.report(&mut state, &written);
    }

    /// Says what went wrong, once until it goes well again.
    fn report(&self, state: &mut State, noted: &io::Result<()>) {
        if let (Err(error), false) = (noted, state.failing) {
            let path = self.path.display();
            tracing::warn!(%path, %error, "the open sessions can't be noted for the next control");
        }
        state.failing = noted.is_err();
    }

    /// What it holds is whole at every step, also where a holder panicked.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn append(&mut self, path: &Path, line: &Line) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(OpenOptions::new().create(true).append(true).open(path)?);
        }
        self.lines += 1;
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(&bytes(line)?))
    }
}

fn bytes(line: &Line) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    Ok(bytes)
}
