//! Locks of data that is whole at every step.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A lock whose holder panicked still guards data that is whole, where every update is a single step. The switchboard's
/// are not, and it has a lock of its own.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
