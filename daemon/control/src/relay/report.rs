//! What relays do and carry, for `status` and metrics.

use std::rc::Rc;
use std::time::Duration;

use tokio::task::JoinSet;
use zone_channel::{ListenerInfo, Query, RelayState, Reply};
use zone_protocol::provisioning::{ProcessStatus, RelayCounts, RelayStatus};

use super::absent::Absent;
use super::channel::state_word;
use super::exposition;
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

    /// The relays' processes, as the kernel shows them. What came of landlock it shows to nobody; so that is a relay's own
    /// word.
    pub(crate) fn processes(&self) -> Vec<ProcessStatus> {
        let inner = self.inner();
        let known = inner.all.iter().filter_map(|relay| {
            let mut status = relay.process.status()?;
            if let Some(confinement) = &mut status.confinement {
                confinement.landlock.clone_from(&relay.landlock);
            }
            Some(status)
        });
        let absent = inner.absent.iter().filter_map(|absent| absent.process.as_ref()?.status());
        known.chain(absent).collect()
    }

    /// What an admin should look at: relays that go on although they were told to end, or that control can't talk to.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let inner = self.inner();
        let ending = inner.all.iter().filter(|relay| relay.is_ending()).map(|relay| {
            let (generation, pid) = (relay.generation(), relay.pid());
            format!("relay {generation} (process {pid}) was told to end and goes on: it is killed until it is gone")
        });
        let hidden = inner.all.iter().filter(|relay| relay.process.status().is_none()).map(|relay| {
            let pid = relay.pid();
            format!("process {pid} of a relay is hidden from this one: is /proc mounted with hidepid?")
        });
        let endless = inner.all.iter().filter(|relay| relay.process.is_endless()).map(|relay| {
            let pid = relay.pid();
            format!(
                "process {pid} of a relay can't be made to end: this kernel has no pidfd (Linux 5.3 has it)"
            )
        });
        let absent = inner.absent.iter().map(|absent| absent.warning());
        ending.chain(hidden).chain(endless).chain(absent).collect()
    }

    /// Every relay whose process is there, with what it carries, the newest first.
    pub(crate) async fn statuses(&self) -> Vec<RelayStatus> {
        let (relays, absent) = {
            let inner = self.inner();
            let silent = |absent: &Rc<Absent>| RelayStatus {
                generation: absent.generation,
                pid: absent.process.as_ref().map_or(0, |process| process.pid()),
                state: "silent".to_owned(),
                counts: None,
            };
            (inner.all.clone(), inner.absent.iter().map(silent).collect::<Vec<_>>())
        };
        let mut asking = JoinSet::new();
        for relay in relays {
            asking.spawn_local(async move {
                let counts = match relay.ask(Query::Counts, ANSWER_TIMEOUT).await {
                    Ok(Reply::Counts(counts)) => Some(counts),
                    _ => None,
                };
                let state = match counts {
                    _ if relay.is_ending() => "ending",
                    Some(_) => state_word(relay.state()),
                    None => "silent",
                };
                RelayStatus {
                    generation: relay.generation(),
                    pid: relay.pid(),
                    state: state.to_owned(),
                    counts,
                }
            });
        }
        let mut statuses = asking.join_all().await;
        statuses.extend(absent);
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
            Ok(Reply::Metrics(text)) => {
                let (text, dropped) = exposition::remake(&text);
                self.metrics.relay_metrics_dropped.inc_by(dropped);
                Some(text)
            }
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
