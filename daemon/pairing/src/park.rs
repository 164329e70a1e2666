//! A park, and when something is due about it.

use std::sync::Arc;

use crate::{Limits, ParkState, Stage, Time};

#[derive(Debug)]
pub(crate) struct Park {
    pub(crate) endpoint: Arc<str>,
    /// Stands for its instance; see [`Instances`](crate::endpoint::Instances).
    pub(crate) rank: u64,
    pub(crate) state: ParkState,
    pub(crate) since: Time,
    pub(crate) proved: Time,
}

impl Park {
    /// When something is to be done about it, if nothing happens before.
    pub(crate) fn due(&self, limits: &Limits) -> Option<Time> {
        let (from, within) = match self.state {
            ParkState::Idle => (self.proved, limits.ping_after),
            ParkState::Pinging => (self.since, limits.pong_within),
            ParkState::Assigned { stage: Stage::Answering, .. } => (self.since, limits.answer_within),
            ParkState::Assigned { .. } => (self.since, limits.first_byte_within),
            ParkState::Session { .. } => return None,
        };
        Some(from.saturating_add(within))
    }
}
