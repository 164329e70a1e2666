//! The state directory: one directory for each state, and one symbolic link that says which is in force.
//!
//! ```text
//! current -> states/000007      the one switch
//! states/000007/                see `files`
//! clock                         the highest wall clock ever stored
//! lock                          held by the daemon; its process id
//! ```
//!
//! All of it happens synchronously on the calling thread, so that whoever kills the process at one system call
//! or another finds the old state or the new one.

use std::cell::Cell;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{State, StateError, files};

const CURRENT: &str = "current";
const NEXT: &str = "current.next";
const BACK: &str = "current.back";
const STATES: &str = "states";
const CLOCK: &str = "clock";
const LOCK: &str = "lock";
/// The permissions of anybody but the owner.
const OTHERS: u32 = 0o077;

/// The state directory, locked for this process.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    number: Cell<u32>,
    _lock: File,
}

impl Store {
    /// Creates the directory where it is missing, and locks it.
    pub fn open(directory: &Path) -> Result<Self, StateError> {
        let states = directory.join(STATES);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&states)
            .map_err(StateError::at("create", &states))?;
        for path in [directory, &states] {
            make_private(path)?;
        }
        let lock = lock(directory)?;
        let number = numbers(&states).max().unwrap_or_default();
        Ok(Self { directory: directory.to_owned(), number: number.into(), _lock: lock })
    }

    /// The state in force, or `None` before the first one was written. What a killed process left behind is
    /// removed.
    pub fn load(&self) -> Result<Option<State>, StateError> {
        let Some(current) = self.current()? else { return Ok(None) };
        let state = files::read(&self.directory.join(&current))?;
        self.tidy(&current);
        Ok(Some(state))
    }

    /// Writes a state and puts it in force. It stays undoable until the answer is committed.
    pub fn replace(&self, state: &State) -> Result<Switch<'_>, StateError> {
        let old = self.current()?;
        let number = self.number.get() + 1;
        self.number.set(number);
        let new = Path::new(STATES).join(format!("{number:06}"));
        let written = files::write(state, &self.directory.join(&new))
            .and_then(|()| files::sync(&self.directory.join(STATES)))
            .and_then(|()| self.switch(old.as_deref(), &new));
        if let Err(error) = written {
            // Where even the way back failed, the new state is in force and must stay whole.
            if self.current().is_ok_and(|current| current.as_deref() != Some(&new)) {
                self.discard(&new);
            }
            return Err(error);
        }
        Ok(Switch { store: self, old, new })
    }

    /// The highest wall clock that was ever stored.
    pub fn clock(&self) -> Result<Option<OffsetDateTime>, StateError> {
        let file = self.directory.join(CLOCK);
        match fs::read_to_string(&file) {
            Ok(text) => OffsetDateTime::parse(text.trim(), &Rfc3339).map(Some).map_err(|error| {
                StateError::Broken { file, why: format!("not a time as RFC 3339 writes it: {error}") }
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StateError::at("read", &file)(error)),
        }
    }

    /// Stores the highest wall clock.
    pub fn set_clock(&self, highest: OffsetDateTime) -> Result<(), StateError> {
        let text = highest.format(&Rfc3339).unwrap_or_default() + "\n";
        let next = format!("{CLOCK}.next");
        files::write_file(&self.directory, &next, text.as_bytes())?;
        let to = self.directory.join(CLOCK);
        fs::rename(self.directory.join(next), &to).map_err(StateError::at("replace", &to))?;
        files::sync(&self.directory)
    }

    /// Where `current` points to, relative to the state directory.
    fn current(&self) -> Result<Option<PathBuf>, StateError> {
        let link = self.directory.join(CURRENT);
        match fs::read_link(&link) {
            Ok(to) => Ok(Some(to)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StateError::at("read the link", &link)(error)),
        }
    }

    /// The one switch. The way back is laid first, so that it needs no space on a full disk.
    fn switch(&self, old: Option<&Path>, new: &Path) -> Result<(), StateError> {
        if let Some(old) = old {
            self.link(old, BACK)?;
        }
        self.link(new, NEXT)?;
        self.rename_to_current(NEXT)?;
        let synced = files::sync(&self.directory);
        if synced.is_err() && old.is_some() {
            self.rename_to_current(BACK)?;
        }
        synced
    }

    fn link(&self, to: &Path, name: &str) -> Result<(), StateError> {
        let path = self.directory.join(name);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(StateError::at("replace", &path)(error));
        }
        symlink(to, &path).map_err(StateError::at("create", &path))
    }

    fn rename_to_current(&self, from: &str) -> Result<(), StateError> {
        let to = self.directory.join(CURRENT);
        fs::rename(self.directory.join(from), &to).map_err(StateError::at("switch", &to))
    }

    /// Removes every state but the one in force. What can't be removed now is removed by the next start.
    fn tidy(&self, current: &Path) {
        for name in [NEXT, BACK] {
            let _ = fs::remove_file(self.directory.join(name));
        }
        for number in numbers(&self.directory.join(STATES)) {
            let state = Path::new(STATES).join(format!("{number:06}"));
            if state != current {
                self.discard(&state);
            }
        }
    }

    fn discard(&self, state: &Path) {
        let path = self.directory.join(state);
        if let Err(error) = fs::remove_dir_all(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "an old state can't be removed");
        }
    }
}

/// A state that is in force, and can still be taken back.
#[derive(Debug)]
#[must_use = "the old state is kept until the switch is committed or undone"]
pub struct Switch<'a> {
    store: &'a Store,
    old: Option<PathBuf>,
    new: PathBuf,
}

impl Switch<'_> {
    /// The change is complete: the old state goes.
    pub fn commit(self) {
        self.store.tidy(&self.new);
    }

    /// A later step failed: the old state is in force again.
    pub fn undo(self) -> Result<(), StateError> {
        if self.old.is_some() {
            self.store.rename_to_current(BACK)?;
            files::sync(&self.store.directory)?;
            self.store.discard(&self.new);
        }
        Ok(())
    }
}

fn make_private(path: &Path) -> Result<(), StateError> {
    let mode = fs::metadata(path).map_err(StateError::at("look at", path))?.permissions().mode();
    if mode & OTHERS == 0 {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(StateError::at("make private", path))
}

fn lock(directory: &Path) -> Result<File, StateError> {
    let path = directory.join(LOCK);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(StateError::at("open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            return Err(StateError::Locked { directory: directory.to_owned(), pid: pid.trim().to_owned() });
        }
        Err(error) => return Err(StateError::at("lock", &path)(error.into())),
    }
    // Whoever holds the lock need not be able to say so: the disk may be full.
    if let Err(error) = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())) {
        tracing::warn!(path = %path.display(), %error, "the lock of the state directory does not name this process");
    }
    Ok(file)
}

/// The numbers of the states that exist.
fn numbers(states: &Path) -> impl Iterator<Item = u32> + use<> {
    fs::read_dir(states)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use tempfile::TempDir;

    use super::*;
    use crate::keys;

    fn state() -> State {
        let identity = keys::bootstrap(OffsetDateTime::now_utc()).unwrap();
        State { identity, control_identity: None, membership: None, token: None }
    }

    fn files_below(path: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(path).unwrap().map(Result::unwrap) {
            found.push(entry.path());
            if entry.file_type().unwrap().is_dir() {
                found.extend(files_below(&entry.path()));
            }
        }
        found
    }

    #[test]
    fn a_state_reads_back_as_it_was_written_and_only_one_is_kept() {
        let directory = TempDir::new().unwrap();
        let store = Store::open(directory.path()).unwrap();
        assert_eq!(store.load().unwrap(), None);
        let (first, second) = (state(), state());
        store.replace(&first).unwrap().commit();
        assert_eq!(store.load().unwrap().unwrap(), first);
        store.replace(&second).unwrap().commit();
        assert_eq!(store.load().unwrap().unwrap(), second);
        assert_eq!(numbers(&directory.path().join(STATES)).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn a_switch_that_is_undone_leaves_the_old_state() {
        let directory = TempDir::new().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let first = state();
        store.replace(&first).unwrap().commit();
        store.replace(&state()).unwrap().undo().unwrap();
        assert_eq!(store.load().unwrap().unwrap(), first);
        assert_eq!(numbers(&directory.path().join(STATES)).count(), 1);
    }

    #[test]
    fn nothing_in_the_state_directory_is_readable_to_others() {
        let directory = TempDir::new().unwrap();
        let store = Store::open(directory.path()).unwrap();
        store.replace(&state()).unwrap().commit();
        store.set_clock(OffsetDateTime::now_utc()).unwrap();
        for path in files_below(directory.path()) {
            let data = fs::symlink_metadata(&path).unwrap();
            assert!(data.is_symlink() || data.mode() & OTHERS == 0, "{}", path.display());
        }
    }

    #[test]
    fn a_second_daemon_is_refused_with_the_firsts_process_id() {
        let directory = TempDir::new().unwrap();
        let _first = Store::open(directory.path()).unwrap();
        let error = Store::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    }

    #[test]
    fn a_truncated_file_is_named_with_what_to_do() {
        for name in ["state.json", "rsa.crt", "ec.key"] {
            let directory = TempDir::new().unwrap();
            let store = Store::open(directory.path()).unwrap();
            store.replace(&state()).unwrap().commit();
            let file = directory.path().join(CURRENT).join(name);
            fs::write(&file, &fs::read(&file).unwrap()[..20]).unwrap();
            let error = store.load().unwrap_err().to_string();
            assert!(error.contains("states/000001") && error.contains("zone-proxy reset"), "{error}");
        }
    }

    #[test]
    fn a_missing_file_is_named_with_what_to_do() {
        let directory = TempDir::new().unwrap();
        let store = Store::open(directory.path()).unwrap();
        store.replace(&state()).unwrap().commit();
        fs::remove_file(directory.path().join(CURRENT).join("rsa.key")).unwrap();
        let error = store.load().unwrap_err().to_string();
        assert!(error.contains("rsa.key") && error.contains("zone-proxy reset"), "{error}");
    }

    #[test]
    fn what_a_killed_process_left_behind_is_removed_at_the_next_start() {
        let directory = TempDir::new().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let first = state();
        store.replace(&first).unwrap().commit();
        let half = directory.path().join(STATES).join("000002");
        fs::create_dir(&half).unwrap();
        fs::write(half.join("state.json"), "{").unwrap();
        symlink("states/000002", directory.path().join(NEXT)).unwrap();
        drop(store);
        let store = Store::open(directory.path()).unwrap();
        assert_eq!(store.load().unwrap().unwrap(), first);
        assert!(!half.exists());
        store.replace(&first).unwrap().commit();
    }

    #[test]
    fn the_highest_clock_is_remembered() {
        let directory = TempDir::new().unwrap();
        let store = Store::open(directory.path()).unwrap();
        assert_eq!(store.clock().unwrap(), None);
        let now = OffsetDateTime::now_utc();
        store.set_clock(now).unwrap();
        assert_eq!(store.clock().unwrap(), Some(now));
        fs::write(directory.path().join(CLOCK), "yesterday").unwrap();
        assert!(store.clock().is_err());
    }
}
