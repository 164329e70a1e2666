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
            Self::Draining => "the relay is being stopped or replaced: connect again at once",
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
    /// All of the endpoint's parks were in use until the deadline.
    NoParkInTime,
    /// The endpoint is known, and held no park from the call to its deadline.
    EndpointAway,
    /// The endpoint did not answer on any park that was tried, or had lost its last one by not answering.
    EndpointSilent,
    /// As many parks as allowed were lost before one of them answered, or all that there were until the deadline, and some
    /// of them broke.
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
            Self::EndpointAway => "endpoint_away",
            Self::EndpointSilent => "endpoint_silent",
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
                "no such endpoint is connected: check the endpoint id, and that the endpoint runs and reaches the proxy"
            }
            Self::NoParkInTime => {
                "all connections of the endpoint were in use until the deadline: let it hold more parks, or try again"
            }
            Self::EndpointAway => {
                "the endpoint was connected a moment ago and holds no connection now: see that it runs and reaches the proxy, and try again"
            }
            Self::EndpointSilent => {
                "the endpoint does not answer: its host hangs or is overloaded, or a NAT or firewall on the way has dropped its connections: look at its host, and at what lies between it and the proxy"
            }
            Self::ParksLost => {
                "every connection tried broke before it answered: see that the endpoint is not being restarted, and check the network between it and the proxy"
            }
            Self::RefusedByEndpoint { status } => {
                let (cause, advice) = refusal(*status);
                return write!(f, "{cause}: {advice}");
            }
            Self::AnswerTimeout => "the endpoint did not answer in time: check its load and the service behind it",
            Self::TooManyWaiting => {
                "too many calls wait already: see that the endpoint answers, let it hold more parks, or try again later"
            }
            Self::TooManySessions => {
                "the endpoint has as many sessions as allowed: end some, or raise the limit per endpoint"
            }
            Self::Draining => {
                "the relay of this proxy is being stopped or replaced: try again at once, or through another proxy"
            }
            Self::EndpointFailed => "the connection broke while the endpoint answered: check the endpoint's log",
        })
    }
}

impl Error for CallError {}

/// What an endpoint says by the status of a refusal: the cause, and what to do about it.
pub fn refusal(status: u16) -> (&'static str, &'static str) {
    match status {
        403 => (
            "the endpoint does not let this Module Server use the service",
            "ask whoever runs the endpoint to allow it",
        ),
        404 => (
            "the endpoint has no such service",
            "check the service's name or number against the [[service]] entries of its zone-endpoint.toml",
        ),
        502 => (
            "the endpoint could not reach the service's target",
            "see on its host that the service runs, and that its target in zone-endpoint.toml is right",
        ),
        503 => (
            "the endpoint carries as many sessions as it allows",
            "end some, or raise max_sessions in its zone-endpoint.toml",
        ),
        _ => ("the endpoint refused the session", "look into the endpoint's log"),
    }
}
