//! Parks and endpoints with the indices over them, kept consistent with each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use crate::{
    CallId, InstanceId, Limits, ParkCounts, ParkId, ParkState, ParkView, Presence, Time, endpoint::Endpoint,
    park::Park,
};

#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) limits: Limits,
    parks: BTreeMap<ParkId, Park>,
    due: BTreeSet<(Time, ParkId)>,
    endpoints: BTreeMap<Arc<str>, Endpoint>,
    /// The endpoints that have neither connections nor waiting calls.
    forgetting: BTreeSet<(Time, Arc<str>)>,
    touched: Vec<Arc<str>>,
    totals: ParkCounts,
    waiting: usize,
}

impl Registry {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            parks: BTreeMap::new(),
            due: BTreeSet::new(),
            endpoints: BTreeMap::new(),
            forgetting: BTreeSet::new(),
            touched: Vec::new(),
            totals: ParkCounts::default(),
            waiting: 0,
        }
    }

    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        let due = |(id, park): (&ParkId, &Park)| park.due(&self.limits).map(|due| (due, *id));
        self.due = self.parks.iter().filter_map(due).collect();
    }

    /// Makes sure the endpoint has an entry, and has it looked at by [`Registry::announce`].
    /// `false`: there are as many as allowed, all in use.
    pub(crate) fn open(&mut self, endpoint: &Arc<str>) -> bool {
        if !self.endpoints.contains_key(endpoint) {
            if self.endpoints.len() >= self.limits.endpoints && !self.forget_first() {
                return false;
            }
            self.endpoints.insert(endpoint.clone(), Endpoint::default());
        }
        self.touch(endpoint);
        true
    }

    /// Whether one more endpoint can be known without another one being forgotten.
    pub(crate) fn has_room(&self) -> bool {
        self.endpoints.len() < self.limits.endpoints
    }

    /// Keeps an endpoint known until then at least, where it has no connection.
    pub(crate) fn remember(&mut self, endpoint: &Arc<str>, until: Time) {
        self.touch(endpoint);
        if let Some(entry) = self.endpoints.get_mut(endpoint)
            && entry.counts().live() == 0
        {
            entry.remembered_until = entry.remembered_until.max(Some(until));
        }
    }

    /// Notes that a park of this instance arrives; see `Instances::note`.
    pub(crate) fn note_instance(
        &mut self,
        endpoint: &str,
        instance: InstanceId,
        now: Time,
    ) -> Option<(u64, Option<(InstanceId, InstanceId)>)> {
        let entry = self.endpoints.get_mut(endpoint)?;
        Some(entry.instances.note(instance, now, self.limits.remember_endpoint))
    }

    pub(crate) fn insert(&mut self, id: ParkId, park: Park) {
        self.list(id, &park);
        self.parks.insert(id, park);
    }

    /// Moves a park to another state.
    pub(crate) fn shift(&mut self, id: ParkId, now: Time, state: ParkState) {
        self.edit(id, |park| {
            park.state = state;
            park.since = now;
        });
    }

    /// Makes a park idle that has just proved itself alive.
    pub(crate) fn prove(&mut self, id: ParkId, now: Time) {
        self.edit(id, |park| {
            park.state = ParkState::Idle;
            park.since = now;
            park.proved = now;
        });
    }

    /// Ends a park. Its endpoint stays known for a while if this was its last connection.
    pub(crate) fn remove(&mut self, id: ParkId, now: Time) -> Option<Park> {
        let park = self.parks.remove(&id)?;
        self.unlist(id, &park);
        if let Some(entry) = self.endpoints.get_mut(&park.endpoint)
            && entry.counts().live() == 0
        {
            entry.remembered_until = Some(now.saturating_add(self.limits.remember_endpoint));
        }
        Some(park)
    }

    /// Notes that a park of the endpoint has ended because nothing came from it, or that something came from one.
    pub(crate) fn note_silence(&mut self, endpoint: &str, silent: bool) {
        if let Some(entry) = self.endpoints.get_mut(endpoint) {
            entry.silent = silent;
        }
    }

    pub(crate) fn enqueue(&mut self, endpoint: &Arc<str>, arrival: u64, call: CallId) {
        self.touch(endpoint);
        if let Some(entry) = self.endpoints.get_mut(endpoint)
            && entry.waiting.insert(arrival, call).is_none()
        {
            self.waiting += 1;
        }
    }

    pub(crate) fn dequeue(&mut self, endpoint: &Arc<str>, arrival: u64) {
        self.touch(endpoint);
        if let Some(entry) = self.endpoints.get_mut(endpoint)
            && entry.waiting.remove(&arrival).is_some()
        {
            self.waiting -= 1;
        }
    }

    /// Lets an endpoint go the moment it has no connections and no waiting calls.
    pub(crate) fn disown(&mut self, endpoint: &Arc<str>) {
        self.touch(endpoint);
        if let Some(entry) = self.endpoints.get_mut(endpoint) {
            entry.remembered_until = None;
        }
    }

    /// Forgets the endpoint that is gone the longest, if any is.
    pub(crate) fn forget_first(&mut self) -> bool {
        self.forgetting.pop_first().is_some_and(|(_, endpoint)| self.endpoints.remove(&endpoint).is_some())
    }

    /// The calls that wait for endpoints without parks, of those that something happened to since the last
    /// [`Registry::announce`].
    pub(crate) fn stranded(&self) -> Vec<CallId> {
        let entries = self.touched.iter().filter_map(|endpoint| self.endpoints.get(endpoint));
        let stranded = entries.filter(|entry| entry.counts().parks() == 0);
        stranded.flat_map(|entry| entry.waiting.values().copied()).collect()
    }

    /// Has every endpoint that calls wait for looked at by [`Registry::announce`].
    pub(crate) fn touch_waited_for(&mut self) {
        let waited_for = self.endpoints.iter().filter(|(_, entry)| !entry.waiting.is_empty());
        for endpoint in waited_for.map(|(endpoint, _)| endpoint.clone()).collect::<Vec<_>>() {
            self.touch(&endpoint);
        }
    }

    /// Looks at every endpoint something happened to since the last time: tells how its presence
    /// changed, and drops it or plans to once nothing holds it.
    pub(crate) fn announce(&mut self, now: Time, mut tell: impl FnMut(Presence)) {
        let mut touched = std::mem::take(&mut self.touched);
        for endpoint in touched.drain(..) {
            let Some(entry) = self.endpoints.get_mut(&endpoint) else { continue };
            entry.touched = false;
            let before = entry.announced;
            entry.announced = (entry.counts().parks(), entry.counts().sessions);
            let holds = entry.counts().live() > 0 || !entry.waiting.is_empty();
            let remembered = entry.remembered_until.filter(|until| *until > now);
            let presence = match (before, entry.announced) {
                (before, after) if before == after => None,
                ((0, 0), _) => Some(Presence::Joined { endpoint: endpoint.clone() }),
                (_, (0, 0)) => Some(Presence::Left { endpoint: endpoint.clone() }),
                _ => Some(Presence::Changed { endpoint: endpoint.clone() }),
            };
            presence.into_iter().for_each(&mut tell);
            if holds {
                continue;
            }
            match remembered {
                Some(until) => {
                    self.forgetting.insert((until, endpoint));
                }
                None => {
                    self.endpoints.remove(&endpoint);
                }
            }
        }
        self.touched = touched;
    }

    /// Whether calls for the endpoint are to wait for its parks.
    pub(crate) fn knows(&self, endpoint: &str, now: Time) -> bool {
        self.endpoints.get(endpoint).is_some_and(|entry| {
            entry.counts().live() > 0 || entry.remembered_until.is_some_and(|until| until > now)
        })
    }

    pub(crate) fn park(&self, id: ParkId) -> Option<&Park> {
        self.parks.get(&id)
    }

    pub(crate) fn parks(&self) -> impl Iterator<Item = (ParkId, &Park)> {
        self.parks.iter().map(|(id, park)| (*id, park))
    }

    pub(crate) fn view<'a>(&'a self, id: ParkId, park: &'a Park) -> Option<ParkView<'a>> {
        let instance = self.endpoints.get(&park.endpoint)?.instances.id(park.rank)?;
        let Park { ref endpoint, state, since, proved, .. } = *park;
        Some(ParkView { park: id, endpoint, instance, state, since, proved })
    }

    pub(crate) fn endpoint(&self, id: &str) -> Option<&Endpoint> {
        self.endpoints.get(id)
    }

    pub(crate) fn endpoint_entry(&self, id: &str) -> Option<(&Arc<str>, &Endpoint)> {
        self.endpoints.get_key_value(id)
    }

    pub(crate) fn endpoints(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, &Endpoint)> {
        self.endpoints.iter()
    }

    pub(crate) fn endpoints_after(&self, id: &str) -> impl Iterator<Item = (&Arc<str>, &Endpoint)> {
        self.endpoints.range::<str, _>((Bound::Excluded(id), Bound::Unbounded))
    }

    pub(crate) fn totals(&self) -> ParkCounts {
        self.totals
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(crate) fn first_due(&self) -> Option<(Time, ParkId)> {
        self.due.first().copied()
    }

    pub(crate) fn first_forgetting(&self) -> Option<Time> {
        self.forgetting.first().map(|(until, _)| *until)
    }

    fn edit(&mut self, id: ParkId, change: impl FnOnce(&mut Park)) {
        if let Some(mut park) = self.parks.remove(&id) {
            self.unlist(id, &park);
            change(&mut park);
            self.list(id, &park);
            self.parks.insert(id, park);
        }
    }

    fn list(&mut self, id: ParkId, park: &Park) {
        self.touch(&park.endpoint);
        *self.totals.of(park.state) += 1;
        self.due.extend(park.due(&self.limits).map(|due| (due, id)));
        if let Some(entry) = self.endpoints.get_mut(&park.endpoint) {
            entry.list(id, park);
        }
    }

    fn unlist(&mut self, id: ParkId, park: &Park) {
        self.touch(&park.endpoint);
        *self.totals.of(park.state) -= 1;
        if let Some(due) = park.due(&self.limits) {
            self.due.remove(&(due, id));
        }
        if let Some(entry) = self.endpoints.get_mut(&park.endpoint) {
            entry.unlist(id, park);
        }
    }

    /// Takes the endpoint off the ones to be forgotten until [`Registry::announce`] has seen it.
    fn touch(&mut self, endpoint: &Arc<str>) {
        if let Some(entry) = self.endpoints.get_mut(endpoint)
            && !entry.touched
        {
            entry.touched = true;
            if let Some(until) = entry.remembered_until {
                self.forgetting.remove(&(until, endpoint.clone()));
            }
            self.touched.push(endpoint.clone());
        }
    }
}

/// Bytes of a park's entries in the maps above. A B-tree's nodes are filled by half at worst, so
/// that a park takes less than twice as much.
#[cfg(test)]
pub(crate) const BYTES_PER_PARK: usize =
    size_of::<(ParkId, Park)>() + size_of::<(Time, ParkId)>() + size_of::<crate::park_choice::Preference>();
