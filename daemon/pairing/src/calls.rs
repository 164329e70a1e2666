//! The calls that have neither their session nor an error.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{CallId, ParkId, Time};

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) endpoint: Arc<str>,
    pub(crate) deadline: Time,
    /// Its place in the queue. A retried call keeps it, and so comes before all that never had
    /// their turn.
    pub(crate) arrival: u64,
    /// Parks it was given.
    pub(crate) tries: u32,
    /// The park it is assigned to; without one it waits.
    pub(crate) park: Option<ParkId>,
}

#[derive(Debug, Default)]
pub(crate) struct Calls {
    all: BTreeMap<CallId, Call>,
    due: BTreeSet<(Time, CallId)>,
    arrivals: u64,
}

impl Calls {
    /// Takes a call in and returns its place in the queue.
    pub(crate) fn insert(&mut self, id: CallId, endpoint: Arc<str>, deadline: Time) -> u64 {
        let arrival = self.arrivals;
        self.arrivals += 1;
        self.due.insert((deadline, id));
        self.all.insert(id, Call { endpoint, deadline, arrival, tries: 0, park: None });
        arrival
    }

    pub(crate) fn remove(&mut self, id: CallId) -> Option<Call> {
        let call = self.all.remove(&id)?;
        self.due.remove(&(call.deadline, id));
        Some(call)
    }

    pub(crate) fn get(&self, id: CallId) -> Option<&Call> {
        self.all.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: CallId) -> Option<&mut Call> {
        self.all.get_mut(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn first_due(&self) -> Option<(Time, CallId)> {
        self.due.first().copied()
    }
}
