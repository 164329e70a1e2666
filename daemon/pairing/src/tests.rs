//! Every rule, through the public interface.

mod bounds;
mod drain;
mod instances;
mod liveness;
mod pairing;
mod presence;
mod reasons;
mod retries;
mod withdrawal;

use std::{sync::Arc, time::Duration};

use crate::{
    Action, CallError, CallId, CloseReason, Event, InstanceId, Limits, Machine, ParkId, ParkState, Time,
};

const DEADLINE: u64 = 1000;

/// A machine that has settled, with its clock in milliseconds.
struct Bench {
    machine: Machine,
    now: u64,
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits { settle: Duration::ZERO, ..Limits::default() };
        change(&mut limits);
        Self { machine: Machine::new(Time::ZERO, limits), now: 0 }
    }

    fn at(&mut self, seconds: u64) -> &mut Self {
        self.at_ms(seconds * 1000)
    }

    fn at_ms(&mut self, millis: u64) -> &mut Self {
        self.now = millis;
        self
    }

    /// All actions of an event.
    fn all(&mut self, event: Event) -> Vec<Action> {
        self.machine.handle(Duration::from_millis(self.now), event)
    }

    /// The actions of an event, presence left out.
    fn send(&mut self, event: Event) -> Vec<Action> {
        let mut actions = self.all(event);
        actions.retain(|action| !matches!(action, Action::Presence(_)));
        actions
    }

    fn tick(&mut self) -> Vec<Action> {
        self.send(Event::Tick)
    }

    fn park(&mut self, park: u64, endpoint: &str) -> Vec<Action> {
        self.park_of(park, endpoint, 1)
    }

    fn park_of(&mut self, park: u64, endpoint: &str, instance: InstanceId) -> Vec<Action> {
        self.send(Event::Parked { park: ParkId(park), endpoint: endpoint.into(), instance })
    }

    fn pong(&mut self, park: u64) -> Vec<Action> {
        self.send(Event::Pong { park: ParkId(park) })
    }

    fn gone(&mut self, park: u64) -> Vec<Action> {
        self.send(Event::ParkGone { park: ParkId(park), clean: false })
    }

    fn unexpected(&mut self, park: u64) -> Vec<Action> {
        self.send(Event::Unexpected { park: ParkId(park) })
    }

    fn call(&mut self, call: u64, endpoint: &str) -> Vec<Action> {
        self.call_until(call, endpoint, DEADLINE)
    }

    /// The deadline in seconds.
    fn call_until(&mut self, call: u64, endpoint: &str, deadline: u64) -> Vec<Action> {
        let deadline = Duration::from_secs(deadline);
        self.send(Event::Called { call: CallId(call), endpoint: endpoint.into(), deadline })
    }

    fn call_gone(&mut self, call: u64) -> Vec<Action> {
        self.send(Event::CallGone { call: CallId(call) })
    }

    fn take_up(&mut self, park: u64) -> Option<u64> {
        self.machine.take_up(Duration::from_millis(self.now), ParkId(park)).map(|call| call.0)
    }

    fn first_byte(&mut self, park: u64) -> Vec<Action> {
        self.send(Event::FirstByte { park: ParkId(park) })
    }

    fn accepted(&mut self, park: u64) -> Vec<Action> {
        self.send(Event::Accepted { park: ParkId(park) })
    }

    fn refused(&mut self, park: u64, status: u16) -> Vec<Action> {
        self.send(Event::Refused { park: ParkId(park), status })
    }

    fn ended(&mut self, park: u64) -> Vec<Action> {
        self.send(Event::SessionEnded { park: ParkId(park) })
    }

    fn drain(&mut self, seconds: u64) -> Vec<Action> {
        self.send(Event::Drain { over: Duration::from_secs(seconds) })
    }

    fn release(&mut self, endpoint: &str) -> Vec<Action> {
        self.send(Event::Release { endpoint: endpoint.into() })
    }

    /// For so many seconds.
    fn expected(&mut self, endpoint: &str, within: u64) -> Vec<Action> {
        self.send(Event::Expected { endpoint: endpoint.into(), within: Duration::from_secs(within) })
    }

    fn revoke(&mut self, endpoint: &str) -> Vec<Action> {
        self.send(Event::Revoke { endpoint: endpoint.into() })
    }

    /// Parks, calls and joins, all in one.
    fn session(&mut self, park: u64, call: u64, endpoint: &str) {
        self.park(park, endpoint);
        self.call(call, endpoint);
        assert_eq!(self.take_up(park), Some(call));
        assert_eq!(self.accepted(park), [join(park, call)]);
    }

    fn state(&self, park: u64) -> Option<ParkState> {
        self.machine.park(ParkId(park)).map(|view| view.state)
    }

    /// In milliseconds.
    fn next(&self) -> Option<u128> {
        self.machine.next_deadline().map(|time| time.as_millis())
    }
}

fn ping(park: u64) -> Action {
    Action::Ping { park: ParkId(park) }
}

fn close(park: u64, reason: CloseReason) -> Action {
    Action::Close { park: ParkId(park), reason }
}

fn assign(park: u64, call: u64) -> Action {
    Action::Assign { park: ParkId(park), call: CallId(call) }
}

fn fail(call: u64, error: CallError) -> Action {
    Action::Fail { call: CallId(call), error }
}

fn join(park: u64, call: u64) -> Action {
    Action::Join { park: ParkId(park), call: CallId(call) }
}

fn want(endpoint: &str) -> Action {
    Action::Want { endpoint: name(endpoint) }
}

fn name(endpoint: &str) -> Arc<str> {
    endpoint.into()
}

const NOTHING: [Action; 0] = [];
