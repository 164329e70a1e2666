//! What is due when: calls past their deadline, silent parks, parks let go by a drain, endpoints
//! to forget.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    Action, CallError, CallId, CloseReason, Machine, ParkId, ParkState, Stage, Time, drain::Drain,
    endpoint::Endpoint,
};

enum Due {
    Call(CallId),
    Park(ParkId),
    Release,
    Forget,
}

impl Machine {
    /// When [`Event::Tick`](crate::Event::Tick) has something to do if nothing else happens first.
    /// Lies after the time of the last event.
    pub fn next_deadline(&self) -> Option<Time> {
        self.first_due().map(|(time, _)| time)
    }

    /// Deals with everything that is due, in the order in which it became due.
    pub(crate) fn expire(&mut self) {
        while let Some((time, due)) = self.first_due()
            && time <= self.now
        {
            match due {
                Due::Call(call) => self.call_overdue(call),
                Due::Park(park) => self.park_overdue(park),
                Due::Release => self.release_one(),
                Due::Forget => {
                    self.registry.forget_first();
                }
            }
        }
    }

    /// Plans to let all parks without a call go until `end`.
    pub(crate) fn begin_drain(&mut self, end: Time) {
        let queue = if let Some(drain) = self.drain.take() {
            drain.into_queue()
        } else {
            self.registry.touch_waited_for();
            self.in_order_of_release()
        };
        self.drain = Some(Drain::new(end, queue));
        self.plan_release();
    }

    /// Lets all parks without a call of one endpoint go, if the machine drains.
    pub(crate) fn release(&mut self, endpoint: &str) {
        if !self.is_draining() {
            return;
        }
        let free: Vec<_> =
            self.registry.endpoint(endpoint).map(Endpoint::free).into_iter().flatten().collect();
        for park in free {
            self.close(park, CloseReason::Draining);
        }
        self.plan_release();
    }

    /// The parks without a call: first one of each endpoint, then another one of each, and so on.
    fn in_order_of_release(&self) -> VecDeque<ParkId> {
        let mut ranks: BTreeMap<&str, u32> = BTreeMap::new();
        let free = self.registry.parks().filter(|(_, park)| is_free(park.state));
        let mut order: Vec<_> = free
            .map(|(id, park)| {
                let rank = ranks.entry(&park.endpoint).or_default();
                *rank += 1;
                (*rank, id)
            })
            .collect();
        order.sort_unstable();
        order.into_iter().map(|(_, id)| id).collect()
    }

    /// Has a park that came back from its call let go as well, if the machine drains.
    pub(crate) fn drain_returned(&mut self, park: ParkId) {
        if let Some(drain) = &mut self.drain {
            drain.add(park);
            if drain.next().is_none() {
                self.plan_release();
            }
        }
    }

    fn first_due(&self) -> Option<(Time, Due)> {
        let call = self.calls.first_due().map(|(time, call)| (time, Due::Call(call)));
        let park = self.registry.first_due().map(|(time, park)| (time, Due::Park(park)));
        let release = self.drain.as_ref().and_then(Drain::next).map(|time| (time, Due::Release));
        let forget = self.registry.first_forgetting().map(|time| (time, Due::Forget));
        [call, park, release, forget].into_iter().flatten().min_by_key(|(time, _)| *time)
    }

    fn call_overdue(&mut self, id: CallId) {
        let Some((known, early)) = self
            .calls
            .get(id)
            .map(|call| (self.registry.knows(&call.endpoint, self.now), call.deadline < call.last))
        else {
            return;
        };
        if known && early {
            return self.calls.postpone(id);
        }
        let Some(call) = self.remove_call(id) else { return };
        let error = match (self.connect_sent(&call), known) {
            (true, _) => CallError::AnswerTimeout,
            (false, true) => self.unserved(&call),
            (false, false) => CallError::UnknownEndpoint,
        };
        self.actions.push(Action::Fail { call: id, error });
        self.free_park_of(&call, CloseReason::AnswerTimeout);
    }

    fn park_overdue(&mut self, id: ParkId) {
        let Some(park) = self.registry.park(id) else { return };
        match park.state {
            ParkState::Idle => {
                self.registry.shift(id, self.now, ParkState::Pinging);
                self.actions.push(Action::Ping { park: id });
            }
            ParkState::Pinging => self.close(id, CloseReason::PingTimeout),
            ParkState::Assigned { call, stage: Stage::Answering } => {
                self.fail(call, CallError::AnswerTimeout);
                self.close(id, CloseReason::AnswerTimeout);
            }
            ParkState::Assigned { .. } | ParkState::Session { .. } => self.close(id, CloseReason::Silent),
        }
    }

    fn release_one(&mut self) {
        while let Some(id) = self.drain.as_mut().and_then(Drain::pop) {
            if self.registry.park(id).is_some_and(|park| is_free(park.state)) {
                self.close(id, CloseReason::Draining);
                break;
            }
        }
        self.plan_release();
    }

    fn plan_release(&mut self) {
        let totals = self.registry.totals();
        if let Some(drain) = &mut self.drain {
            drain.plan(self.now, totals.idle + totals.pinging);
        }
    }
}

fn is_free(state: ParkState) -> bool {
    matches!(state, ParkState::Idle | ParkState::Pinging)
}
