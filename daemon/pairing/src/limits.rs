//! The bounds and time limits a machine keeps to.

use std::time::Duration;

/// What a [`Machine`](crate::Machine) keeps to. [`Limits::default`] suits a relay with a few
/// thousand endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Parks one endpoint may hold, sessions not counted. One more evicts the idle or pinging park
    /// of the oldest instance that proved itself alive the longest ago; a newcomer is never
    /// refused. Assigned parks are never evicted: an endpoint whose parks are all assigned may hold
    /// more than this, until its first newcomer after they are idle again.
    pub parks_per_endpoint: usize,
    /// Sessions one endpoint may have; 0 = unlimited. A call that waits or is being set up counts
    /// as the session it is about to become.
    pub per_endpoint_sessions: usize,
    /// Calls that may wait for a park of one endpoint. Bounds the calls that are let in: one that
    /// comes back because its park was lost is never turned away.
    pub waiting_per_endpoint: usize,
    /// Calls that may wait in all, likewise.
    pub waiting_total: usize,
    /// Endpoints that may be known: connected, remembered or waited for. Beyond it the endpoint
    /// that is gone the longest is forgotten; when none is gone, a stranger's park is refused.
    pub endpoints: usize,
    /// Silence after which an idle park is pinged.
    pub ping_after: Duration,
    /// Time a park has for answering a ping.
    pub pong_within: Duration,
    /// Time a park has from its assignment until CONNECT is taken up, and again from there to the
    /// first byte of the answer.
    pub first_byte_within: Duration,
    /// Time from the first byte of the answer to the end of its head.
    pub answer_within: Duration,
    /// Parks that may be lost under one call, the first one included, before it fails.
    pub attempts: u32,
    /// How long an endpoint without any connection stays known, so that calls wait for its return.
    pub remember_endpoint: Duration,
    /// Age of the machine up to which calls wait for endpoints it has never seen: after a restart
    /// all of them are about to come back.
    pub settle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            parks_per_endpoint: 16,
            per_endpoint_sessions: 0,
            waiting_per_endpoint: 64,
            waiting_total: 1024,
            endpoints: 10_000,
            ping_after: Duration::from_secs(20),
            pong_within: Duration::from_secs(10),
            first_byte_within: Duration::from_secs(3),
            answer_within: Duration::from_secs(10),
            attempts: 3,
            remember_endpoint: Duration::from_secs(60),
            settle: Duration::from_secs(10),
        }
    }
}
