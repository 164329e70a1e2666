//! Log lines that a stranger could cause at any rate.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

const SPAN: Duration = Duration::from_secs(10);

/// Lets one line through in ten seconds, and counts the others.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    last: Cell<Option<Instant>>,
    held_back: Cell<u64>,
}

impl Seldom {
    /// How often it happened since the last line, if one is due now.
    pub(super) fn now(&self) -> Option<u64> {
        let times = self.held_back.get() + 1;
        if self.last.get().is_some_and(|last| last.elapsed() < SPAN) {
            self.held_back.set(times);
            return None;
        }
        self.last.set(Some(Instant::now()));
        self.held_back.set(0);
        Some(times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_in_ten_seconds_says_how_many_it_stands_for() {
        let seldom = Seldom::default();
        assert_eq!(seldom.now(), Some(1));
        assert_eq!((seldom.now(), seldom.now()), (None, None));
        tokio::time::advance(SPAN).await;
        assert_eq!(seldom.now(), Some(3));
    }
}
