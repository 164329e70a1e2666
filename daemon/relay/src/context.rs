//! What all connections of a relay share.

use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::available_parallelism;

use tokio::sync::Notify;
use zone_accept::{HandshakeTurns, LogBudget, within_budget};
use zone_pairing::Event;

use crate::connections::Connections;
use crate::leg::EndpointLeg;
use crate::limiters::Limiters;
use crate::metrics::Metrics;
use crate::open_sessions::OpenSessions;
use crate::rules::{Port, Rules};
use crate::switchboard::Switchboard;

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
    draining: AtomicBool,
    drain: Notify,
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
            draining: AtomicBool::new(false),
            drain: Notify::new(),
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
        self.draining.store(true, Ordering::Release);
        self.drain.notify_waiters();
        self.switchboard.report(Event::Drain { over: self.rules().timeouts.release });
    }

    /// Whether [`Context::drain`] was called.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Waits for [`Context::drain`]. Can be cancelled.
    pub(crate) async fn drained(&self) {
        let waiting = self.drain.notified();
        if !self.is_draining() {
            waiting.await;
        }
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
