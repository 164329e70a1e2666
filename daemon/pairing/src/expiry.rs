//! What is due when: calls past their deadline, silent parks, parks let go by a drain, endpoints
//! to forget.

use crate::{
    Action, CallError, CallId, CloseReason, Machine, ParkId, ParkState, Stage, Time, drain::Drain, park::Park,
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
        let free = |(id, park): (ParkId, &Park)| is_free(park.state).then_some(id);
        let queue = match self.drain.take() {
            Some(drain) => drain.into_queue(),
            None => self.registry.parks().filter_map(free).collect(),
        };
        self.drain = Some(Drain::new(end, queue));
        self.plan_release();
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
