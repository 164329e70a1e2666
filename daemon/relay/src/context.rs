//! What all connections of a relay share.

use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::time::timeout;
use zone_accept::HandshakeTurns;
use zone_log_budget::{LogBudget, within_budget};
use zone_pairing::Event;

use crate::callers::Callers;
use crate::connections::Connections;
use crate::descriptors::Descriptors;
use crate::leg::EndpointLeg;
use crate::limiters::Limiters;
use crate::metrics::Metrics;
use crate::milestone::Milestone;
use crate::open_sessions::OpenSessions;
use crate::rules::{Port, Rules};
use crate::switchboard::Switchboard;

/// Parks that a draining relay lets go in a second where `timeouts.release` gives it the time: their endpoints shake hands
/// with the next relay, which has other things to do as well.
const RELEASES_PER_SECOND: f64 = 250.0;

/// Everything that the connections of a relay share.
#[derive(Debug)]
pub(crate) struct Context {
    rules: RwLock<Arc<Rules>>,
    /// Parks and calls.
    pub(crate) switchboard: Arc<Switchboard<EndpointLeg>>,
    /// Everybody who is connected.
    pub(crate) connections: Arc<Connections>,
    /// The sessions that are open.
    pub(crate) sessions: Arc<OpenSessions>,
    /// What this relay counts.
    pub(crate) metrics: Arc<Metrics>,
    /// Keeps the log readable.
    pub(crate) log_budget: LogBudget,
    /// Handshakes wait here for each other, and nobody else for them.
    pub(crate) handshake_turns: HandshakeTurns,
    /// Limits on connections, sessions and event streams.
    pub(crate) limiters: Limiters,
    /// How many descriptors there may be.
    pub(crate) descriptors: Descriptors,
    /// The callers that are under way.
    pub(crate) callers: Arc<Callers>,
    /// This relay lets endpoints in: at once, or when the one whose place it takes has no caller under way any more.
    pub(crate) endpoints_let_in: Milestone,
    /// No caller is let in any more.
    pub(crate) callers_turned_away: Milestone,
    draining: Milestone,
}

impl Context {
    /// For a relay that goes by these rules.
    pub(crate) fn new(rules: Rules, pairing: zone_pairing::Limits) -> Arc<Self> {
        let metrics = Arc::new(Metrics::new());
        Arc::new(Self {
            switchboard: Switchboard::new(pairing, rules.limits.event_backlog, Arc::clone(&metrics)),
            rules: RwLock::new(Arc::new(rules)),
            connections: Arc::default(),
            sessions: Arc::default(),
            metrics,
            log_budget: LogBudget::default(),
            handshake_turns: HandshakeTurns::new(available_parallelism().map_or(1, NonZero::get)),
            limiters: Limiters::default(),
            descriptors: Descriptors::default(),
            callers: Arc::default(),
            endpoints_let_in: Milestone::default(),
            callers_turned_away: Milestone::default(),
            draining: Milestone::default(),
        })
    }

    /// The rules in force.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// New rules from now on; connections that they do not admit end.
    pub(crate) fn set_rules(&self, rules: Rules, pairing: zone_pairing::Limits) {
        let rules = Arc::new(rules);
        let old = {
            let mut current = self.rules.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, Arc::clone(&rules))
        };
        self.switchboard.set_limits(pairing);
        let (ended, gone) = self.connections.enforce(&rules, &old);
        for endpoint in gone {
            self.switchboard.report(Event::Revoke { endpoint: endpoint.shared() });
        }
        if ended > 0 {
            tracing::info!(target: "audit", connections = ended, "connections that the new rules do not admit were ended");
        }
    }

    /// No new sessions from now on; idle connections are let go.
    pub(crate) fn drain(&self) {
        self.callers_turned_away.reach();
        self.draining.reach();
        let (counts, _) = self.switchboard.counts();
        let over = release_time(counts.parks.parks(), self.rules().timeouts.release);
        self.switchboard.report(Event::Drain { over });
    }

    /// No caller is let in from now on; waits until those that are under way have their answers, for a while.
    pub(crate) async fn turn_callers_away(&self) {
        self.callers_turned_away.reach();
        let patience = self.rules().timeouts.hand_over;
        if timeout(patience, self.callers.none_under_way()).await.is_err() {
            tracing::info!(
                "callers are still under way: they are served while this relay has parks for them"
            );
        }
    }

    /// Waits until endpoints may come here, and not to the relay whose place this one takes. Where nobody says so, that
    /// relay or its control is gone.
    pub(crate) async fn lets_endpoints_in(&self) {
        let patience = 2 * self.rules().timeouts.hand_over;
        let _ = timeout(patience, self.endpoints_let_in.reached()).await;
    }

    /// Waits until nobody is let in on a port any more. Can be cancelled.
    pub(crate) async fn lets_in_no_more(&self, port: Port) {
        match port {
            Port::Endpoint => self.draining.reached().await,
            Port::ModuleServer => self.callers_turned_away.reached().await,
        }
    }

    /// Whether [`Context::drain`] was called.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_reached()
    }

    /// Waits for [`Context::drain`]. Can be cancelled.
    pub(crate) async fn drained(&self) {
        self.draining.reached().await;
    }

    /// Counts and, within the budget, logs a connection that is refused. The label is for metrics, the details are
    /// for a person.
    pub(crate) fn log_refusal(
        &self,
        port: Port,
        peer: SocketAddr,
        label: &'static str,
        details: &dyn std::fmt::Display,
    ) {
        self.metrics.refused(port, label);
        within_budget!(
            self.log_budget,
            label,
            warn!(port = port.label(), %peer, reason = label, "refused: {details}")
        );
    }
}

/// Over which so many parks are let go: as fast as the next relay can well take them, and within the time that there is.
fn release_time(parks: usize, most: Duration) -> Duration {
    let parks = u32::try_from(parks).unwrap_or(u32::MAX);
    Duration::from_secs_f64(f64::from(parks) / RELEASES_PER_SECOND).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_parks_are_let_go_soon_and_many_within_the_time_that_there_is() {
        let most = Duration::from_secs(5);
        assert_eq!(release_time(0, most), Duration::ZERO);
        assert_eq!(release_time(50, most), Duration::from_millis(200));
        assert_eq!(release_time(20_000, most), most);
    }
}
