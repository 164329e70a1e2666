//! The calls that have neither their session nor an error.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{CallError, CallId, ParkId, Time};

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) endpoint: Arc<str>,
    /// When something is to be done about it: at `last`, or before, to see whether its endpoint has come.
    pub(crate) deadline: Time,
    /// When it must have its session.
    pub(crate) last: Time,
    /// Its place in the queue. A retried call keeps it, and so comes before all that never had
    /// their turn.
    pub(crate) arrival: u64,
    /// Parks it was given.
    pub(crate) tries: u32,
    /// Of those, the ones that were lost because nothing came from them.
    pub(crate) silent: u32,
    /// The park it is assigned to; without one it waits.
    pub(crate) park: Option<ParkId>,
}

impl Call {
    /// What it fails as if the parks that it was given and lost are all that there were; `None` where it lost none.
    pub(crate) fn lost_parks(&self) -> Option<CallError> {
        match self.tries - u32::from(self.park.is_some()) {
            0 => None,
            lost if self.silent == lost => Some(CallError::EndpointSilent),
            _ => Some(CallError::ParksLost),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Calls {
    all: BTreeMap<CallId, Call>,
    due: BTreeSet<(Time, CallId)>,
    arrivals: u64,
}

impl Calls {
    /// Takes a call in, to be looked at by `deadline` and over by `last`, and returns its place in the queue.
    pub(crate) fn insert(&mut self, id: CallId, endpoint: Arc<str>, deadline: Time, last: Time) -> u64 {
        let arrival = self.arrivals;
        self.arrivals += 1;
        self.due.insert((deadline, id));
        self.all.insert(id, Call { endpoint, deadline, last, arrival, tries: 0, silent: 0, park: None });
        arrival
    }

    /// Gives a call all of its time.
    pub(crate) fn postpone(&mut self, id: CallId) {
        if let Some(call) = self.all.get_mut(&id) {
            self.due.remove(&(call.deadline, id));
            call.deadline = call.last;
            self.due.insert((call.deadline, id));
        }
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
