//! The world: endpoints, callers and connections that behave at random, and what they know.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use zone_pairing::{Action, CallError, CallId, Event, InstanceId, Limits, Machine, ParkId, Presence, Time};

/// How much is set in motion in one world.
const ARRIVALS: usize = 90;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Idle,
    Pinging,
    Offered(CallId),
    Connecting(CallId),
    Answering(CallId),
    Session,
}

#[derive(Debug)]
pub(crate) struct Park {
    pub(crate) endpoint: Arc<str>,
    pub(crate) instance: InstanceId,
    pub(crate) phase: Phase,
    pub(crate) since: Time,
    pub(crate) proved: Time,
}

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) endpoint: Arc<str>,
    pub(crate) deadline: Time,
    pub(crate) tries: u32,
    pub(crate) park: Option<ParkId>,
    /// Its park was lost after the first byte; it must fail at once.
    pub(crate) doomed: bool,
}

/// What is going to happen.
enum Plan {
    Send(Event),
    TakeUp(ParkId),
    /// A new park, a new call or a disturbance.
    Arrival,
}

pub(crate) struct World {
    pub(crate) machine: Machine,
    pub(crate) now: Time,
    pub(crate) parks: BTreeMap<ParkId, Park>,
    pub(crate) calls: BTreeMap<CallId, Call>,
    pub(crate) present: BTreeSet<Arc<str>>,
    /// When the drain is over, if there is one.
    pub(crate) drained: Option<Time>,
    pub(crate) trace: Vec<String>,
    /// The labels of all that was ordered.
    pub(crate) seen: BTreeSet<&'static str>,
    rng: ChaCha8Rng,
    plans: BTreeMap<(Time, u64), Plan>,
    ids: u64,
    /// Milliseconds by which ticks are late at most.
    lateness: u64,
    endpoints: Vec<Arc<str>>,
    instances: InstanceId,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let limits = Limits {
            parks_per_endpoint: rng.random_range(1..6),
            per_endpoint_sessions: if rng.random_bool(0.3) { rng.random_range(1..5) } else { 0 },
            waiting_per_endpoint: rng.random_range(1..5),
            waiting_total: rng.random_range(2..8),
            endpoints: rng.random_range(2..6),
            attempts: rng.random_range(1..4),
            settle: Duration::from_secs(rng.random_range(0..20)),
            ..Limits::default()
        };
        let start = Duration::from_secs(rng.random_range(0..1000));
        let mut world = Self {
            machine: Machine::new(start, limits),
            now: start,
            parks: BTreeMap::new(),
            calls: BTreeMap::new(),
            present: BTreeSet::new(),
            drained: None,
            trace: Vec::new(),
            seen: BTreeSet::new(),
            plans: BTreeMap::new(),
            ids: 0,
            lateness: if rng.random_bool(0.25) { 3000 } else { 0 },
            endpoints: (0..rng.random_range(1..6)).map(|i| format!("endpoint-{i}").into()).collect(),
            instances: if rng.random_bool(0.3) { 3 } else { 1 },
            rng,
        };
        let pace = world.rng.random_range(500..5000);
        let mut at = 0;
        for _ in 0..ARRIVALS {
            at += world.rng.random_range(0..pace);
            world.plan(at, Plan::Arrival);
        }
        world
    }

    /// Lets everything planned happen, ticking whenever the machine asks for it.
    pub(crate) fn run(&mut self) {
        while let Some((&(at, _), _)) = self.plans.first_key_value() {
            if self.tick_before(at) {
                continue;
            }
            let Some((_, plan)) = self.plans.pop_first() else { break };
            self.now = self.now.max(at);
            match plan {
                Plan::Send(event) => self.send(&event),
                Plan::TakeUp(park) => self.take_up(park),
                Plan::Arrival => self.arrive(),
            }
        }
    }

    /// Ends all connections and all callers, and lets time pass until nothing is left.
    pub(crate) fn end(&mut self) {
        for call in self.calls.keys().copied().collect::<Vec<_>>() {
            self.send(&Event::CallGone { call });
        }
        for park in self.parks.keys().copied().collect::<Vec<_>>() {
            self.send(&Event::ParkGone { park, clean: true });
        }
        while let Some(next) = self.machine.next_deadline() {
            self.now = next;
            self.send(&Event::Tick);
        }
        assert_eq!(self.machine.counts(), zone_pairing::Counts::default(), "something leaked");
        assert_eq!(self.machine.parks().count() + self.machine.endpoints().len(), 0);
    }

    fn tick_before(&mut self, at: Time) -> bool {
        let Some(next) = self.machine.next_deadline().filter(|next| *next <= at) else { return false };
        let late = Duration::from_millis(self.rng.random_range(0..=self.lateness));
        self.now = self.now.max((next + late).min(at));
        self.send(&Event::Tick);
        true
    }

    fn arrive(&mut self) {
        let endpoint = self.endpoints[self.rng.random_range(0..self.endpoints.len())].clone();
        match self.rng.random_range(0..100) {
            0..45 => self.arrive_park(endpoint),
            45..88 => self.arrive_call(endpoint),
            88..97 => self.stray(),
            97 => self.send(&Event::Revoke { endpoint }),
            98 => self.send(&Event::RevokeInstance { endpoint, instance: 0 }),
            _ if self.drained.is_some() => self.send(&Event::Release { endpoint }),
            _ if self.rng.random_bool(0.3) => {
                let over = Duration::from_millis(self.rng.random_range(0..60_000));
                self.send(&Event::Drain { over });
            }
            _ => {}
        }
    }

    fn arrive_park(&mut self, endpoint: Arc<str>) {
        let park = ParkId(self.new_id());
        let instance = self.rng.random_range(0..self.instances);
        if self.rng.random_bool(0.5) {
            let at = self.rng.random_range(0..100_000);
            let clean = self.rng.random_bool(0.5);
            self.plan(at, Plan::Send(Event::ParkGone { park, clean }));
        }
        self.send(&Event::Parked { park, endpoint, instance });
    }

    fn arrive_call(&mut self, endpoint: Arc<str>) {
        let call = CallId(self.new_id());
        let within = self.rng.random_range(0..30_000);
        if self.rng.random_bool(0.2) {
            let at = self.rng.random_range(0..8000);
            self.plan(at, Plan::Send(Event::CallGone { call }));
        }
        self.send(&Event::Called { call, endpoint, deadline: self.now + Duration::from_millis(within) });
    }

    /// Something out of turn, about anything that is, was or never will be.
    fn stray(&mut self) {
        let id = self.rng.random_range(0..self.ids + 2);
        let park = ParkId(id);
        match self.rng.random_range(0..10) {
            0 => self.send(&Event::Pong { park }),
            1 => self.send(&Event::Unexpected { park }),
            2 => self.send(&Event::ParkGone { park, clean: false }),
            3 => self.send(&Event::CallGone { call: CallId(id) }),
            4 => self.send(&Event::FirstByte { park }),
            5 => self.send(&Event::Accepted { park }),
            6 => self.send(&Event::Refused { park, status: 500 }),
            7 => self.send(&Event::SessionEnded { park }),
            8 => {
                let endpoint = self.endpoints[self.rng.random_range(0..self.endpoints.len())].clone();
                let within = Duration::from_millis(self.rng.random_range(0..90_000));
                self.send(&Event::Expected { endpoint, within });
            }
            _ => self.send(&Event::RevokePark { park }),
        }
    }

    fn send(&mut self, event: &Event) {
        while self.machine.next_deadline().is_some_and(|next| next <= self.now) && *event != Event::Tick {
            self.send(&Event::Tick);
        }
        let actions = self.machine.handle(self.now, event.clone());
        self.trace.push(format!("{:?} {event:?} -> {actions:?}", self.now));
        self.note(event);
        for action in &actions {
            self.check(event, action);
            self.carry_out(action);
            self.seen.insert(label(action));
        }
        self.check_all(event);
    }

    fn take_up(&mut self, id: ParkId) {
        let taken = self.machine.take_up(self.now, id);
        self.trace.push(format!("{:?} take_up {id:?} -> {taken:?}", self.now));
        let offered = self.parks.get_mut(&id).filter(|park| matches!(park.phase, Phase::Offered(_)));
        let Some(call) = taken else {
            let overdue = self.machine.next_deadline().is_some_and(|next| next <= self.now);
            assert!(offered.is_none() || overdue, "an assignment was not to be taken up");
            return;
        };
        let park = offered.expect("a park took something up that had no offer");
        assert_eq!(park.phase, Phase::Offered(call));
        assert!(self.calls[&call].deadline > self.now, "taken up after its deadline");
        assert!(park.since + self.machine.limits().first_byte_within > self.now, "taken up too late");
        park.phase = Phase::Connecting(call);
        park.since = self.now;
        let (soon, later) = (self.rng.random_range(0..4000), self.rng.random_range(0..12_000));
        let first = Event::FirstByte { park: id };
        let last = if self.rng.random_bool(0.8) {
            Event::Accepted { park: id }
        } else {
            Event::Refused { park: id, status: 404 }
        };
        match self.rng.random_range(0..10) {
            0 => {}
            1 => self.plan(soon, Plan::Send(Event::ParkGone { park: id, clean: false })),
            2 => {
                self.plan(soon, Plan::Send(first));
                self.plan(soon + later, Plan::Send(Event::ParkGone { park: id, clean: false }));
            }
            3 => self.plan(soon, Plan::Send(last)),
            _ => {
                self.plan(soon, Plan::Send(first));
                self.plan(soon + later, Plan::Send(last));
            }
        }
    }

    /// What the world itself knows about an event.
    fn note(&mut self, event: &Event) {
        let now = self.now;
        match event {
            Event::Parked { park, endpoint, instance } => {
                let (endpoint, instance) = (endpoint.clone(), *instance);
                self.parks
                    .insert(*park, Park { endpoint, instance, phase: Phase::Idle, since: now, proved: now });
            }
            Event::Pong { park } => {
                if let Some(park) = self.parks.get_mut(park).filter(|park| park.phase == Phase::Pinging) {
                    (park.phase, park.since, park.proved) = (Phase::Idle, now, now);
                }
            }
            Event::ParkGone { park, .. } | Event::SessionEnded { park } => self.lose(*park),
            Event::Called { call, endpoint, deadline } => {
                let (endpoint, deadline) = (endpoint.clone(), *deadline);
                self.calls.insert(*call, Call { endpoint, deadline, tries: 0, park: None, doomed: false });
            }
            Event::CallGone { call } => self.end_call(*call),
            Event::FirstByte { park } => {
                if let Some(park) = self.parks.get_mut(park)
                    && let Phase::Connecting(call) = park.phase
                {
                    (park.phase, park.since) = (Phase::Answering(call), now);
                }
            }
            Event::Drain { over } => self.drained = Some(now + *over),
            _ => {}
        }
    }

    fn carry_out(&mut self, action: &Action) {
        match action {
            Action::Ping { park } => {
                self.enter(*park, Phase::Pinging);
                if self.rng.random_bool(0.9) {
                    let at = self.rng.random_range(0..10_500);
                    self.plan(at, Plan::Send(Event::Pong { park: *park }));
                }
            }
            Action::Close { park, .. } => self.lose(*park),
            Action::Assign { park, call } => {
                self.enter(*park, Phase::Offered(*call));
                let assigned = self.calls.get_mut(call).expect("checked");
                assigned.tries += 1;
                assigned.park = Some(*park);
                let at = if self.rng.random_bool(0.8) { 20 } else { 4000 };
                let at = self.rng.random_range(0..at);
                self.plan(at, Plan::TakeUp(*park));
            }
            Action::Fail { call, .. } => self.end_call(*call),
            Action::Join { park, call } => {
                self.calls.remove(call);
                self.enter(*park, Phase::Session);
                let at = self.rng.random_range(0..60_000);
                self.plan(at, Plan::Send(Event::SessionEnded { park: *park }));
            }
            Action::Presence(_) | Action::Cloned { .. } | Action::Want { .. } => {}
        }
    }

    fn enter(&mut self, park: ParkId, phase: Phase) {
        let park = self.parks.get_mut(&park).expect("checked");
        (park.phase, park.since) = (phase, self.now);
    }

    fn lose(&mut self, park: ParkId) {
        let Some(park) = self.parks.remove(&park) else { return };
        if let Phase::Offered(call) | Phase::Connecting(call) | Phase::Answering(call) = park.phase
            && let Some(call) = self.calls.get_mut(&call)
        {
            call.park = None;
            call.doomed = matches!(park.phase, Phase::Answering(_));
        }
    }

    fn end_call(&mut self, id: CallId) {
        if let Some(Call { park: Some(park), .. }) = self.calls.remove(&id)
            && let Some(park) = self.parks.get_mut(&park)
            && park.phase == Phase::Offered(id)
        {
            (park.phase, park.since) = (Phase::Idle, self.now);
        }
    }

    fn new_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    fn plan(&mut self, in_millis: u64, plan: Plan) {
        let number = self.new_id();
        self.plans.insert((self.now + Duration::from_millis(in_millis), number), plan);
    }
}

fn label(action: &Action) -> &'static str {
    match action {
        Action::Ping { .. } => "Ping",
        Action::Close { reason, .. } => reason.label(),
        Action::Assign { .. } => "Assign",
        Action::Fail { error: CallError::AnswerTimeout, .. } => "Fail answer_timeout",
        Action::Fail { error: CallError::Draining, .. } => "Fail draining",
        Action::Fail { error, .. } => error.label(),
        Action::Join { .. } => "Join",
        Action::Presence(Presence::Joined { .. }) => "Joined",
        Action::Presence(Presence::Left { .. }) => "Left",
        Action::Presence(Presence::Changed { .. }) => "Changed",
        Action::Cloned { .. } => "Cloned",
        Action::Want { .. } => "Want",
    }
}
