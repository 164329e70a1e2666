//! What control counts, and the text in which it and the relay's counts are served.

mod plain_text;

use std::cell::Cell;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use zone_firewall_protocol::WatchReport;

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

/// How bad a finding of the firewall is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Level {
    /// `closed`, `denied`, `unknown` or `drift`.
    pub level: &'static str,
}

/// Others keep a port closed; they deny it to some of its sources by name; it can't be told; rules of ours are not as they should be.
const LEVELS: [&str; 4] = ["closed", "denied", "unknown", "drift"];

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
    /// What the firewall's watch found and did.
    pub firewall: FirewallMetrics,
}

/// What the firewall broker's watch found and did, as control was told last.
#[derive(Debug, Default)]
pub struct FirewallMetrics {
    /// Whether changes of the rules are noticed.
    pub watched: Gauge,
    /// Findings that are not put back, by level.
    pub findings: Family<Level, Gauge>,
    /// How often rules were put back.
    pub repairs: Counter,
    /// When rules were judged last, seconds since 1970.
    pub checked: Gauge,
    /// How many repairs the broker that is running had counted.
    counted: Cell<u64>,
}

impl FirewallMetrics {
    /// Takes over what the watch says; without a word from it the rules are not watched, and the rest stays.
    pub fn take(&self, report: Option<&WatchReport>) {
        self.watched.set(i64::from(report.is_some_and(|report| report.watching)));
        let Some(report) = report else { return };
        for level in LEVELS {
            let count = report.findings.get(level).copied().unwrap_or(0);
            self.findings.get_or_create(&Level { level }).set(count.try_into().unwrap_or(i64::MAX));
        }
        // A broker that was started again counts from zero.
        let counted = self.counted.replace(report.repairs);
        self.repairs.inc_by(report.repairs.checked_sub(counted).unwrap_or(report.repairs));
        if let Some(at) = report.judged_at {
            self.checked.set(at.try_into().unwrap_or(i64::MAX));
        }
    }

    fn register(&self, registry: &mut Registry) {
        registry.register(
            "firewall_watched",
            "Whether the broker notices when others change the firewall's rules",
            self.watched.clone(),
        );
        registry.register(
            "firewall_findings",
            "What is not as it should be in the firewall and is not put back, by level",
            self.findings.clone(),
        );
        registry.register(
            "firewall_repairs",
            "How often the firewall's rules were put back after others had changed them",
            self.repairs.clone(),
        );
        registry.register(
            "firewall_checked_timestamp_seconds",
            "When the firewall's rules were judged last, which is when they changed last, seconds since 1970",
            self.checked.clone(),
        );
    }
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
            firewall: FirewallMetrics::default(),
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
        metrics.firewall.register(registry);
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
    use zone_firewall_protocol::WatchMode;

    #[test]
    fn repairs_go_on_counting_when_the_broker_begins_anew_and_a_silent_one_is_not_watching() {
        let metrics = FirewallMetrics::default();
        let report = |repairs| WatchReport {
            mode: WatchMode::Repair,
            watching: true,
            judged_at: Some(1_700_000_000),
            findings: [("denied".to_owned(), 2)].into(),
            judgements: 9,
            repairs,
            trouble: None,
        };
        for (repairs, counted) in [(3, 3), (3, 3), (5, 5), (1, 6), (2, 7)] {
            metrics.take(Some(&report(repairs)));
            assert_eq!(metrics.repairs.get(), counted);
        }
        assert_eq!((metrics.watched.get(), metrics.checked.get()), (1, 1_700_000_000));
        let findings = |level| metrics.findings.get_or_create(&Level { level }).get();
        assert_eq!((findings("denied"), findings("closed")), (2, 0));
        metrics.take(None);
        assert_eq!((metrics.watched.get(), metrics.repairs.get()), (0, 7));
    }

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
