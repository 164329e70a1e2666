//! What a machine knows of one endpoint: its parks in order of preference, its queue, its
//! instances.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    CallId, InstanceId, ParkCounts, ParkId, ParkState, Time,
    park::Park,
    park_choice::{FreeParks, take},
};

/// Instances without connections that are kept in mind per endpoint.
const MAX_GONE_INSTANCES: usize = 8;

#[derive(Debug, Default)]
pub(crate) struct Endpoint {
    free: FreeParks,
    busy: BTreeSet<ParkId>,
    counts: ParkCounts,
    /// By order of arrival.
    pub(crate) waiting: BTreeMap<u64, CallId>,
    pub(crate) instances: Instances,
    /// The numbers of parks and sessions that were announced last.
    pub(crate) announced: (usize, usize),
    /// Whether it is on the registry's list of what may have changed.
    pub(crate) touched: bool,
    /// Whether its park that ended last did so because nothing came from it, and nothing has come from any other since.
    pub(crate) silent: bool,
    /// Set when the last connection goes.
    pub(crate) remembered_until: Option<Time>,
}

impl Endpoint {
    pub(crate) fn list(&mut self, id: ParkId, park: &Park) {
        match park.state {
            ParkState::Idle | ParkState::Pinging => self.free.insert(id, park),
            ParkState::Assigned { .. } | ParkState::Session { .. } => {
                self.busy.insert(id);
            }
        }
        *self.counts.of(park.state) += 1;
        if let Some(held) = self.instances.held(park.rank, park.state) {
            *held += 1;
        }
    }

    pub(crate) fn unlist(&mut self, id: ParkId, park: &Park) {
        match park.state {
            ParkState::Idle | ParkState::Pinging => self.free.remove(id, park),
            ParkState::Assigned { .. } | ParkState::Session { .. } => take(&mut self.busy, &id),
        }
        *self.counts.of(park.state) -= 1;
        if let Some(held) = self.instances.held(park.rank, park.state) {
            *held -= 1;
        }
    }

    pub(crate) fn counts(&self) -> ParkCounts {
        self.counts
    }

    /// The park that serves the next call.
    pub(crate) fn best(&self) -> Option<ParkId> {
        self.free.best()
    }

    /// The park that is let go when there is one too many.
    pub(crate) fn worst(&self) -> Option<ParkId> {
        self.free.worst()
    }

    /// The parks that carry nothing.
    pub(crate) fn free(&self) -> impl Iterator<Item = ParkId> {
        self.free.all()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = ParkId> {
        self.free.all().chain(self.busy.iter().copied())
    }

    /// Sessions, and calls that are on their way to one.
    pub(crate) fn demand(&self) -> usize {
        self.counts.sessions + self.counts.assigned + self.waiting.len()
    }
}

#[derive(Debug)]
struct Instance {
    id: InstanceId,
    /// Higher for those seen later.
    rank: u64,
    parks: usize,
    sessions: usize,
    /// Whether it was named as one of two.
    raised: bool,
    /// When a park of it arrived last.
    seen: Time,
}

/// The processes that run, or ran lately, under one endpoint id.
#[derive(Debug, Default)]
pub(crate) struct Instances {
    /// In order of rank.
    all: Vec<Instance>,
    next_rank: u64,
}

impl Instances {
    /// A park of `id` arrives: its rank, and the older and the newer of two instances if there are
    /// two and this has not been told.
    pub(crate) fn note(
        &mut self,
        id: InstanceId,
        now: Time,
        remember: Duration,
    ) -> (u64, Option<(InstanceId, InstanceId)>) {
        let known = self.all.iter().position(|instance| instance.id == id);
        let at = known.unwrap_or_else(|| {
            self.forget(now, remember);
            // Nearly every endpoint has one; a vector would begin with room for four.
            self.all.reserve_exact(1);
            self.all.push(Instance {
                id,
                rank: self.next_rank,
                parks: 0,
                sessions: 0,
                raised: false,
                seen: now,
            });
            self.next_rank += 1;
            self.all.len() - 1
        });
        self.all[at].seen = now;
        (self.all[at].rank, self.tell_apart(at))
    }

    pub(crate) fn id(&self, rank: u64) -> Option<InstanceId> {
        self.find(rank).map(|at| self.all[at].id)
    }

    pub(crate) fn rank(&self, id: InstanceId) -> Option<u64> {
        self.all.iter().find(|instance| instance.id == id).map(|instance| instance.rank)
    }

    /// How many hold parks.
    pub(crate) fn parking(&self) -> usize {
        self.all.iter().filter(|instance| instance.parks > 0).count()
    }

    /// The number of connections an instance holds in states like this one.
    fn held(&mut self, rank: u64, state: ParkState) -> Option<&mut usize> {
        let at = self.find(rank)?;
        let instance = &mut self.all[at];
        Some(match state {
            ParkState::Session { .. } => &mut instance.sessions,
            _ => &mut instance.parks,
        })
    }

    fn find(&self, rank: u64) -> Option<usize> {
        self.all.binary_search_by_key(&rank, |instance| instance.rank).ok()
    }

    fn tell_apart(&mut self, at: usize) -> Option<(InstanceId, InstanceId)> {
        let other = self.all.iter().enumerate().rposition(|(i, instance)| i != at && instance.parks > 0)?;
        if self.all[at].raised {
            return None;
        }
        self.all[at].raised = true;
        self.all[other].raised = true;
        Some((self.all[at.min(other)].id, self.all[at.max(other)].id))
    }

    /// Drops those that hold nothing and were seen too long ago, or are too many.
    fn forget(&mut self, now: Time, remember: Duration) {
        self.all.retain(|instance| instance.holds() || instance.seen.saturating_add(remember) > now);
        let gone = self.all.iter().filter(|instance| !instance.holds()).count();
        let mut surplus = gone.saturating_sub(MAX_GONE_INSTANCES);
        self.all.retain(|instance| {
            let drop = surplus > 0 && !instance.holds();
            surplus -= usize::from(drop);
            !drop
        });
    }
}

impl Instance {
    fn holds(&self) -> bool {
        self.parks + self.sessions > 0
    }
}
