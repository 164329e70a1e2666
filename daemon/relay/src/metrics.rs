//! What the relay counts, in Prometheus' text format.

use std::fmt::Write as _;
use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use zone_protocol::provisioning::RelayCounts;

use crate::rules::Port;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PortLabel {
    port: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PortReason {
    port: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// Counters, and what is read off at each scrape.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    accepted: Family<PortLabel, Counter>,
    refused: Family<PortReason, Counter>,
    probes: Counter,
    calls_failed: Family<ReasonLabel, Counter>,
    parks_closed: Family<ReasonLabel, Counter>,
    sessions: Family<ReasonLabel, Counter>,
    clones: Counter,
    bytes: Family<PortLabel, Counter>,
    /// Bytes of payload that sessions hold because the other side did not take them yet.
    pub(crate) buffered: Gauge<i64, AtomicI64>,
}

impl Metrics {
    /// All at zero.
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("zone_relay");
        let accepted = Family::default();
        registry.register("connections", "Connections that passed their handshake", accepted.clone());
        let refused = Family::default();
        registry.register(
            "refused",
            "Connections and requests that were refused, by reason",
            refused.clone(),
        );
        let probes = Counter::default();
        registry.register("probes", "Health probes of balancers", probes.clone());
        let calls_failed = Family::default();
        registry.register("calls_failed", "CONNECTs that got no session, by reason", calls_failed.clone());
        let parks_closed = Family::default();
        registry.register("parks_closed", "Parks that the relay closed, by reason", parks_closed.clone());
        let sessions = Family::default();
        registry.register("sessions", "Sessions that ended, by reason", sessions.clone());
        let clones = Counter::default();
        registry.register("clones", "Second instances seen under one endpoint id", clones.clone());
        let bytes = Family::default();
        registry.register("payload_bytes", "Payload that came in by each port", bytes.clone());
        let buffered = Gauge::default();
        registry.register("buffered_bytes", "Payload held because the other side lags", buffered.clone());
        Self {
            registry,
            accepted,
            refused,
            probes,
            calls_failed,
            parks_closed,
            sessions,
            clones,
            bytes,
            buffered,
        }
    }

    /// A connection passed its handshake.
    pub(crate) fn accepted(&self, port: Port) {
        self.accepted.get_or_create(&PortLabel { port: port.label() }).inc();
    }

    /// A connection or request was refused.
    pub(crate) fn refused(&self, port: Port, reason: &'static str) {
        self.refused.get_or_create(&PortReason { port: port.label(), reason }).inc();
    }

    /// A balancer looked whether we are there.
    pub(crate) fn probed(&self) {
        self.probes.inc();
    }

    /// A CONNECT got no session.
    pub(crate) fn call_failed(&self, reason: &'static str) {
        self.calls_failed.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// The relay closed a park.
    pub(crate) fn park_closed(&self, reason: &'static str) {
        self.parks_closed.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// A second instance was seen.
    pub(crate) fn cloned(&self) {
        self.clones.inc();
    }

    /// A session ended, having moved this much from each side.
    pub(crate) fn session_ended(&self, reason: &'static str, from_caller: u64, from_endpoint: u64) {
        self.sessions.get_or_create(&ReasonLabel { reason }).inc();
        self.bytes.get_or_create(&PortLabel { port: Port::ModuleServer.label() }).inc_by(from_caller);
        self.bytes.get_or_create(&PortLabel { port: Port::Endpoint.label() }).inc_by(from_endpoint);
    }

    /// Everything, with the counts of this moment; ends with `# EOF`.
    pub(crate) fn text(&self, counts: &RelayCounts) -> String {
        let mut text = String::new();
        for (name, help, value) in [
            ("endpoints", "Endpoints with a park or a session", counts.endpoints),
            ("parks", "Parked connections", counts.parks),
            ("waiting", "CONNECTs that wait for a park", counts.waiting),
            ("live_sessions", "Sessions", counts.sessions),
            ("module_server_connections", "Connections of Module Servers", counts.module_server_connections),
        ] {
            // Writing to a String can't fail.
            let _ = write!(
                text,
                "# HELP zone_relay_{name} {help}.\n# TYPE zone_relay_{name} gauge\nzone_relay_{name} {value}\n"
            );
        }
        if encode(&mut text, &self.registry).is_err() {
            text.push_str("# EOF\n");
        }
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
