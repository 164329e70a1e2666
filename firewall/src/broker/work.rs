//! The host's rules, which one at a time works on: requests and the watch take turns.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::host::Host;

/// The time that a turn may take before the watchdog is no longer fed. Tools have deadlines far below.
const STUCK_TIMEOUT: Duration = Duration::from_secs(120);

/// The host, and whose turn it is.
pub(super) struct Work {
    /// Root's file, the record, and through them the rules.
    pub(super) host: Host,
    turn: Mutex<()>,
    busy_since: Mutex<Option<Instant>>,
}

/// While this lives, nobody else in this process works on the rules.
pub(super) struct Turn<'a> {
    work: &'a Work,
    _held: MutexGuard<'a, ()>,
}

impl Work {
    /// Nobody works on this host yet.
    pub(super) fn on(host: Host) -> Self {
        Self { host, turn: Mutex::new(()), busy_since: Mutex::new(None) }
    }

    /// Waits until nobody else works on the rules.
    pub(super) fn turn(&self) -> Turn<'_> {
        // What a turn leaves behind is in the kernel and in the record, and each turn begins by reading both.
        let held = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.set_busy_since(Some(Instant::now()));
        Turn { work: self, _held: held }
    }

    /// Whether a turn takes so long that something must be wrong.
    pub(super) fn is_stuck(&self) -> bool {
        let since = *self.busy_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| since.elapsed() > STUCK_TIMEOUT)
    }

    fn set_busy_since(&self, since: Option<Instant>) {
        *self.busy_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.work.set_busy_since(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::sync::Arc;
    use std::thread;

    #[test]
    fn a_turn_whose_thread_panics_leaves_nobody_busy_and_nobody_waiting() {
        let work = Arc::new(Work::on(Host::new(Path::new("/nonexistent"), Path::new("/nonexistent"))));
        let own = Arc::clone(&work);
        let panicked = thread::spawn(move || {
            let _turn = own.turn();
            panic!("out of luck");
        });
        assert!(panicked.join().is_err());
        assert!(work.busy_since.lock().unwrap().is_none());
        drop(work.turn());
    }
}
