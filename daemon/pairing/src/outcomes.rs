//! Why parks are closed and why calls fail, in words for operators and labels for metrics.

use std::{error::Error, fmt};

/// Why the machine has a park closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// A newer park took its place.
    Evicted,
    /// It did not answer a ping in time.
    PingTimeout,
    /// It sent something nobody asked for.
    Protocol,
    /// It did not take CONNECT up, or not a byte of its answer came in time.
    Silent,
    /// Its answer began and did not end in time, or the call's deadline passed after CONNECT.
    AnswerTimeout,
    /// It refused the CONNECT.
    Refused,
    /// The machine is draining.
    Draining,
    /// Its endpoint, its instance or itself was revoked.
    Revoked,
    /// Its caller left after CONNECT was sent.
    CallerGone,
    /// Its endpoint is new, and as many endpoints as allowed are connected already.
    TooManyEndpoints,
}

impl CloseReason {
    /// The reason as a value for a metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::PingTimeout => "ping_timeout",
            Self::Protocol => "protocol",
            Self::Silent => "silent",
            Self::AnswerTimeout => "answer_timeout",
            Self::Refused => "refused",
            Self::Draining => "draining",
            Self::Revoked => "revoked",
            Self::CallerGone => "caller_gone",
            Self::TooManyEndpoints => "too_many_endpoints",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Evicted => {
                "a newer park took its place: let the endpoint hold fewer parks, or raise the limit per endpoint"
            }
            Self::PingTimeout => {
                "no answer to a ping: the endpoint is gone, or a NAT or firewall on the way dropped the connection"
            }
            Self::Protocol => {
                "the endpoint sent bytes nobody asked for: check that it speaks this protocol in this version"
            }
            Self::Silent => "no answer to CONNECT: the endpoint hangs, or the connection to it is dead",
            Self::AnswerTimeout => {
                "the answer to CONNECT was not complete in time: check the endpoint's load and its service"
            }
            Self::Refused => "the endpoint refused the CONNECT: check the service it was asked for",
            Self::Draining => "the relay is shutting down: connect to another one, or again later",
            Self::Revoked => "access was revoked: renew the endpoint's credentials before it connects again",
            Self::CallerGone => "the caller left before the endpoint had answered: nothing to do",
            Self::TooManyEndpoints => {
                "as many endpoints as allowed are connected: raise the limit on endpoints, or revoke some"
            }
        })
    }
}

/// Why a call got no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallError {
    /// No endpoint of that id is connected, nor was one lately; or it was just revoked.
    UnknownEndpoint,
    /// No park became available before the deadline.
    NoParkInTime,
    /// As many parks as allowed were lost before one of them answered.
    ParksLost,
    /// The endpoint refused the CONNECT.
    RefusedByEndpoint {
        /// The HTTP status of its answer.
        status: u16,
    },
    /// CONNECT was sent, and the answer was not complete in time.
    AnswerTimeout,
    /// As many calls as allowed wait already.
    TooManyWaiting,
    /// The endpoint has as many sessions as allowed.
    TooManySessions,
    /// The machine is draining.
    Draining,
    /// The park died after the first byte of its answer.
    EndpointFailed,
}

impl CallError {
    /// The error as a value for a metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::UnknownEndpoint => "unknown_endpoint",
            Self::NoParkInTime => "no_park_in_time",
            Self::ParksLost => "parks_lost",
            Self::RefusedByEndpoint { .. } => "refused_by_endpoint",
            Self::AnswerTimeout => "answer_timeout",
            Self::TooManyWaiting => "too_many_waiting",
            Self::TooManySessions => "too_many_sessions",
            Self::Draining => "draining",
            Self::EndpointFailed => "endpoint_failed",
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownEndpoint => {
                "no such endpoint is connected: check the endpoint id, and that the endpoint runs and reaches the relay"
            }
            Self::NoParkInTime => {
                "no parked connection became available in time: let the endpoint hold more parks, or try again"
            }
            Self::ParksLost => {
                "every connection tried was lost before it answered: check the network between endpoint and relay"
            }
            Self::RefusedByEndpoint { status } => {
                return write!(
                    f,
                    "the endpoint refused with status {status}: check the service name and the endpoint's log"
                );
            }
            Self::AnswerTimeout => "the endpoint did not answer in time: check its load and the service behind it",
            Self::TooManyWaiting => {
                "too many calls wait already: try again later, or let the endpoint hold more parks"
            }
            Self::TooManySessions => {
                "the endpoint has as many sessions as allowed: end some, or raise the limit per endpoint"
            }
            Self::Draining => "the relay is shutting down: call through another one, or again later",
            Self::EndpointFailed => "the connection broke while the endpoint answered: check the endpoint's log",
        })
    }
}

impl Error for CallError {}
