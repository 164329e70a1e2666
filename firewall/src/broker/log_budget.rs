//! A budget for log lines that anybody on this host can cause at any rate, by asking for what they may not.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Lines at once.
const BURST: f64 = 20.0;
/// Lines in the long run.
const LINES_PER_SECOND: f64 = 1.0;

/// A token bucket: each line takes one.
#[derive(Debug)]
pub(super) struct LogBudget(Mutex<Tokens>);

#[derive(Debug)]
struct Tokens {
    left: f64,
    at: Instant,
    held_back: u64,
}

impl LogBudget {
    /// A full one.
    pub(super) fn new(now: Instant) -> Self {
        Self(Mutex::new(Tokens { left: BURST, at: now, held_back: 0 }))
    }

    /// Whether a line may be written now, and how many were held back since the last one.
    pub(super) fn allows(&self, now: Instant) -> Option<u64> {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let earned = now.saturating_duration_since(tokens.at).as_secs_f64() * LINES_PER_SECOND;
        tokens.left = (tokens.left + earned).min(BURST);
        tokens.at = now;
        if tokens.left < 1.0 {
            tokens.held_back += 1;
            return None;
        }
        tokens.left -= 1.0;
        Some(std::mem::take(&mut tokens.held_back))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_is_cut_to_a_line_a_second_which_says_how_many_it_stands_for() {
        let start = Instant::now();
        let budget = LogBudget::new(start);
        assert_eq!((0..1_000).filter(|_| budget.allows(start).is_some()).count(), 20);
        assert_eq!(budget.allows(start + Duration::from_secs(1)), Some(980));
        assert_eq!(budget.allows(start + Duration::from_secs(1)), None);
    }
}
