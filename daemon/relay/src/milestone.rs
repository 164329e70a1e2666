//! Something that happens once in a relay's life, and that tasks wait for.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Something that happens once.
#[derive(Debug, Default)]
pub(crate) struct Milestone {
    reached: AtomicBool,
    reaching: Notify,
}

impl Milestone {
    /// It has happened.
    pub(crate) fn reach(&self) {
        self.reached.store(true, Ordering::Release);
        self.reaching.notify_waiters();
    }

    /// Whether it has.
    pub(crate) fn is_reached(&self) -> bool {
        self.reached.load(Ordering::Acquire)
    }

    /// Waits until it has. Can be cancelled.
    pub(crate) async fn reached(&self) {
        let reaching = self.reaching.notified();
        if !self.is_reached() {
            reaching.await;
        }
    }
}
