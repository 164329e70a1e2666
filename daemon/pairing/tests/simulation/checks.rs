//! What must hold: of every action when it is taken, and of the machine after every event.

use std::{collections::BTreeSet, sync::Arc};

use zone_pairing::{
    Action, CallError, CallId, CloseReason, Event, ParkCounts, ParkId, ParkState, Presence, Stage,
};

use crate::world::{Call, Park, Phase, World};

impl World {
    /// Checks an action against what the world knew right before it.
    pub(crate) fn check(&mut self, event: &Event, action: &Action) {
        match action {
            Action::Ping { park } => {
                let pinged = self.live_park(*park);
                assert_eq!(pinged.phase, Phase::Idle);
                assert!(self.now >= pinged.proved + self.machine.limits().ping_after, "pinged too early");
            }
            Action::Close { park, reason } => self.check_close(event, *park, *reason),
            Action::Assign { park, call } => self.check_assign(*park, *call),
            Action::Fail { call, error } => self.check_fail(event, *call, *error),
            Action::Join { park, call } => {
                assert_eq!(*event, Event::Accepted { park: *park });
                let phase = self.live_park(*park).phase;
                assert!(phase == Phase::Connecting(*call) || phase == Phase::Answering(*call));
                let joined = &self.calls[call];
                assert!(joined.deadline > self.now, "joined after its deadline");
            }
            Action::Cloned { endpoint, older, newer } => {
                assert_ne!(older, newer);
                for instance in [older, newer] {
                    let holds = |park: &Park| {
                        park.endpoint == *endpoint
                            && park.instance == *instance
                            && park.phase != Phase::Session
                    };
                    assert!(self.parks.values().any(holds), "a clone without parks");
                }
            }
            Action::Want { endpoint } => {
                assert!(
                    self.drained.is_none() && !self.is_parked(endpoint),
                    "nobody waits for this endpoint"
                );
                let waits = |call: &Call| call.endpoint == *endpoint && call.park.is_none();
                assert!(self.calls.values().any(waits), "nobody waits for this endpoint");
            }
            Action::Presence(presence) => {
                let fits = match presence {
                    Presence::Joined { endpoint } => self.present.insert(endpoint.clone()),
                    Presence::Left { endpoint } => self.present.remove(endpoint),
                    Presence::Changed { endpoint } => self.present.contains(endpoint),
                };
                assert!(fits, "presence does not follow from what was told before");
            }
        }
    }

    /// Checks the machine and the world against each other.
    pub(crate) fn check_all(&mut self, event: &Event) {
        let counts = self.machine.counts();
        let limits = self.machine.limits();
        if let Some(next) = self.machine.next_deadline() {
            assert!(next > self.now, "a deadline lies in the past");
        }
        assert_eq!(counts.calls, self.calls.len());
        assert_eq!(counts.waiting, self.calls.values().filter(|call| call.park.is_none()).count());
        assert!(counts.endpoints <= limits.endpoints);
        assert_eq!(counts.parks.live(), self.parks.len());
        for (id, call) in &self.calls {
            assert!(call.deadline > self.now, "{id:?} outlived its deadline");
            assert!(!call.doomed, "{id:?} was neither failed nor retried");
        }
        if let Event::Revoke { endpoint } = event {
            assert!(self.machine.endpoint(endpoint).is_none(), "a revoked endpoint is remembered");
        }
        if let Event::Release { endpoint } = event
            && self.drained.is_some()
        {
            let free = |park: &Park| park.endpoint == *endpoint && is_free(park);
            assert!(!self.parks.values().any(free), "a released park is still there");
        }
        if self.drained.is_some() {
            let stranded = |call: &&Call| call.park.is_none() && !self.is_parked(&call.endpoint);
            assert_eq!(
                self.calls.values().filter(stranded).count(),
                0,
                "a call waits where no park comes any more"
            );
        }
        if self.drained.is_some_and(|end| end <= self.now) {
            assert_eq!(counts.parks.idle + counts.parks.pinging, 0, "a drained park is still there");
        }
        let fresh = self.calls.values().filter(|call| call.park.is_none() && call.tries == 0).count();
        assert!(fresh <= limits.waiting_total, "too many waiting calls");
        let mut names: BTreeSet<&Arc<str>> = self.parks.values().map(|park| &park.endpoint).collect();
        assert!(names.iter().copied().eq(&self.present), "presence is not what it was told to be");
        names.extend(self.calls.values().map(|call| &call.endpoint));
        for endpoint in names {
            self.check_endpoint(endpoint, event);
        }
        for view in self.machine.parks() {
            let park = self.live_park(view.park);
            assert_eq!((&park.endpoint, park.instance), (view.endpoint, view.instance));
            let phase = match view.state {
                ParkState::Idle => Phase::Idle,
                ParkState::Pinging => Phase::Pinging,
                ParkState::Assigned { call, stage: Stage::Offered } => Phase::Offered(call),
                ParkState::Assigned { call, stage: Stage::Connecting } => Phase::Connecting(call),
                ParkState::Assigned { call, stage: Stage::Answering } => Phase::Answering(call),
                ParkState::Session { .. } => Phase::Session,
            };
            assert_eq!((phase, view.proved), (park.phase, park.proved), "{:?}", view.park);
        }
    }

    fn check_close(&self, event: &Event, id: ParkId, reason: CloseReason) {
        let park = self.live_park(id);
        let limits = self.machine.limits();
        let silence = self.now.saturating_sub(park.since);
        let fits = match reason {
            CloseReason::Evicted => is_free(park) && matches!(event, Event::Parked { .. }),
            CloseReason::PingTimeout => park.phase == Phase::Pinging && silence >= limits.pong_within,
            CloseReason::Silent => {
                matches!(park.phase, Phase::Offered(_) | Phase::Connecting(_))
                    && silence >= limits.first_byte_within
            }
            CloseReason::AnswerTimeout => match park.phase {
                Phase::Connecting(call) => !self.calls.contains_key(&call),
                Phase::Answering(call) => !self.calls.contains_key(&call) || silence >= limits.answer_within,
                _ => false,
            },
            CloseReason::Protocol => match event {
                Event::Pong { .. } | Event::Unexpected { .. } => true,
                Event::FirstByte { .. } | Event::Accepted { .. } | Event::Refused { .. } => {
                    is_free(park) || matches!(park.phase, Phase::Offered(_))
                }
                _ => false,
            },
            CloseReason::Refused => matches!(event, Event::Refused { .. }),
            CloseReason::Draining => self.drained.is_some() && is_free(park),
            CloseReason::Revoked => {
                matches!(
                    event,
                    Event::Revoke { .. } | Event::RevokeInstance { .. } | Event::RevokePark { .. }
                )
            }
            CloseReason::CallerGone => {
                matches!(park.phase, Phase::Connecting(_) | Phase::Answering(_))
                    && matches!(event, Event::CallGone { .. })
            }
            CloseReason::TooManyEndpoints => {
                matches!(event, Event::Parked { park, .. } if *park == id)
                    && !self.present.contains(&park.endpoint)
            }
        };
        assert!(fits, "{park:?} was closed as {reason:?}");
    }

    fn check_assign(&self, id: ParkId, call: CallId) {
        let park = self.live_park(id);
        let call = self.calls.get(&call).expect("an ended call was assigned");
        assert_eq!(park.phase, Phase::Idle, "a park that is not idle was assigned");
        assert_eq!((call.park, &call.endpoint), (None, &park.endpoint));
        assert!(call.deadline > self.now, "assigned after its deadline");
        assert!(call.tries < self.machine.limits().attempts, "assigned too often");
        for (other, rival) in &self.parks {
            let is_rival = rival.endpoint == park.endpoint
                && rival.instance == park.instance
                && rival.phase == Phase::Idle;
            assert!(!is_rival || (rival.proved, *other) <= (park.proved, id), "{other:?} was proved later");
        }
    }

    fn check_fail(&self, event: &Event, id: CallId, error: CallError) {
        let call = self.calls.get(&id).expect("an ended call failed");
        let phase = call.park.map(|park| self.live_park(park).phase);
        let connected = matches!(phase, Some(Phase::Connecting(_) | Phase::Answering(_)));
        let is_new = matches!(event, Event::Called { call, .. } if *call == id);
        let overdue = call.deadline <= self.now;
        let fits = match error {
            CallError::UnknownEndpoint => {
                let came = self.parks.values().any(|park| park.endpoint == call.endpoint);
                let settled = self.now >= self.machine.limits().settle;
                matches!(event, Event::Revoke { .. })
                    || is_new && !self.present.contains(&call.endpoint)
                    || !came && (settled || overdue)
            }
            CallError::NoParkInTime | CallError::EndpointAway => overdue && !connected,
            CallError::EndpointSilent => overdue || call.park.is_none(),
            CallError::ParksLost => call.tries > 0 && (overdue || call.park.is_none()),
            CallError::RefusedByEndpoint { .. } => connected && matches!(event, Event::Refused { .. }),
            CallError::AnswerTimeout => connected && (overdue || matches!(phase, Some(Phase::Answering(_)))),
            CallError::TooManyWaiting => is_new && self.nothing_idle(&call.endpoint),
            CallError::TooManySessions => is_new && self.machine.limits().per_endpoint_sessions > 0,
            CallError::Draining => {
                self.drained.is_some() && (is_new || call.park.is_none() && !self.is_parked(&call.endpoint))
            }
            CallError::EndpointFailed => call.doomed,
        };
        assert!(fits, "{call:?} failed as {error:?}");
    }

    fn check_endpoint(&self, endpoint: &Arc<str>, event: &Event) {
        let view = self.machine.endpoint(endpoint).expect("an endpoint that is in use is not known");
        let limits = self.machine.limits();
        let mut counts = ParkCounts::default();
        let mut instances = BTreeSet::new();
        for park in self.parks.values().filter(|park| park.endpoint == *endpoint) {
            match park.phase {
                Phase::Idle => counts.idle += 1,
                Phase::Pinging => counts.pinging += 1,
                Phase::Offered(_) | Phase::Connecting(_) | Phase::Answering(_) => counts.assigned += 1,
                Phase::Session => counts.sessions += 1,
            }
            if park.phase != Phase::Session {
                instances.insert(park.instance);
            }
        }
        assert_eq!((view.parks, view.instances), (counts, instances.len()));
        let waiting = self.calls.values().filter(|call| call.endpoint == *endpoint && call.park.is_none());
        let fresh = waiting.clone().filter(|call| call.tries == 0).count();
        assert_eq!(view.waiting, waiting.count());
        assert!(fresh <= limits.waiting_per_endpoint, "too many waiting calls");
        assert!(counts.idle == 0 || view.waiting == 0, "a call waits beside an idle park");
        let sessions = limits.per_endpoint_sessions;
        assert!(
            sessions == 0 || counts.sessions + counts.assigned + view.waiting <= sessions,
            "too many sessions"
        );
        let is_new = matches!(event, Event::Parked { endpoint: new, .. } if new == endpoint);
        let surplus = counts.parks() > limits.parks_per_endpoint && counts.idle + counts.pinging > 1;
        assert!(!is_new || !surplus, "too many parks");
    }

    fn live_park(&self, id: ParkId) -> &Park {
        self.parks.get(&id).expect("an ended park was named")
    }

    /// Whether an endpoint has a connection that is no session.
    fn is_parked(&self, endpoint: &Arc<str>) -> bool {
        self.parks.values().any(|park| park.endpoint == *endpoint && park.phase != Phase::Session)
    }

    fn nothing_idle(&self, endpoint: &Arc<str>) -> bool {
        !self.parks.values().any(|park| park.endpoint == *endpoint && park.phase == Phase::Idle)
    }
}

fn is_free(park: &Park) -> bool {
    matches!(park.phase, Phase::Idle | Phase::Pinging)
}
