//! The machine: what each event does.

use std::{mem, sync::Arc, time::Duration};

use crate::{
    Action, CallError, CallId, CloseReason, Counts, EndpointView, Event, InstanceId, Limits, ParkId,
    ParkState, ParkView, Stage, Time,
    calls::{Call, Calls},
    drain::Drain,
    endpoint::Endpoint,
    park::Park,
    registry::Registry,
};

/// Parks, calls and their pairing; see the crate's documentation for how to drive it.
///
/// Every event costs time logarithmic in the number of parks and calls, except that a revocation
/// takes as long as its endpoint has connections, and the first [`Event::Drain`] looks at all.
#[derive(Debug)]
pub struct Machine {
    started: Time,
    pub(crate) now: Time,
    pub(crate) registry: Registry,
    pub(crate) calls: Calls,
    pub(crate) drain: Option<Drain>,
    pub(crate) actions: Vec<Action>,
}

impl Machine {
    /// A machine without parks that is born `now`.
    pub fn new(now: Time, limits: Limits) -> Self {
        Self {
            started: now,
            now,
            registry: Registry::new(limits),
            calls: Calls::default(),
            drain: None,
            actions: Vec::new(),
        }
    }

    /// Takes note of an event and returns what is to be done, in order. What is overdue at `now`
    /// is dealt with before the event. A `now` before that of an earlier event counts as that one.
    #[must_use = "the actions are to be carried out"]
    pub fn handle(&mut self, now: Time, event: Event) -> Vec<Action> {
        self.now = self.now.max(now);
        self.catch_up();
        self.apply(event);
        self.catch_up();
        mem::take(&mut self.actions)
    }

    /// Takes a park's assignment up: its connection is about to write CONNECT for the call that is
    /// returned. With `None` it must write nothing: the assignment was withdrawn, has been taken up
    /// already or is overdue, or the park has ended.
    #[must_use = "CONNECT is to be written for this call only"]
    pub fn take_up(&mut self, now: Time, park: ParkId) -> Option<CallId> {
        self.now = self.now.max(now);
        let held = self.registry.park(park)?;
        let ParkState::Assigned { call, stage: Stage::Offered } = held.state else { return None };
        let overdue = held.due(&self.registry.limits).is_some_and(|due| due <= self.now)
            || self.calls.get(call).is_none_or(|call| call.deadline <= self.now);
        if overdue {
            return None;
        }
        self.set_stage(park, call, Stage::Connecting);
        Some(call)
    }

    /// Every known endpoint, in order of id.
    pub fn endpoints(&self) -> impl ExactSizeIterator<Item = EndpointView<'_>> {
        self.registry.endpoints().map(view)
    }

    /// One endpoint, if it is known.
    pub fn endpoint(&self, id: &str) -> Option<EndpointView<'_>> {
        self.registry.endpoint_entry(id).map(view)
    }

    /// The endpoints after this one in order of id, each with the time for which it stays known should it have no
    /// connection from now on: what [`Event::Expected`] tells the next machine.
    pub fn known_after(&self, id: &str) -> impl Iterator<Item = (&Arc<str>, Duration)> {
        let remember = self.registry.limits.remember_endpoint;
        self.registry.endpoints_after(id).filter_map(move |(id, entry)| {
            let gone = entry.counts().live() == 0;
            let left = if gone { entry.remembered_until?.checked_sub(self.now)? } else { remember };
            Some((id, left))
        })
    }

    /// Every park and session, in order of id.
    pub fn parks(&self) -> impl Iterator<Item = ParkView<'_>> {
        self.registry.parks().filter_map(|(id, park)| self.registry.view(id, park))
    }

    /// One park or session, if it is live.
    pub fn park(&self, id: ParkId) -> Option<ParkView<'_>> {
        self.registry.view(id, self.registry.park(id)?)
    }

    /// How much of everything there is.
    pub fn counts(&self) -> Counts {
        Counts {
            endpoints: self.registry.endpoints().len(),
            parks: self.registry.totals(),
            calls: self.calls.len(),
            waiting: self.registry.waiting(),
        }
    }

    /// Whether the machine drains.
    pub fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// The limits it keeps to.
    pub fn limits(&self) -> &Limits {
        &self.registry.limits
    }

    /// Keeps to other limits from now on; what they make overdue is dealt with at the next event.
    pub fn set_limits(&mut self, limits: Limits) {
        self.registry.set_limits(limits);
    }

    /// Deals with what is overdue, and with what follows from all that has happened.
    fn catch_up(&mut self) {
        self.expire();
        self.fail_stranded();
        self.announce();
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Parked { park, endpoint, instance } => self.parked(park, &endpoint, instance),
            Event::Pong { park } => self.pong(park),
            Event::Unexpected { park } => self.close(park, CloseReason::Protocol),
            Event::ParkGone { park, .. } | Event::SessionEnded { park } => self.gone(park),
            Event::Called { call, endpoint, deadline } => self.called(call, &endpoint, deadline),
            Event::CallGone { call } => self.call_gone(call),
            Event::FirstByte { park } => self.first_byte(park),
            Event::Accepted { park } => self.accepted(park),
            Event::Refused { park, status } => self.refused(park, status),
            Event::Revoke { endpoint } => self.revoke(&endpoint),
            Event::RevokeInstance { endpoint, instance } => self.revoke_instance(&endpoint, instance),
            Event::RevokePark { park } => self.close(park, CloseReason::Revoked),
            Event::Drain { over } => self.begin_drain(self.now.saturating_add(over)),
            Event::Release { endpoint } => self.release(&endpoint),
            Event::Expected { endpoint, within } => self.expected(&endpoint, within),
            Event::Tick => {}
        }
    }

    fn parked(&mut self, id: ParkId, endpoint: &Arc<str>, instance: InstanceId) {
        if self.registry.park(id).is_some() {
            return;
        }
        if self.is_draining() {
            self.actions.push(Action::Close { park: id, reason: CloseReason::Draining });
            return;
        }
        let noted = if self.registry.open(endpoint) {
            self.registry.note_instance(endpoint, instance, self.now)
        } else {
            None
        };
        let Some((rank, clones)) = noted else {
            self.actions.push(Action::Close { park: id, reason: CloseReason::TooManyEndpoints });
            return;
        };
        if let Some((older, newer)) = clones {
            self.actions.push(Action::Cloned { endpoint: endpoint.clone(), older, newer });
        }
        while let Some(worst) = self.surplus(endpoint) {
            self.close(worst, CloseReason::Evicted);
        }
        let (now, state) = (self.now, ParkState::Idle);
        self.registry.insert(id, Park { endpoint: endpoint.clone(), rank, state, since: now, proved: now });
        self.registry.note_silence(endpoint, false);
        self.serve(endpoint);
    }

    fn expected(&mut self, endpoint: &Arc<str>, within: Duration) {
        if !self.is_draining() && (self.registry.endpoint(endpoint).is_some() || self.registry.has_room()) {
            self.registry.open(endpoint);
            let within = within.min(self.registry.limits.remember_endpoint);
            self.registry.remember(endpoint, self.now.saturating_add(within));
        }
    }

    fn pong(&mut self, id: ParkId) {
        let Some(park) = self.registry.park(id) else { return };
        if park.state != ParkState::Pinging {
            self.close(id, CloseReason::Protocol);
            return;
        }
        let endpoint = park.endpoint.clone();
        self.registry.prove(id, self.now);
        self.registry.note_silence(&endpoint, false);
        self.serve(&endpoint);
    }

    fn gone(&mut self, id: ParkId) {
        if let Some(park) = self.remove_park(id) {
            self.registry.note_silence(&park.endpoint, false);
            self.retry_call_of(&park, false);
        }
    }

    fn called(&mut self, id: CallId, endpoint: &Arc<str>, deadline: Time) {
        if self.calls.get(id).is_some() {
            return;
        }
        if let Err(error) = self.admit(endpoint, deadline) {
            self.actions.push(Action::Fail { call: id, error });
            return;
        }
        let known = self.registry.knows(endpoint, self.now);
        let by = if known { deadline } else { deadline.min(self.settled_at()) };
        let arrival = self.calls.insert(id, endpoint.clone(), by, deadline);
        self.enqueue(endpoint, arrival, id);
        self.serve(endpoint);
    }

    /// Has a call wait for its endpoint, which may be parked where this machine's predecessor drains.
    fn enqueue(&mut self, endpoint: &Arc<str>, arrival: u64, id: CallId) {
        let entry = self.registry.endpoint(endpoint);
        let is_first = entry.is_none_or(|entry| entry.waiting.is_empty() && entry.counts().parks() == 0);
        if is_first && self.now < self.settled_at() && !self.is_draining() {
            self.actions.push(Action::Want { endpoint: Arc::clone(endpoint) });
        }
        self.registry.enqueue(endpoint, arrival, id);
    }

    /// From when on an endpoint that has not come is unknown.
    fn settled_at(&self) -> Time {
        self.started.saturating_add(self.registry.limits.settle)
    }

    fn call_gone(&mut self, id: CallId) {
        if let Some(call) = self.remove_call(id) {
            self.free_park_of(&call, CloseReason::CallerGone);
        }
    }

    fn first_byte(&mut self, id: ParkId) {
        match self.registry.park(id).map(|park| park.state) {
            Some(ParkState::Assigned { call, stage: Stage::Connecting }) => {
                self.set_stage(id, call, Stage::Answering);
            }
            Some(ParkState::Assigned { stage: Stage::Answering, .. } | ParkState::Session { .. }) | None => {}
            Some(_) => self.close(id, CloseReason::Protocol),
        }
    }

    fn accepted(&mut self, id: ParkId) {
        if let Some(call) = self.answered_call(id)
            && self.remove_call(call).is_some()
        {
            self.registry.shift(id, self.now, ParkState::Session { call });
            self.actions.push(Action::Join { park: id, call });
        }
    }

    fn refused(&mut self, id: ParkId, status: u16) {
        if let Some(call) = self.answered_call(id) {
            self.fail(call, CallError::RefusedByEndpoint { status });
            self.close(id, CloseReason::Refused);
        }
    }

    fn revoke(&mut self, endpoint: &Arc<str>) {
        let Some(entry) = self.registry.endpoint(endpoint) else { return };
        let parks: Vec<_> = entry.all().collect();
        let waiting: Vec<_> = entry.waiting.values().copied().collect();
        for call in waiting {
            self.fail(call, CallError::UnknownEndpoint);
        }
        for id in parks {
            if let Some(Park { state: ParkState::Assigned { call, .. }, .. }) = self.registry.park(id) {
                self.fail(*call, CallError::UnknownEndpoint);
            }
            self.close(id, CloseReason::Revoked);
        }
        self.registry.disown(endpoint);
    }

    fn revoke_instance(&mut self, endpoint: &Arc<str>, instance: InstanceId) {
        let Some(entry) = self.registry.endpoint(endpoint) else { return };
        let Some(rank) = entry.instances.rank(instance) else { return };
        let of_instance = |id: &ParkId| self.registry.park(*id).is_some_and(|park| park.rank == rank);
        let mut ended = Vec::new();
        for id in entry.all().filter(of_instance).collect::<Vec<_>>() {
            ended.extend(self.remove_park(id));
            self.actions.push(Action::Close { park: id, reason: CloseReason::Revoked });
        }
        for park in ended {
            self.retry_call_of(&park, false);
        }
    }

    /// The park to evict before the endpoint gets one more.
    fn surplus(&self, endpoint: &str) -> Option<ParkId> {
        let entry = self.registry.endpoint(endpoint)?;
        (entry.counts().parks() >= self.registry.limits.parks_per_endpoint).then(|| entry.worst())?
    }

    /// Whether a call is let in, to be served at once or to wait.
    fn admit(&mut self, endpoint: &Arc<str>, deadline: Time) -> Result<(), CallError> {
        let settling = self.now < self.settled_at();
        if self.is_draining() {
            return Err(CallError::Draining);
        }
        if !settling && !self.registry.knows(endpoint, self.now) {
            return Err(CallError::UnknownEndpoint);
        }
        if deadline <= self.now {
            return Err(CallError::NoParkInTime);
        }
        let entry = self.registry.endpoint(endpoint);
        let sessions = self.registry.limits.per_endpoint_sessions;
        if sessions > 0 && entry.map_or(0, Endpoint::demand) >= sessions {
            return Err(CallError::TooManySessions);
        }
        let must_wait = entry.and_then(Endpoint::best).is_none();
        let full = entry.map_or(0, |entry| entry.waiting.len()) >= self.registry.limits.waiting_per_endpoint
            || self.registry.waiting() >= self.registry.limits.waiting_total;
        if must_wait && full {
            return Err(CallError::TooManyWaiting);
        }
        if self.registry.open(endpoint) { Ok(()) } else { Err(CallError::UnknownEndpoint) }
    }

    /// The call that a park answers; a park that answers out of turn is closed.
    fn answered_call(&mut self, id: ParkId) -> Option<CallId> {
        match self.registry.park(id)?.state {
            ParkState::Assigned { call, stage: Stage::Connecting | Stage::Answering } => Some(call),
            ParkState::Session { .. } => None,
            ParkState::Idle | ParkState::Pinging | ParkState::Assigned { .. } => {
                self.close(id, CloseReason::Protocol);
                None
            }
        }
    }

    /// Ends a park, and retries or fails its call.
    pub(crate) fn close(&mut self, id: ParkId, reason: CloseReason) {
        if let Some(park) = self.remove_park(id) {
            self.actions.push(Action::Close { park: id, reason });
            let silent = matches!(reason, CloseReason::Silent | CloseReason::PingTimeout);
            self.registry.note_silence(&park.endpoint, silent);
            self.retry_call_of(&park, silent);
        }
    }

    /// Gives back or closes the park of a call that has just ended.
    pub(crate) fn free_park_of(&mut self, call: &Call, reason: CloseReason) {
        let Some(id) = call.park else { return };
        if self.connect_sent(call) {
            self.close(id, reason);
        } else {
            self.give_back(id);
        }
    }

    pub(crate) fn connect_sent(&self, call: &Call) -> bool {
        let state = call.park.and_then(|park| self.registry.park(park)).map(|park| park.state);
        matches!(state, Some(ParkState::Assigned { stage: Stage::Connecting | Stage::Answering, .. }))
    }

    fn give_back(&mut self, id: ParkId) {
        let Some(park) = self.registry.park(id) else { return };
        let endpoint = park.endpoint.clone();
        self.registry.shift(id, self.now, ParkState::Idle);
        self.serve(&endpoint);
        self.drain_returned(id);
    }

    /// Retries the call of a park that has ended, because nothing came from it or for another reason, or fails it.
    fn retry_call_of(&mut self, park: &Park, silent: bool) {
        let ParkState::Assigned { call: id, stage } = park.state else { return };
        let Some(call) = self.calls.get_mut(id) else { return };
        call.park = None;
        call.silent += u32::from(silent);
        if stage == Stage::Answering {
            self.calls.remove(id);
            self.actions.push(Action::Fail { call: id, error: CallError::EndpointFailed });
        } else if call.tries >= self.registry.limits.attempts {
            let error = call.lost_parks().unwrap_or(CallError::ParksLost);
            self.calls.remove(id);
            self.actions.push(Action::Fail { call: id, error });
        } else {
            let arrival = call.arrival;
            self.enqueue(&park.endpoint, arrival, id);
            self.serve(&park.endpoint);
        }
    }

    /// Gives idle parks to waiting calls until one of the two runs out.
    fn serve(&mut self, endpoint: &Arc<str>) {
        while let Some(entry) = self.registry.endpoint(endpoint)
            && let Some(park) = entry.best()
            && let Some((&arrival, &id)) = entry.waiting.first_key_value()
        {
            match self.calls.get_mut(id) {
                Some(call) if call.deadline > self.now => {
                    call.park = Some(park);
                    call.tries += 1;
                    self.registry.dequeue(endpoint, arrival);
                    self.set_stage(park, id, Stage::Offered);
                    self.actions.push(Action::Assign { park, call: id });
                }
                Some(call) => {
                    let error = call.lost_parks().unwrap_or(CallError::NoParkInTime);
                    self.fail(id, error);
                }
                None => self.registry.dequeue(endpoint, arrival),
            }
        }
    }

    /// Why a call had no park until its deadline.
    pub(crate) fn unserved(&self, call: &Call) -> CallError {
        let by_endpoint = || match self.registry.endpoint(&call.endpoint) {
            Some(entry) if entry.counts().parks() == 0 && entry.silent => CallError::EndpointSilent,
            Some(entry) if entry.counts().live() > 0 => CallError::NoParkInTime,
            _ => CallError::EndpointAway,
        };
        call.lost_parks().unwrap_or_else(by_endpoint)
    }

    /// Fails the calls that wait in a machine that drains for endpoints that have no park left: no other will come.
    fn fail_stranded(&mut self) {
        if !self.is_draining() {
            return;
        }
        for id in self.registry.stranded() {
            self.fail(id, CallError::Draining);
        }
    }

    pub(crate) fn fail(&mut self, id: CallId, error: CallError) {
        if self.remove_call(id).is_some() {
            self.actions.push(Action::Fail { call: id, error });
        }
    }

    pub(crate) fn remove_call(&mut self, id: CallId) -> Option<Call> {
        let call = self.calls.remove(id)?;
        if call.park.is_none() {
            self.registry.dequeue(&call.endpoint, call.arrival);
        }
        Some(call)
    }

    fn remove_park(&mut self, id: ParkId) -> Option<Park> {
        self.registry.remove(id, self.now)
    }

    fn set_stage(&mut self, park: ParkId, call: CallId, stage: Stage) {
        self.registry.shift(park, self.now, ParkState::Assigned { call, stage });
    }

    fn announce(&mut self) {
        let actions = &mut self.actions;
        self.registry.announce(self.now, |presence| actions.push(Action::Presence(presence)));
    }
}

fn view<'a>((id, entry): (&'a Arc<str>, &'a Endpoint)) -> EndpointView<'a> {
    EndpointView {
        id,
        parks: entry.counts(),
        waiting: entry.waiting.len(),
        instances: entry.instances.parking(),
    }
}
