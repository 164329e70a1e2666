//! Brings parks and calls together: the pairing state machine with its clock, its mailboxes and its audience.
//!
//! Connections report events and are told what to do through a mailbox that holds one command. All decisions
//! are made by `zone-pairing`; nothing here waits while the lock is held.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, broadcast, oneshot};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;
use zone_log_budget::{LogBudget, within_budget};
use zone_pairing::{
    Action, CallError, CallId, Counts, Event, Machine, ParkCounts, ParkId, ParkState, Presence, Time,
};
use zone_protocol::identity::{Label, Target, printable};
use zone_protocol::provisioning::{EndpointStatus, Endpoints};
use zone_watchdog::Heartbeat;

use crate::mailbox::{Command, Mailbox};
use crate::metrics::Metrics;
use crate::presence::{Change, PresenceEvent};
use crate::wanted::WantedEndpoints;

#[cfg(test)]
mod simulation;

/// What a caller asked for.
#[derive(Debug)]
pub(crate) struct Request {
    /// Endpoint and service.
    pub(crate) target: Target,
    /// The session's id in every log line and on both legs.
    pub(crate) session: Uuid,
    /// The Module Server that asks.
    pub(crate) caller: Label,
}

/// The endpoint's leg, or the reason why there is none, with the endpoint's own words where it gave any.
pub(crate) type Answer<L> = Result<Box<L>, (CallError, Option<String>)>;

/// An answer on its way, with the park that the leg was.
type Sent<L> = Result<(ParkId, Box<L>), (CallError, Option<String>)>;

/// A call that has no answer yet.
struct Waiting<L> {
    request: Arc<Request>,
    answer: oneshot::Sender<Sent<L>>,
    /// The endpoint's own words, should it refuse.
    words: Option<String>,
}

struct State<L> {
    machine: Machine,
    parks: HashMap<ParkId, Arc<Mailbox>>,
    calls: HashMap<CallId, Waiting<L>>,
    addresses: HashMap<Arc<str>, SocketAddr>,
    next: u64,
    sequence: u64,
    deadline: Option<Time>,
}

/// Parks, calls and their pairing. `L` is what an endpoint that accepts hands to its caller: its leg.
pub(crate) struct Switchboard<L> {
    state: Mutex<State<L>>,
    audience: broadcast::Sender<PresenceEvent>,
    boot: String,
    start: Instant,
    earlier: Notify,
    metrics: Arc<Metrics>,
    log_budget: LogBudget,
    /// Endpoints that may be parked at a relay that drains, and that calls wait for here.
    pub(crate) wanted: WantedEndpoints,
}

impl<L> std::fmt::Debug for Switchboard<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Switchboard").field("boot", &self.boot).finish_non_exhaustive()
    }
}

/// A call that is under way. Dropped before its answer, it tells the switchboard that the caller left.
#[derive(Debug)]
pub(crate) struct Call<L> {
    switchboard: Arc<Switchboard<L>>,
    id: CallId,
    answer: oneshot::Receiver<Sent<L>>,
    answered: bool,
}

impl<L> Switchboard<L> {
    /// An empty one. `backlog` is how many presence events a slow reader may lag behind.
    pub(crate) fn new(limits: zone_pairing::Limits, backlog: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                machine: Machine::new(Time::ZERO, limits),
                parks: HashMap::new(),
                calls: HashMap::new(),
                addresses: HashMap::new(),
                next: 0,
                sequence: 0,
                deadline: None,
            }),
            audience: broadcast::Sender::new(backlog.max(1)),
            boot: Uuid::new_v4().simple().to_string(),
            start: Instant::now(),
            earlier: Notify::new(),
            metrics,
            log_budget: LogBudget::default(),
            wanted: WantedEndpoints::default(),
        })
    }

    /// Lets time pass: pings, deadlines, drains. Runs as long as the relay does.
    pub(crate) async fn run(&self, mut heartbeat: Heartbeat) {
        loop {
            let earlier = self.earlier.notified();
            let deadline = self.lock().machine.next_deadline();
            let due = async {
                match deadline {
                    Some(deadline) => sleep_until(self.start + deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => self.report(Event::Tick),
                () = earlier => {}
                () = heartbeat.answer() => {}
            }
        }
    }

    /// New limits, for whatever happens from now on.
    pub(crate) fn set_limits(&self, limits: zone_pairing::Limits) {
        self.lock().machine.set_limits(limits);
        self.earlier.notify_one();
    }

    /// A connection was parked.
    pub(crate) fn park(
        &self,
        endpoint: &Label,
        instance: u128,
        address: SocketAddr,
    ) -> (ParkId, Arc<Mailbox>) {
        let mailbox = Arc::new(Mailbox::default());
        let mut state = self.lock();
        let park = ParkId(state.number());
        state.parks.insert(park, Arc::clone(&mailbox));
        let endpoint = endpoint.shared();
        state.addresses.insert(Arc::clone(&endpoint), address);
        self.step(&mut state, Event::Parked { park, endpoint: Arc::clone(&endpoint), instance });
        if state.machine.endpoint(&endpoint).is_none() {
            state.addresses.remove(&endpoint);
        }
        (park, mailbox)
    }

    /// Something happened that wants no answer.
    pub(crate) fn report(&self, event: Event) {
        let mut state = self.lock();
        if let Event::ParkGone { park, .. } | Event::SessionEnded { park } = &event {
            state.parks.remove(park);
        }
        self.step(&mut state, event);
    }

    /// The call that an assigned park is to serve, or `None` where its caller has left meanwhile.
    pub(crate) fn take_up(&self, park: ParkId) -> Option<Arc<Request>> {
        let mut state = self.lock();
        let call = state.machine.take_up(self.now(), park)?;
        self.watch_deadline(&mut state);
        state.calls.get(&call).map(|waiting| Arc::clone(&waiting.request))
    }

    /// The endpoint accepted: its connection goes to the caller, unless the caller just left.
    pub(crate) fn accepted(&self, park: ParkId, leg: Box<L>) {
        let answer = {
            let mut state = self.lock();
            let call = self.step(&mut state, Event::Accepted { park });
            call.and_then(|call| state.calls.remove(&call))
        };
        // A leg that nobody takes is dropped, which closes it.
        if let Some(Err(_)) | None = answer.map(|waiting| waiting.answer.send(Ok((park, leg)))) {
            self.report(Event::SessionEnded { park });
        }
    }

    /// The endpoint refused, in these words.
    pub(crate) fn refused(&self, park: ParkId, status: u16, words: &str) {
        let mut state = self.lock();
        let assigned = state.machine.park(park).map(|park| park.state);
        if let Some(ParkState::Assigned { call, .. }) = assigned
            && let Some(waiting) = state.calls.get_mut(&call)
        {
            waiting.words = Some(printable(words));
        }
        self.step(&mut state, Event::Refused { park, status });
    }

    /// A caller wants a session within a time.
    pub(crate) fn call(self: &Arc<Self>, request: Arc<Request>, within: Duration) -> Call<L> {
        let (sender, answer) = oneshot::channel();
        let mut state = self.lock();
        let id = CallId(state.number());
        let endpoint = request.target.endpoint.shared();
        state.calls.insert(id, Waiting { request, answer: sender, words: None });
        let deadline = self.now() + within;
        self.step(&mut state, Event::Called { call: id, endpoint, deadline });
        drop(state);
        Call { switchboard: Arc::clone(self), id, answer, answered: false }
    }

    /// Everybody who is there.
    pub(crate) fn endpoints(&self) -> Endpoints {
        let copied = self.copied();
        self.list(copied)
    }

    /// Everybody who is there, and every change from then on.
    pub(crate) fn watch(&self) -> (Endpoints, broadcast::Receiver<PresenceEvent>) {
        let (listed, events) = {
            let state = self.lock();
            (listed(&state), self.audience.subscribe())
        };
        (self.list(listed), events)
    }

    /// The endpoints after this one in order of id, so many at most, each with the time for which it stays known.
    pub(crate) fn known_after(&self, id: &str, most: usize) -> Vec<(Arc<str>, Duration)> {
        let state = self.lock();
        state.machine.known_after(id).take(most).map(|(id, left)| (Arc::clone(id), left)).collect()
    }

    /// Drawn at the start: sequence numbers count from there.
    pub(crate) fn boot(&self) -> &str {
        &self.boot
    }

    /// How much of everything there is.
    pub(crate) fn counts(&self) -> (Counts, usize) {
        let state = self.lock();
        let connected = state.machine.endpoints().filter(|e| e.parks.live() > 0).count();
        (state.machine.counts(), connected)
    }

    /// What the list says, copied while nobody else can touch it.
    fn copied(&self) -> (u64, Vec<Listed>) {
        listed(&self.lock())
    }

    /// Makes the list of what was [`listed`], while parks and calls go on.
    fn list(&self, (sequence, mut listed): (u64, Vec<Listed>)) -> Endpoints {
        listed.sort_by(|a, b| a.id.cmp(&b.id));
        let endpoints = listed.iter().filter_map(Listed::status).collect();
        Endpoints { boot: self.boot.clone(), sequence, endpoints }
    }

    /// The state, whole. Where a task has panicked while it changed it, it is not: then whoever needs it panics too, and
    /// so does [`Switchboard::run`], with which the process ends.
    fn lock(&self) -> MutexGuard<'_, State<L>> {
        match self.state.lock() {
            Ok(state) => state,
            // A guard that reports an end while its task panics must not panic a second time.
            Err(poisoned) if std::thread::panicking() => poisoned.into_inner(),
            Err(poisoned) => panic!("a task panicked while it changed what is known of parks: {poisoned}"),
        }
    }

    fn now(&self) -> Time {
        self.start.elapsed()
    }

    /// Feeds the machine and carries out what it says; returns the call that was joined, if one was.
    fn step(&self, state: &mut State<L>, event: Event) -> Option<CallId> {
        let mut joined = None;
        for action in state.machine.handle(self.now(), event) {
            match action {
                Action::Ping { park } => state.tell(park, Command::Ping),
                Action::Assign { park, .. } => state.tell(park, Command::Assign),
                Action::Close { park, reason } => {
                    self.metrics.park_closed(reason.label());
                    state.tell(park, Command::Close(reason));
                    state.parks.remove(&park);
                }
                Action::Join { call, .. } => joined = Some(call),
                Action::Fail { call, error } => {
                    self.metrics.call_failed(error.label());
                    if let Some(waiting) = state.calls.remove(&call) {
                        // The caller may have left at this very moment.
                        let _ = waiting.answer.send(Err((error, waiting.words)));
                    }
                }
                Action::Want { endpoint } => self.wanted.add(endpoint),
                Action::Presence(presence) => self.announce(state, presence),
                Action::Cloned { endpoint, older, newer } => {
                    self.metrics.cloned();
                    within_budget!(
                        self.log_budget,
                        "cloned",
                        warn!(
                            %endpoint,
                            older = format!("{older:032x}"),
                            newer = format!("{newer:032x}"),
                            "two programs are connected under one endpoint id, probably a cloned image: the newer one is used; issue a certificate of its own to each machine"
                        )
                    );
                }
            }
        }
        self.watch_deadline(state);
        joined
    }

    fn announce(&self, state: &mut State<L>, presence: Presence) {
        let (change, endpoint) = match presence {
            Presence::Joined { endpoint } => (Change::Joined, endpoint),
            Presence::Left { endpoint } => (Change::Left, endpoint),
            Presence::Changed { endpoint } => (Change::Changed, endpoint),
        };
        state.sequence += 1;
        let status = listed_as(state, &endpoint).status();
        // It may have parked again before its last park's end was noticed.
        if state.machine.endpoint(&endpoint).is_none_or(|view| view.parks.live() == 0) {
            state.addresses.remove(&endpoint);
        }
        let Some(status) = status else { return };
        let event = PresenceEvent { sequence: state.sequence, change, endpoint: Arc::new(status) };
        // Nobody may be listening.
        let _ = self.audience.send(event);
    }

    fn watch_deadline(&self, state: &mut State<L>) {
        let next = state.machine.next_deadline();
        let earlier = match (next, state.deadline) {
            (Some(next), Some(watched)) => next < watched,
            (Some(_), None) => true,
            (None, _) => false,
        };
        state.deadline = next;
        if earlier {
            self.earlier.notify_one();
        }
    }
}

impl<L> State<L> {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn tell(&self, park: ParkId, command: Command) {
        if let Some(mailbox) = self.parks.get(&park) {
            mailbox.put(command);
        }
    }
}

/// What the list of endpoints says of one, as it is copied while nobody else can touch it.
struct Listed {
    id: Arc<str>,
    address: Option<SocketAddr>,
    parks: ParkCounts,
    instances: usize,
}

impl Listed {
    fn status(&self) -> Option<EndpointStatus> {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Some(EndpointStatus {
            id: self.id.parse().ok()?,
            address: self.address.map(|address| address.ip().to_string()).unwrap_or_default(),
            idle: count(self.parks.idle),
            busy: count(self.parks.pinging + self.parks.assigned),
            sessions: count(self.parks.sessions),
            instances: count(self.instances),
        })
    }
}

/// Everybody who is there, and the number of the last event before that.
fn listed<L>(state: &State<L>) -> (u64, Vec<Listed>) {
    let known = state.machine.endpoints();
    let mut there = Vec::with_capacity(known.len());
    there.extend(known.filter(|view| view.parks.live() > 0).map(|view| Listed {
        id: Arc::clone(view.id),
        address: state.addresses.get(view.id).copied(),
        parks: view.parks,
        instances: view.instances,
    }));
    (state.sequence, there)
}

fn listed_as<L>(state: &State<L>, id: &Arc<str>) -> Listed {
    let (parks, instances) =
        state.machine.endpoint(id).map(|view| (view.parks, view.instances)).unwrap_or_default();
    Listed { id: Arc::clone(id), address: state.addresses.get(id).copied(), parks, instances }
}

impl<L> Call<L> {
    /// Waits for the endpoint's connection, or for the reason why there is none, with the endpoint's own words
    /// where it gave any. Can be cancelled and called again.
    pub(crate) async fn answer(&mut self) -> Answer<L> {
        let answer = (&mut self.answer).await;
        self.answered = true;
        // The sender goes only with an answer, or with the whole switchboard.
        answer.unwrap_or(Err((CallError::Draining, None))).map(|(_, leg)| leg)
    }
}

impl<L> Drop for Call<L> {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        let leg = {
            let mut state = self.switchboard.lock();
            state.calls.remove(&self.id);
            self.switchboard.step(&mut state, Event::CallGone { call: self.id });
            drop(state);
            // Closed first, so that an endpoint that accepts at this very moment finds nobody and keeps its leg.
            self.answer.close();
            self.answer.try_recv()
        };
        // The answer came and nobody looked at it: the session ends before it began.
        if let Ok(Ok((park, _leg))) = leg {
            self.switchboard.report(Event::SessionEnded { park });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;

    use super::*;

    type Board = Switchboard<()>;

    fn board(limits: zone_pairing::Limits) -> Arc<Board> {
        Switchboard::new(limits, 8, Arc::new(Metrics::new()))
    }

    #[tokio::test]
    async fn after_a_panic_in_the_middle_of_a_change_nobody_goes_on_as_if_it_were_whole() {
        let board = board(zone_pairing::Limits::default());
        let broken = Arc::clone(&board);
        let changing = std::thread::spawn(move || {
            let _state = broken.lock();
            panic!("in the middle of a change");
        });
        assert!(changing.join().is_err());
        let board = AssertUnwindSafe(board);
        assert!(std::panic::catch_unwind(|| board.endpoints()).is_err());
        let watchdog = zone_watchdog::Watchdog::new();
        let (run, heartbeat) = (Arc::clone(&board), watchdog.register("switchboard"));
        let clock = tokio::spawn(async move { run.run(heartbeat).await });
        assert!(clock.await.unwrap_err().is_panic(), "the task that stands for the process ends");
    }

    /// Prints how long nobody else can touch parks and calls for it.
    #[tokio::test]
    async fn the_list_of_ten_thousand_endpoints_is_whole_and_in_order() {
        const ENDPOINTS: usize = 10_000;
        let board = board(zone_pairing::Limits::default());
        for number in (0..ENDPOINTS).rev() {
            let id: Label = format!("host-{number:05}").parse().unwrap();
            board.park(&id, 1, "192.0.2.7:4242".parse().unwrap());
        }
        let under_the_lock = || {
            let begin = Instant::now();
            (board.copied(), begin.elapsed())
        };
        // The machine may be busy with something else.
        let locked = (0..10).map(|_| under_the_lock().1).min().unwrap();
        let (copied, begin) = (board.copied(), Instant::now());
        let list = board.list(copied);
        let (built, begin) = (begin.elapsed(), Instant::now());
        let text = serde_json::to_string(&list).unwrap();
        let written = begin.elapsed();
        println!(
            "{ENDPOINTS} endpoints: under the lock {locked:?}, then listed in {built:?} and written in {written:?}"
        );
        assert_eq!(list.endpoints.len(), ENDPOINTS);
        assert!(list.endpoints.is_sorted_by(|a, b| a.id < b.id));
        assert_eq!(text.matches("\"id\"").count(), ENDPOINTS);
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_parks_again_before_its_lost_park_is_noticed_keeps_its_address() {
        let limits = zone_pairing::Limits {
            ping_after: Duration::from_secs(1),
            pong_within: Duration::from_secs(1),
            ..zone_pairing::Limits::default()
        };
        let board = board(limits);
        let (id, address): (Label, SocketAddr) =
            ("host-7".parse().unwrap(), "192.0.2.7:4242".parse().unwrap());
        board.park(&id, 1, address);
        tokio::time::advance(Duration::from_secs(1)).await;
        board.report(Event::Tick);
        // Nobody looks at the clock in between: the ping is overdue when the next park comes.
        tokio::time::advance(Duration::from_secs(9)).await;
        board.park(&id, 1, address);
        let list = board.endpoints().endpoints;
        assert_eq!((list.len(), list[0].address.as_str()), (1, "192.0.2.7"));
    }
}
