//! Memory after a storm of connections: what they had goes back to the system.
//!
//! Each connection's memory lies between that of others, so the allocator finds no end of its heap that it could cut off,
//! and would keep nearly all of it. It is asked to give back the pages that are free in between.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use zone_watchdog::Heartbeat;

use crate::context::Context;

/// Between two looks at how many connections there are.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// So many fewer connections are worth it at least.
const LEAST_ENDED: usize = 32;
/// Looks from one that found many fewer connections to each in which memory is given back: when their tasks are gone, and
/// when the log has taken what was said of them.
const LOOKS_AFTER: [u32; 2] = [1, 10];

/// Looks for as long as the relay lives.
pub(crate) async fn run(context: Arc<Context>, mut heartbeat: Heartbeat) {
    let mut ebb = Ebb::default();
    loop {
        tokio::select! {
            () = sleep(LOOK_INTERVAL) => {}
            () = heartbeat.answer() => continue,
        }
        if ebb.look(context.limiters.connections()) {
            let began = Instant::now();
            zone_sys::return_freed_memory();
            tracing::debug!(milliseconds = began.elapsed().as_millis(), "freed memory was given back");
        }
    }
}

/// Notices when a quarter of the connections, and [`LEAST_ENDED`] of them, have ended.
#[derive(Debug, Default)]
struct Ebb {
    most: usize,
    /// Looks since that was noticed, while there is something to do.
    looks: Option<u32>,
}

impl Ebb {
    /// So many connections there are now; whether to give memory back.
    fn look(&mut self, connections: usize) -> bool {
        self.most = self.most.max(connections);
        if self.most - connections >= LEAST_ENDED.max(self.most / 4) {
            self.most = connections;
            self.looks = Some(0);
            return false;
        }
        let Some(looks) = self.looks.map(|looks| looks + 1) else { return false };
        self.looks = LOOKS_AFTER.iter().any(|due| *due > looks).then_some(looks);
        LOOKS_AFTER.contains(&looks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(looks: impl IntoIterator<Item = usize>) -> Vec<usize> {
        let mut ebb = Ebb::default();
        let said = looks.into_iter().enumerate().filter(|(_, connections)| ebb.look(*connections));
        said.map(|(time, _)| time).collect()
    }

    #[test]
    fn a_storm_that_is_over_has_memory_given_back_at_once_and_when_all_is_quiet() {
        let storm = [10, 4_000].into_iter().chain(std::iter::repeat_n(10, 100));
        assert_eq!(times(storm), [3, 12]);
    }

    #[test]
    fn a_storm_that_ebbs_away_has_it_given_back_step_by_step() {
        let given = times((0..100).map(|n: usize| 4_000_usize.saturating_sub(100 * n)));
        assert!((3..12).contains(&given.len()), "{given:?}");
        assert!(given.last().is_some_and(|last| *last > 40), "and once more at its end: {given:?}");
    }

    #[test]
    fn connections_that_come_and_go_are_no_storm() {
        assert!(times((0..100).map(|n| 1_000 + n % 7 * 20)).is_empty());
        assert!(times([31, 0, 0, 0]).is_empty());
    }
}
