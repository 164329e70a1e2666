//! The times that a balancer and a proxy cut after.

use std::time::Duration;

/// The times that matter between a balancer and a proxy.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// After how much silence a proxy pings a park; its default if none is given.
    pub(super) ping_after: Option<Duration>,
    /// After how much silence a proxy ends a session.
    pub(super) session_idle: Duration,
    /// The time-out of the balancer that is shorter than that.
    pub(super) short: Duration,
    /// The time-out of the balancer that is longer than that.
    pub(super) long: Duration,
}

impl Times {
    /// For how long parks are watched: several of the shorter time-outs, or at least one of the true ones.
    pub(super) fn watched(&self) -> Duration {
        (self.short * 4).min(self.short + Duration::from_secs(30))
    }
}

/// So short that a case takes a minute.
pub(super) const SCALED: Times = Times {
    ping_after: Some(Duration::from_secs(1)),
    session_idle: Duration::from_secs(8),
    short: Duration::from_secs(3),
    long: Duration::from_secs(20),
};

/// The product's defaults, and what gateways and balancers in the field cut after.
pub(super) const TRUE: Times = Times {
    ping_after: None,
    session_idle: Duration::from_secs(300),
    short: Duration::from_secs(270),
    long: Duration::from_secs(350),
};
