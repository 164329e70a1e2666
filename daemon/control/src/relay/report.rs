//! What relays do and carry, for `status` and metrics.

use std::time::Duration;

use tokio::task::JoinSet;
use zone_channel::{ListenerInfo, Query, RelayState, Reply};
use zone_protocol::provisioning::{ProcessStatus, RelayCounts, RelayStatus};

use super::channel::state_word;
use super::supervise::Supervisor;
use crate::metrics::{Kind, OfRelay};

/// For a relay's answer in `status` and metrics.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

impl Supervisor {
    /// The ports that are meant to be open, and whether somebody accepts there.
    pub(crate) fn ports(&self) -> Vec<(ListenerInfo, bool)> {
        let inner = self.inner();
        let served = inner.serving.as_ref().is_some_and(|relay| relay.state() == RelayState::Serving);
        let listens = |port: &ListenerInfo| {
            served && inner.listeners.iter().any(|own| own.info() == *port && own.is_listening())
        };
        let ports = inner.wanted.iter().flat_map(|wanted| &wanted.ports);
        ports.map(|port| (*port, listens(port))).collect()
    }

    /// Why no relay serves although one should.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.inner().trouble.clone()
    }

    /// What relays were shown of themselves by the kernel, by process id.
    pub(crate) fn processes(&self) -> Vec<(u32, Option<ProcessStatus>)> {
        let inner = self.inner();
        let relays = inner.serving.iter().chain(&inner.draining);
        relays.map(|relay| (relay.pid, relay.process.clone())).collect()
    }

    /// Every relay with what it carries, the newest first.
    pub(crate) async fn statuses(&self) -> Vec<RelayStatus> {
        let relays: Vec<_> = {
            let inner = self.inner();
            inner.serving.iter().chain(&inner.draining).cloned().collect()
        };
        let mut asking = JoinSet::new();
        for relay in relays {
            asking.spawn_local(async move {
                let counts = match relay.ask(Query::Counts, ANSWER_TIMEOUT).await {
                    Ok(Reply::Counts(counts)) => Some(counts),
                    _ => None,
                };
                let state = if counts.is_some() { state_word(relay.state()) } else { "silent" };
                RelayStatus {
                    generation: relay.generation(),
                    pid: relay.pid,
                    state: state.to_owned(),
                    counts,
                }
            });
        }
        let mut statuses = asking.join_all().await;
        statuses.sort_by_key(|status| std::cmp::Reverse(status.generation));
        self.metrics.carried.clear();
        for status in &statuses {
            if let Some(counts) = &status.counts {
                self.count(status.generation, counts);
            }
        }
        statuses
    }

    /// The metrics of the relay that serves.
    pub(crate) async fn metrics_text(&self) -> Option<String> {
        let serving = self.inner().serving.clone()?;
        match serving.ask(Query::Metrics, ANSWER_TIMEOUT).await {
            Ok(Reply::Metrics(text)) => Some(text),
            _ => None,
        }
    }

    fn count(&self, generation: u64, counts: &RelayCounts) {
        for (kind, value) in [
            (Kind::Endpoints, counts.endpoints),
            (Kind::Parks, counts.parks),
            (Kind::Sessions, counts.sessions),
        ] {
            let gauge = self.metrics.carried.get_or_create_owned(&OfRelay { generation, kind });
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }
}
