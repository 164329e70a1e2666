//! Which of an endpoint's parks serves the next call, and which one is let go when there is one too many.
//!
//! The park that is likeliest to live serves: one of the newest instance, of those the one that answered last, of those
//! the youngest. A park whose ping is not answered yet serves nobody. The park at the other end of that order is let go,
//! whether it is being pinged or not.

use std::collections::BTreeSet;

use crate::{ParkId, ParkState, Time, park::Park};

/// Orders the parks of an endpoint: the greatest is used first, the least is let go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Preference {
    /// Of its instance: higher for those seen later.
    rank: u64,
    /// When it answered last, or was parked.
    proved: Time,
    park: ParkId,
}

/// The parks of one endpoint that carry nothing.
#[derive(Debug, Default)]
pub(crate) struct FreeParks {
    idle: BTreeSet<Preference>,
    pinging: BTreeSet<Preference>,
}

impl FreeParks {
    /// The park that serves the next call.
    pub(crate) fn best(&self) -> Option<ParkId> {
        self.idle.last().map(|preference| preference.park)
    }

    /// The park that is let go when there is one too many.
    pub(crate) fn worst(&self) -> Option<ParkId> {
        self.idle.first().into_iter().chain(self.pinging.first()).min().map(|preference| preference.park)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = ParkId> {
        self.idle.iter().chain(&self.pinging).map(|preference| preference.park)
    }

    /// Adds a park that is idle or being pinged.
    pub(crate) fn insert(&mut self, id: ParkId, park: &Park) {
        self.set(park.state).insert(preference(id, park));
    }

    /// Takes one out that was added in the state that it is in.
    pub(crate) fn remove(&mut self, id: ParkId, park: &Park) {
        take(self.set(park.state), &preference(id, park));
    }

    fn set(&mut self, state: ParkState) -> &mut BTreeSet<Preference> {
        if state == ParkState::Pinging { &mut self.pinging } else { &mut self.idle }
    }
}

fn preference(id: ParkId, park: &Park) -> Preference {
    Preference { rank: park.rank, proved: park.proved, park: id }
}

/// Removes an entry. A B-tree keeps its node when its last entry goes, and most endpoints have two of these sets
/// empty at any time.
pub(crate) fn take<T: Ord>(set: &mut BTreeSet<T>, entry: &T) {
    set.remove(entry);
    if set.is_empty() {
        *set = BTreeSet::new();
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;

    fn park(rank: u64, proved: u64, state: ParkState) -> Park {
        Park { endpoint: Arc::from("a"), rank, proved: Duration::from_secs(proved), state, since: Time::ZERO }
    }

    #[test]
    fn the_newest_instance_serves_then_the_park_that_answered_last_and_the_oldest_is_let_go() {
        let mut parks = FreeParks::default();
        assert_eq!((parks.best(), parks.worst()), (None, None));
        let old = park(1, 9, ParkState::Idle);
        let (silent, answered) = (park(2, 3, ParkState::Idle), park(2, 5, ParkState::Idle));
        parks.insert(ParkId(3), &old);
        parks.insert(ParkId(1), &answered);
        parks.insert(ParkId(2), &silent);
        assert_eq!((parks.best(), parks.worst()), (Some(ParkId(1)), Some(ParkId(3))));
        parks.remove(ParkId(3), &old);
        assert_eq!(parks.worst(), Some(ParkId(2)));
    }

    #[test]
    fn a_park_that_is_being_pinged_serves_nobody_and_can_be_let_go() {
        let mut parks = FreeParks::default();
        let pinged = park(2, 1, ParkState::Pinging);
        parks.insert(ParkId(1), &pinged);
        assert_eq!((parks.best(), parks.worst()), (None, Some(ParkId(1))));
        parks.insert(ParkId(2), &park(1, 9, ParkState::Idle));
        assert_eq!((parks.best(), parks.worst()), (Some(ParkId(2)), Some(ParkId(2))));
    }
}
