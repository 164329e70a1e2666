//! The descriptors that the kernel lets a relay have (`RLIMIT_NOFILE`), and who may use them up: callers that wait for an endpoint
//! leave the greater part to endpoints, without which they would wait for nothing.

use std::sync::OnceLock;

use zone_log_budget::LogBudget;
use zone_settings::Limits;

/// Callers that are under way may hold one of so many descriptors.
const CALLERS_SHARE: u64 = 4;
/// Descriptors of a relay with nobody connected, and some to spare.
const OWN_DESCRIPTORS: u64 = 64;
/// Lines about a lack of descriptors at once.
const LOG_BURST: f64 = 1.0;
/// Lines about a lack of descriptors in the long run.
const LOG_PER_SECOND: f64 = 0.1;

/// What is known of a relay's descriptors.
#[derive(Debug)]
pub(crate) struct Descriptors {
    /// How many it may have; unset where there is no limit, or none that is known.
    most: OnceLock<u64>,
    /// For lines about a lack of them, by port.
    pub(crate) log_budget: LogBudget,
}

impl Default for Descriptors {
    fn default() -> Self {
        Self { most: OnceLock::new(), log_budget: LogBudget::new(LOG_BURST, LOG_PER_SECOND) }
    }
}

impl Descriptors {
    /// Notes how many descriptors there may be.
    pub(crate) fn limit_to(&self, most: Option<u64>) {
        if let Some(most) = most {
            // A relay is configured once.
            let _ = self.most.set(most);
        }
    }

    /// Warns where limits allow more connections than there can be descriptors.
    pub(crate) fn warn_if_few(&self, limits: &Limits) {
        if let Some(&most) = self.most.get()
            && most < needed(limits)
        {
            tracing::warn!(
                descriptors = most,
                connections = limits.connections,
                "there are fewer descriptors than limits.connections takes: raise LimitNOFILE, or lower that limit"
            );
        }
    }

    /// How many callers may be under way at a time.
    pub(crate) fn callers(&self) -> usize {
        let share = self.most.get().map(|most| most / CALLERS_SHARE);
        share.and_then(|share| usize::try_from(share).ok()).unwrap_or(usize::MAX)
    }

    /// How many connections of one port may not have authenticated, of those that `limits` allows: their places are never all of
    /// the callers'.
    pub(crate) fn unauthenticated(&self, limits: &Limits) -> usize {
        limits.unauthenticated_connections.min(self.callers() / 2).max(1)
    }
}

/// Descriptors of a relay at its limits.
fn needed(limits: &Limits) -> u64 {
    let unauthenticated = (limits.unauthenticated_connections as u64).saturating_mul(2);
    OWN_DESCRIPTORS.saturating_add(limits.connections as u64).saturating_add(unauthenticated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_that_are_under_way_leave_three_quarters_of_the_descriptors_to_others() {
        let descriptors = Descriptors::default();
        assert_eq!(descriptors.callers(), usize::MAX, "no limit is known");
        descriptors.limit_to(Some(1_024));
        assert_eq!(descriptors.callers(), 256);
        assert_eq!(descriptors.unauthenticated(&Limits::default()), 128);
    }
}
