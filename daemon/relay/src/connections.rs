//! Who is connected, and ending connections of those who may no longer be.
//!
//! A connection registers first and is authorised afterwards, under the rules in force then. A change of rules
//! is made first and looks at who is registered afterwards. So whichever comes first, nobody slips between.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use time::OffsetDateTime;
use tokio::sync::Notify;
use zone_protocol::identity::Label;
use zone_protocol::tls::certificate::{Leaf, NameHash};

use crate::lock::lock;
use crate::rules::{Port, Rules};

#[cfg(test)]
mod interleavings;

/// Why a connection is ended from outside its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TerminationReason {
    /// Its certificate is not admitted any more.
    NotAdmitted,
    /// The relay stops, or its time to drain is up.
    Stopping,
}

/// Ends a connection from outside its task.
#[derive(Debug, Default)]
pub(crate) struct Termination {
    reason: OnceLock<TerminationReason>,
    wake: Notify,
}

impl Termination {
    /// Ends it. The first reason counts.
    pub(crate) fn terminate(&self, reason: TerminationReason) {
        let _ = self.reason.set(reason);
        self.wake.notify_waiters();
    }

    /// Waits until it is to end. Can be cancelled.
    pub(crate) async fn terminated(&self) -> TerminationReason {
        loop {
            // Made before the reason is looked for, so that a termination in between is not missed.
            let waiting = self.wake.notified();
            if let Some(reason) = self.reason.get() {
                return *reason;
            }
            waiting.await;
        }
    }
}

#[derive(Debug)]
struct Entry {
    port: Port,
    leaf: Arc<Leaf>,
    issuers: Box<[NameHash]>,
    termination: Arc<Termination>,
}

/// Every connection that passed its handshake.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    next: AtomicU64,
    entries: Mutex<HashMap<u64, Entry>>,
    empty: Notify,
}

/// A connection's entry, as long as it lives.
#[derive(Debug)]
pub(crate) struct Registered {
    connections: Arc<Connections>,
    number: u64,
    /// Who it is.
    pub(crate) leaf: Arc<Leaf>,
    /// Ends it, when it may no longer be connected.
    pub(crate) termination: Arc<Termination>,
}

impl Connections {
    /// Registers a connection. The caller authorises it next.
    pub(crate) fn register(self: &Arc<Self>, port: Port, leaf: Leaf, issuers: Box<[NameHash]>) -> Registered {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (leaf, termination) = (Arc::new(leaf), Arc::new(Termination::default()));
        let entry = Entry { port, leaf: Arc::clone(&leaf), issuers, termination: Arc::clone(&termination) };
        lock(&self.entries).insert(number, entry);
        Registered { connections: Arc::clone(self), number, leaf, termination }
    }

    /// Ends every connection that these rules no longer admit; returns how many, and the endpoints that have none
    /// left. Those whom an anchor vouched for that the rules `before` had, and these have not, go as well.
    pub(crate) fn enforce(&self, rules: &Rules, before: &Rules, now: OffsetDateTime) -> (usize, Vec<Label>) {
        let removed = |port| rules.removed_anchors(before, port);
        let (for_endpoints, for_callers) = (removed(Port::Endpoint), removed(Port::ModuleServer));
        let entries = lock(&self.entries);
        let mut ended = 0;
        let (mut terminated, mut kept) = (HashSet::new(), HashSet::new());
        for entry in entries.values() {
            let removed = if entry.port == Port::Endpoint { &for_endpoints } else { &for_callers };
            let admitted = rules.port(entry.port).admission.still_admits(&entry.leaf, now).is_ok()
                && !entry.issuers.iter().any(|issuer| removed.contains(issuer));
            if !admitted {
                ended += 1;
                entry.termination.terminate(TerminationReason::NotAdmitted);
            }
            if entry.port == Port::Endpoint {
                let endpoints = if admitted { &mut kept } else { &mut terminated };
                endpoints.insert(entry.leaf.identity.name.clone());
            }
        }
        (ended, terminated.difference(&kept).cloned().collect())
    }

    /// Ends all of them.
    pub(crate) fn end_all(&self) {
        for entry in lock(&self.entries).values() {
            entry.termination.terminate(TerminationReason::Stopping);
        }
    }

    /// How many there are on a port.
    pub(crate) fn count(&self, port: Port) -> usize {
        lock(&self.entries).values().filter(|entry| entry.port == port).count()
    }

    /// Waits until there are none.
    pub(crate) async fn gone(&self) {
        loop {
            let waiting = self.empty.notified();
            if lock(&self.entries).is_empty() {
                return;
            }
            waiting.await;
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut entries = lock(&self.connections.entries);
        entries.remove(&self.number);
        if entries.is_empty() {
            self.connections.empty.notify_waiters();
        }
        if entries.capacity() > 1_024 && entries.len() * 4 < entries.capacity() {
            entries.shrink_to_fit();
        }
    }
}
