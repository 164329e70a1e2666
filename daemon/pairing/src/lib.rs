//! Parks and pairing as a pure state machine: which parked connection serves which call.
//!
//! *Endpoints* dial in and park idle connections (*parks*). The Module Server asks for one of
//! them by endpoint id (a *call*). A [`Machine`] is told what happened ([`Event`]), with the time
//! at which it happened, and answers with what to do ([`Action`]). It performs no I/O, reads no
//! clock, draws no random number and knows nothing of TLS, HTTP or the daemon. The program around
//! it, *the shell*, holds the connections, reports events and carries actions out in their order.
//!
//! # A park's life
//!
//! ```text
//!                       silent for ping_after
//!               ┌──────┐ ───────────────────▶ ┌─────────┐  no pong within
//!   Parked ────▶│ Idle │                      │ Pinging │─ pong_within ──▶ Close PingTimeout
//!               └──────┘ ◀─────────────────── └─────────┘
//!                │    ▲          Pong
//!         Assign │    │ caller gone, or its deadline passed
//!                ▼    │
//!            ┌──────────┐ take_up ┌────────────┐ FirstByte ┌───────────┐
//!            │ Offered  │────────▶│ Connecting │──────────▶│ Answering │
//!            └──────────┘         └────────────┘           └───────────┘
//!                 │                │          │ Accepted     │       │ too slow: AnswerTimeout
//!                 └───────┬────────┘          └──────┬───────┘       │ died: EndpointFailed
//!   died, or silent for   │                          ▼               │ Refused
//!   first_byte_within:    ▼                     ┌─────────┐          ▼
//!   the call is retried  Close                  │ Session │        Close, and the call fails
//!                                               └─────────┘
//! ```
//!
//! `Offered`, `Connecting` and `Answering` are the three [`Stage`]s of [`ParkState::Assigned`]. A
//! park serves one session at most: only a park whose CONNECT was never written goes back to
//! `Idle`. Eviction, draining, revocation, a protocol violation or the peer itself may end a park
//! from the states in which they apply; a caller that leaves after CONNECT takes its park along.
//!
//! # What the shell does
//!
//! * It reports every event with the current time to [`Machine::handle`], and sleeps until
//!   [`Machine::next_deadline`] before it sends [`Event::Tick`]. Whatever is overdue when any
//!   event arrives is dealt with before that event: a pong that comes too late comes too late.
//! * On [`Action::Assign`] the park's connection calls [`Machine::take_up`] right before it writes
//!   CONNECT, and writes it for the call that method names, or not at all. An assignment can have
//!   been withdrawn, or replaced by another one, while its message was on the way; the message of
//!   the replacement then finds nothing left to take up, which is normal.
//! * It never reuses a [`ParkId`] or a [`CallId`]. Events about ended or unknown ids are ignored,
//!   because connections end while messages are on the way.
//!
//! # Example
//!
//! An endpoint parks, a call comes for it, and the two become a session:
//!
//! ```
//! use std::time::Duration;
//! use zone_pairing::{Action, CallId, Event, Limits, Machine, ParkId, Presence};
//!
//! let at = Duration::from_millis;
//! let mut machine = Machine::new(at(0), Limits::default());
//! let (park, call, endpoint) = (ParkId(1), CallId(1), "host-7".into());
//!
//! let parked = Event::Parked { park, endpoint: std::sync::Arc::clone(&endpoint), instance: 0x5b0c };
//! let joined = Presence::Joined { endpoint: std::sync::Arc::clone(&endpoint) };
//! assert_eq!(machine.handle(at(10), parked), [Action::Presence(joined)]);
//!
//! // The shell tells the park's connection, which writes CONNECT for the call that it is told now.
//! let called = Event::Called { call, endpoint, deadline: at(15_000) };
//! assert_eq!(machine.handle(at(20), called), [Action::Assign { park, call }]);
//! assert_eq!(machine.take_up(at(21), park), Some(call));
//!
//! // If the endpoint says nothing, this is when the call goes to another park.
//! assert_eq!(machine.next_deadline(), Some(at(3_021)));
//!
//! assert_eq!(machine.handle(at(30), Event::FirstByte { park }), []);
//! assert_eq!(machine.handle(at(31), Event::Accepted { park })[0], Action::Join { park, call });
//! assert_eq!(machine.counts().parks.sessions, 1);
//! ```
//!
//! # Guarantees
//!
//! Every call gets exactly one of [`Action::Join`] and [`Action::Fail`], unless
//! [`Event::CallGone`] came first, and no later than its deadline (given a timely `Tick`). No
//! action names a park after its [`Action::Close`] (or the event that reported its end), nor a
//! call after its `Join`, `Fail` or `CallGone`.

mod calls;
mod drain;
mod endpoint;
mod expiry;
mod limits;
mod machine;
mod outcomes;
mod park;
mod park_choice;
mod registry;
mod types;

pub use limits::Limits;
pub use machine::Machine;
pub use outcomes::{CallError, CloseReason, refusal};
pub use types::{
    Action, CallId, Counts, EndpointView, Event, InstanceId, ParkCounts, ParkId, ParkState, ParkView,
    Presence, Stage, Time,
};

#[cfg(test)]
mod tests;
