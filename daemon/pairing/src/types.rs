//! What goes in and out of a machine: ids, events, actions and views.

use std::{sync::Arc, time::Duration};

use crate::{CallError, CloseReason};

/// A moment, as the time since an arbitrary start that is the same for all events of a machine.
pub type Time = Duration;

/// Tells two processes apart that run under one endpoint id, as the clones of an image do.
pub type InstanceId = u128;

/// A parked connection. Chosen by the shell, in ascending order, and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParkId(pub u64);

/// A caller's wish for a session. Chosen by the shell and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// Where a park is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParkState {
    /// Ready for a call.
    Idle,
    /// Owes the answer to a ping, and gets no call until then.
    Pinging,
    /// Has been given a call.
    Assigned {
        /// The call it serves.
        call: CallId,
        /// How far it has come.
        stage: Stage,
    },
    /// Carries a session, its last state.
    Session {
        /// The call the session was set up for.
        call: CallId,
    },
}

/// How far an assigned park has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Its connection has not taken the assignment up; the park can still go back unharmed.
    Offered,
    /// CONNECT was sent, and no byte of the answer has come.
    Connecting,
    /// The answer has begun; the call is not retried any more.
    Answering,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A connection was parked.
    Parked {
        /// The new park.
        park: ParkId,
        /// The endpoint that dialled in.
        endpoint: Arc<str>,
        /// Which of the processes under that id.
        instance: InstanceId,
    },
    /// A park answered a ping. Closes a park that owes none.
    Pong {
        /// The park.
        park: ParkId,
    },
    /// A park sent bytes nobody asked for, or malformed ones.
    Unexpected {
        /// The park.
        park: ParkId,
    },
    /// A park's connection ended without the machine's doing, in whichever state.
    ParkGone {
        /// The park.
        park: ParkId,
        /// Whether the peer took its leave. Makes no difference to the pairing.
        clean: bool,
    },
    /// A caller wants a session.
    Called {
        /// The new call.
        call: CallId,
        /// The endpoint it wants.
        endpoint: Arc<str>,
        /// When it must have its session, at the latest.
        deadline: Time,
    },
    /// A caller left before it had its session.
    CallGone {
        /// The call.
        call: CallId,
    },
    /// The first byte of a park's answer to CONNECT was read.
    FirstByte {
        /// The park.
        park: ParkId,
    },
    /// A park's answer was read to the end of its head, with a 2xx status.
    Accepted {
        /// The park.
        park: ParkId,
    },
    /// The same, with any other status.
    Refused {
        /// The park.
        park: ParkId,
        /// The HTTP status.
        status: u16,
    },
    /// A session ended, and its connections with it.
    SessionEnded {
        /// The park that carried it.
        park: ParkId,
    },
    /// An endpoint lost its access: its connections are closed, its calls fail as
    /// [`CallError::UnknownEndpoint`], and it is forgotten at once.
    Revoke {
        /// The endpoint.
        endpoint: Arc<str>,
    },
    /// One instance of an endpoint is to go: its connections are closed. Calls that had no answer
    /// yet are retried on the parks of other instances.
    RevokeInstance {
        /// The endpoint.
        endpoint: Arc<str>,
        /// The instance.
        instance: InstanceId,
    },
    /// One park or session is to go.
    RevokePark {
        /// The park.
        park: ParkId,
    },
    /// From now on new calls and new parks are refused, and the parks without a call are let go
    /// evenly over the given time: first one of each endpoint, so that every endpoint is soon parked
    /// elsewhere, then a second one of each, and so on, each time in order of arrival. Sessions stay,
    /// and waiting calls are served by parks that become idle; those of endpoints without parks fail
    /// as [`CallError::Draining`]. Once more sets a new time.
    Drain {
        /// Time from now to the end of the last park; zero lets all of them go at once.
        over: Duration,
    },
    /// Whoever takes the machine's place has a call for an endpoint: a machine that drains lets all of
    /// its parks without a call go at once. Any other ignores it.
    Release {
        /// The endpoint.
        endpoint: Arc<str>,
    },
    /// An endpoint was known to the machine whose place this one takes, and may come: calls wait for it as if it had been
    /// here. Nobody else is forgotten for it.
    Expected {
        /// The endpoint.
        endpoint: Arc<str>,
        /// For how long; at most [`Limits::remember_endpoint`](crate::Limits::remember_endpoint).
        within: Duration,
    },
    /// Time passed.
    Tick,
}

/// What the shell is to do. The actions of one event are meant to be carried out in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send a ping on a park.
    Ping {
        /// The park.
        park: ParkId,
    },
    /// Close a park's connection, and its session if it has one. The park has ended.
    Close {
        /// The park.
        park: ParkId,
        /// What made the machine end it.
        reason: CloseReason,
    },
    /// Have a park's connection call [`Machine::take_up`](crate::Machine::take_up).
    Assign {
        /// The park.
        park: ParkId,
        /// The call it is to serve.
        call: CallId,
    },
    /// Tell the caller that there is no session. The call has ended.
    Fail {
        /// The call.
        call: CallId,
        /// What kept it from getting a session.
        error: CallError,
    },
    /// Join a park's connection and the caller's to a session. The call has ended.
    Join {
        /// The park.
        park: ParkId,
        /// The call.
        call: CallId,
    },
    /// Have whoever drains, and may hold parks of this endpoint, let them go at once: a call waits for it
    /// here, and the machine has not settled.
    Want {
        /// The endpoint.
        endpoint: Arc<str>,
    },
    /// Tell whoever watches endpoints. Compares before and after an event: what an event takes
    /// away and makes up for is not told.
    Presence(Presence),
    /// Two live instances under one endpoint id have parks. Told once per instance; the newer one
    /// is preferred for calls.
    Cloned {
        /// The endpoint.
        endpoint: Arc<str>,
        /// The instance seen earlier.
        older: InstanceId,
        /// The instance seen later.
        newer: InstanceId,
    },
}

/// A change in who is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// An endpoint has its first connection, park or session.
    Joined {
        /// The endpoint.
        endpoint: Arc<str>,
    },
    /// An endpoint has no connection any more.
    Left {
        /// The endpoint.
        endpoint: Arc<str>,
    },
    /// The number of its parks or of its sessions is another one.
    Changed {
        /// The endpoint.
        endpoint: Arc<str>,
    },
}

/// Connections by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ParkCounts {
    /// Parks ready for a call.
    pub idle: usize,
    /// Parks that owe a pong.
    pub pinging: usize,
    /// Parks that have been given a call.
    pub assigned: usize,
    /// Connections that carry a session.
    pub sessions: usize,
}

impl ParkCounts {
    /// Parks in the sense of [`Limits::parks_per_endpoint`](crate::Limits::parks_per_endpoint):
    /// everything but sessions.
    pub fn parks(&self) -> usize {
        self.idle + self.pinging + self.assigned
    }

    /// Live connections: parks and sessions.
    pub fn live(&self) -> usize {
        self.parks() + self.sessions
    }

    pub(crate) fn of(&mut self, state: ParkState) -> &mut usize {
        match state {
            ParkState::Idle => &mut self.idle,
            ParkState::Pinging => &mut self.pinging,
            ParkState::Assigned { .. } => &mut self.assigned,
            ParkState::Session { .. } => &mut self.sessions,
        }
    }
}

/// The sizes of a machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Endpoints that are connected, remembered or waited for.
    pub endpoints: usize,
    /// All endpoints' connections.
    pub parks: ParkCounts,
    /// Calls that have neither their session nor an error.
    pub calls: usize,
    /// Those of them that have no park.
    pub waiting: usize,
}

/// An endpoint as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointView<'a> {
    /// Its id.
    pub id: &'a Arc<str>,
    /// Its connections; none at all when it is only remembered or waited for.
    pub parks: ParkCounts,
    /// Calls that wait for one of its parks.
    pub waiting: usize,
    /// Instances that hold parks; sessions that outlive their instance's parks do not count.
    pub instances: usize,
}

/// A park as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkView<'a> {
    /// Its id.
    pub park: ParkId,
    /// Whose it is.
    pub endpoint: &'a Arc<str>,
    /// Which of the processes under that id.
    pub instance: InstanceId,
    /// Where it is in its life.
    pub state: ParkState,
    /// When it came to that state.
    pub since: Time,
    /// When it last proved itself alive as a park: its arrival or its last pong.
    pub proved: Time,
}
