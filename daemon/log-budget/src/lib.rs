//! A budget for log lines that a stranger, or a peer, can cause at any rate. Every such line goes through [`within_budget!`].

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Lines of one kind at once, where nothing else is said.
pub const LOG_BURST: f64 = 20.0;
/// Lines of one kind a second in the long run, where nothing else is said.
pub const LOG_LINES_PER_SECOND: f64 = 1.0;

/// Logs a line of a kind, unless the budget for that kind is used up: `within_budget!(budget, "kind", warn!(%peer, "no"))`. The
/// line has a fact `held_back`: how many lines of its kind were left out before it.
///
/// ```
/// let budget = zone_log_budget::LogBudget::default();
/// zone_log_budget::within_budget!(budget, "garbage", warn!(peer = "192.0.2.1", "what came is no TLS"));
/// ```
#[macro_export]
macro_rules! within_budget {
    ($budget:expr, $kind:expr, $level:ident!(target: $target:expr, $($line:tt)+)) => {
        if let Some(held_back) = $budget.allows($kind, ::std::time::Instant::now()) {
            ::tracing::$level!(target: $target, held_back, $($line)+);
        }
    };
    ($budget:expr, $kind:expr, $level:ident!($($line:tt)+)) => {
        if let Some(held_back) = $budget.allows($kind, ::std::time::Instant::now()) {
            ::tracing::$level!(held_back, $($line)+);
        }
    };
}

/// Lets a burst of lines of one kind through, then some a second, and says how many it held back.
///
/// ```
/// use std::time::{Duration, Instant};
/// use zone_log_budget::LogBudget;
///
/// let (budget, start) = (LogBudget::new(2.0, 1.0), Instant::now());
/// assert_eq!(budget.allows("limit", start), Some(0));
/// assert_eq!(budget.allows("limit", start), Some(0));
/// assert_eq!(budget.allows("limit", start), None, "the burst is over");
/// assert_eq!(budget.allows("limit", start + Duration::from_secs(1)), Some(1), "one was held back");
/// ```
#[derive(Debug)]
pub struct LogBudget {
    burst: f64,
    per_second: f64,
    kinds: Mutex<HashMap<&'static str, Tokens>>,
}

/// A token bucket: each line takes one.
#[derive(Debug)]
struct Tokens {
    left: f64,
    at: Instant,
    held_back: u64,
}

impl Default for LogBudget {
    fn default() -> Self {
        Self::new(LOG_BURST, LOG_LINES_PER_SECOND)
    }
}

impl LogBudget {
    /// For each kind of line: this many at once, and this many a second in the long run.
    pub fn new(burst: f64, per_second: f64) -> Self {
        Self { burst, per_second, kinds: Mutex::default() }
    }

    /// Whether a line of this kind may be written now, and how many were held back since the last one.
    pub fn allows(&self, kind: &'static str, now: Instant) -> Option<u64> {
        // A bucket is updated field by field, and any mixture of old and new is a bucket too.
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let tokens = kinds.entry(kind).or_insert(Tokens { left: self.burst, at: now, held_back: 0 });
        tokens.left =
            (tokens.left + now.duration_since(tokens.at).as_secs_f64() * self.per_second).min(self.burst);
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
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_flood_of_one_kind_is_cut_and_counted() {
        let budget = LogBudget::new(50.0, 5.0);
        let start = Instant::now();
        let written = (0..1_000).filter(|_| budget.allows("x", start).is_some()).count();
        assert_eq!(written, 50);
        assert_eq!(budget.allows("y", start), Some(0));
        assert_eq!(budget.allows("x", start + Duration::from_secs(1)), Some(950));
    }

    #[test]
    fn one_line_in_ten_seconds_says_how_many_it_stands_for() {
        let budget = LogBudget::new(1.0, 0.1);
        let start = Instant::now();
        assert_eq!(budget.allows("x", start), Some(0));
        assert_eq!((budget.allows("x", start), budget.allows("x", start)), (None, None));
        assert_eq!(budget.allows("x", start + Duration::from_secs(10)), Some(2));
    }
}
