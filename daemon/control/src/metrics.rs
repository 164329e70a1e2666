//! What control counts, and the text in which it and the relay's counts are served.

mod plain_text;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

pub(crate) use plain_text::plain_text;

/// The media type of [`Metrics::text`] (OpenMetrics 1.0).
pub(crate) const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The media type of what [`plain_text`] makes of it.
pub(crate) const PLAIN_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const END: &str = "# EOF";

/// Why a connection or a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// A short word.
    pub reason: &'static str,
}

/// The status of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Answered {
    /// HTTP status.
    pub status: u16,
}

/// A change of the state and how it went.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Change {
    /// Which kind of change.
    pub kind: &'static str,
    /// `done`, or the step that failed.
    pub result: &'static str,
}

/// One relay.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfRelay {
    /// Its generation.
    pub generation: u64,
    /// The thing that is counted.
    pub kind: Kind,
}

/// What a relay carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Kind {
    /// Endpoints with a park or a session.
    Endpoints,
    /// Parked connections.
    Parks,
    /// Sessions that are open.
    Sessions,
}

/// Control's own counters.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Connections accepted on 17488.
    pub connections: Counter,
    /// Connections open on 17488.
    pub open: Gauge,
    /// Connections closed before the handshake, by reason.
    pub refused: Family<Reason, Counter>,
    /// Handshakes that failed, by reason.
    pub handshakes: Family<Reason, Counter>,
    /// Requests answered, by status.
    pub requests: Family<Answered, Counter>,
    /// Proofs that did not hold.
    pub wrong_proofs: Counter,
    /// Changes of the state.
    pub changes: Family<Change, Counter>,
    /// Relays started.
    pub relay_starts: Counter,
    /// Relays that ended without having been told to.
    pub relay_crashes: Counter,
    /// Log records of relays that were dropped.
    pub relay_records_dropped: Counter,
    /// Lines of relays' metrics that were left out.
    pub relay_metrics_dropped: Counter,
    /// What each relay carries.
    pub carried: Family<OfRelay, Gauge>,
    /// Whether the proxy belongs to a zone.
    pub provisioned: Gauge,
    /// When the first of the proxy's certificates runs out, seconds since 1970.
    pub certificate_expiry: Gauge,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("zone_proxy"),
            connections: Counter::default(),
            open: Gauge::default(),
            refused: Family::default(),
            handshakes: Family::default(),
            requests: Family::default(),
            wrong_proofs: Counter::default(),
            changes: Family::default(),
            relay_starts: Counter::default(),
            relay_crashes: Counter::default(),
            relay_records_dropped: Counter::default(),
            relay_metrics_dropped: Counter::default(),
            carried: Family::default(),
            provisioned: Gauge::default(),
            certificate_expiry: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        let connections = metrics.connections.clone();
        registry.register("control_connections", "Connections accepted on 17488", connections);
        registry.register("control_open", "Connections open on 17488", metrics.open.clone());
        registry.register(
            "control_refused",
            "Connections on 17488 closed before the handshake",
            metrics.refused.clone(),
        );
        registry.register(
            "control_handshake_failures",
            "TLS handshakes on 17488 that failed",
            metrics.handshakes.clone(),
        );
        registry.register("control_requests", "Requests answered on 17488", metrics.requests.clone());
        let wrong_proofs = metrics.wrong_proofs.clone();
        registry.register("wrong_proofs", "Proofs of a token that did not hold", wrong_proofs);
        registry.register("changes", "Changes of the provisioned state", metrics.changes.clone());
        registry.register("relay_starts", "Relays started", metrics.relay_starts.clone());
        registry.register(
            "relay_crashes",
            "Relays that ended without having been told to",
            metrics.relay_crashes.clone(),
        );
        registry.register(
            "relay_records_dropped",
            "Log records of relays that were dropped: too many, or not theirs to write",
            metrics.relay_records_dropped.clone(),
        );
        registry.register(
            "relay_metrics_dropped",
            "Lines of relays' metrics that were left out: too many, or not a relay's",
            metrics.relay_metrics_dropped.clone(),
        );
        registry.register("relay_carried", "What each relay carries", metrics.carried.clone());
        let provisioned = metrics.provisioned.clone();
        registry.register("provisioned", "Whether the proxy belongs to a zone", provisioned);
        registry.register(
            "certificate_expiry_seconds",
            "When the first of the proxy's certificates runs out, seconds since 1970",
            metrics.certificate_expiry.clone(),
        );
        metrics
    }

    /// Counts a change and how it went.
    pub fn change(&self, kind: &'static str, result: &'static str) {
        self.changes.get_or_create(&Change { kind, result }).inc();
    }

    /// The own text and the relay's as one exposition with one end.
    pub fn text(&self, relay: Option<&str>) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = encode(&mut text, &self.registry);
        let mut whole = without_end(&text).to_owned();
        whole.push_str(without_end(relay.unwrap_or_default()));
        whole.push_str(END);
        whole.push('\n');
        whole
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn without_end(text: &str) -> &str {
    text.trim_end().strip_suffix(END).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_texts_become_one_with_one_end() {
        let metrics = Metrics::new();
        metrics.wrong_proofs.inc();
        for relay in ["# TYPE relay_x counter\nrelay_x_total 1\n# EOF\n", "relay_x_total 1\n"] {
            let text = metrics.text(Some(relay));
            assert_eq!(text.matches(END).count(), 1);
            assert!(text.ends_with("# EOF\n"));
            assert!(text.contains("zone_proxy_wrong_proofs_total 1\n"));
            assert!(text.contains("\nrelay_x_total 1\n"));
        }
    }
}
