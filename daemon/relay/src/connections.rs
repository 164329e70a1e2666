//! Who is connected, and ending connections of those who may no longer be.
//!
//! A connection registers first and is authorised afterwards, under the rules in force then. A change of rules
//! is made first and looks at who is registered afterwards. So whichever comes first, nobody slips between.
//!
//! A certificate's time is judged by the wall clock once, in the handshake. From then on a clock that can't be set counts
//! down to its end: a wall clock that is put back or forward ends nobody, and a connection that no session uses ends
//! with its certificate. So does one whose authority is retired; where the authority is denied as well, its session ends
//! too, also if that comes later.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio::sync::Notify;
use zone_protocol::identity::Label;
use zone_protocol::tls::certificate::{Issued, Leaf, NameHash};

use crate::lock::lock;
use crate::rules::{Port, Rules};

#[cfg(test)]
mod interleavings;

/// Why a connection is ended from outside its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TerminationReason {
    /// Its certificate is not admitted any more.
    NotAdmitted,
    /// Its certificate has ended, and no session uses it.
    Expired,
    /// Its authority was retired, and no session uses it. Its owner may have another certificate by now.
    Retired,
    /// The relay stops, or its time to drain is up.
    Stopping,
}

/// Ends a connection from outside its task.
#[derive(Debug, Default)]
pub(crate) struct Termination {
    reason: OnceLock<TerminationReason>,
    wake: Notify,
    /// Whether a session uses the connection or is about to, which goes on beyond the end of its certificate. Changed
    /// under the lock on all entries.
    in_session: AtomicBool,
}

impl Termination {
    /// Ends it. The first reason counts.
    pub(crate) fn terminate(&self, reason: TerminationReason) {
        let _ = self.reason.set(reason);
        self.wake.notify_waiters();
    }

    /// Ends it unless a session uses it, or it is ended already; whether it did.
    fn terminate_idle(&self, reason: TerminationReason) -> bool {
        let idle = !self.in_session.load(Ordering::Acquire) && self.reason.get().is_none();
        if idle {
            self.terminate(reason);
        }
        idle
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
    /// When its certificate ends.
    expires: Instant,
    /// The authorities of its chain that were retired since.
    retired: Vec<Issued>,
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
        let expires = end_of(&leaf, OffsetDateTime::now_utc(), Instant::now());
        let entry = Entry {
            port,
            leaf: Arc::clone(&leaf),
            issuers,
            expires,
            retired: Vec::new(),
            termination: Arc::clone(&termination),
        };
        lock(&self.entries).insert(number, entry);
        Registered { connections: Arc::clone(self), number, leaf, termination }
    }

    /// Ends every connection that these rules no longer admit; returns how many, and the endpoints that have none
    /// left. Those whom an anchor vouched for that the rules `before` had, and these have not, go as well, but for
    /// sessions where the anchor is retired.
    pub(crate) fn enforce(&self, rules: &Rules, before: &Rules) -> (usize, Vec<Label>) {
        let removed = |port| rules.removed_anchors(before, port);
        let (for_endpoints, for_callers) = (removed(Port::Endpoint), removed(Port::ModuleServer));
        let mut entries = lock(&self.entries);
        let mut ended = 0;
        let (mut terminated, mut kept) = (HashSet::new(), HashSet::new());
        for entry in entries.values_mut() {
            let removed = if entry.port == Port::Endpoint { &for_endpoints } else { &for_callers };
            let admission = &rules.port(entry.port).admission;
            let admitted = admission.allows(&entry.leaf).is_ok()
                && !removed.end(&entry.issuers)
                && !entry.retired.iter().any(|authority| admission.denies(authority));
            let retired = entry.retired.len();
            entry.retired.extend(removed.retired_among(&entry.issuers).map(|a| a.certificate.clone()));
            if !admitted {
                ended += 1;
                entry.termination.terminate(TerminationReason::NotAdmitted);
            } else if entry.retired.len() > retired
                && entry.termination.terminate_idle(TerminationReason::Retired)
            {
                ended += 1;
            }
            if entry.port == Port::Endpoint {
                let endpoints = if admitted { &mut kept } else { &mut terminated };
                endpoints.insert(entry.leaf.identity.name.clone());
            }
        }
        (ended, terminated.difference(&kept).cloned().collect())
    }

    /// Ends every connection whose certificate has ended by now, but for those of sessions; returns how many.
    pub(crate) fn end_expired(&self, now: Instant) -> usize {
        let mut ended = 0;
        for entry in lock(&self.entries).values() {
            if entry.expires <= now && entry.termination.terminate_idle(TerminationReason::Expired) {
                ended += 1;
            }
        }
        ended
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

impl Registered {
    /// A session uses the connection from now on, or is about to, and ends with it. False where the connection was ended
    /// before: then there is no session.
    pub(crate) fn begin_session(&self) -> bool {
        // Whoever ends idle connections holds the lock, so it is either before this or after it.
        let _entries = lock(&self.connections.entries);
        self.termination.in_session.store(true, Ordering::Release);
        self.termination.reason.get().is_none()
    }
}

/// The moment at which a certificate ends, by a clock that can't be set. Its last second belongs to it.
fn end_of(leaf: &Leaf, wall: OffsetDateTime, now: Instant) -> Instant {
    /// Beyond it nobody asks; an `Instant` holds less than a certificate can say.
    const MAX_SECONDS: u64 = 100 * 366 * 24 * 60 * 60;
    let left = leaf.not_after.saturating_add(1).saturating_sub(wall.unix_timestamp());
    now + Duration::from_secs(u64::try_from(left).unwrap_or(0).min(MAX_SECONDS))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Authority, policy};

    const NOW: i64 = 1_700_000_000;

    fn leaf(not_before: i64, not_after: i64) -> Leaf {
        let authority = Authority::new("endpoints");
        let leaf = Leaf::read(&authority.leaf("spiffe://zone/endpoint/host-7").der).unwrap();
        Leaf { not_before, not_after, ..leaf }
    }

    #[test]
    fn a_connection_ends_after_the_last_second_of_its_certificate_and_one_of_a_session_does_not() {
        let wall = OffsetDateTime::now_utc().unix_timestamp();
        let connections: Arc<Connections> = Arc::default();
        let register = || connections.register(Port::Endpoint, leaf(wall - 9, wall + 5), Box::default());
        let (park, leg) = (register(), register());
        assert!(leg.begin_session());
        let now = Instant::now();
        assert_eq!(connections.end_expired(now + Duration::from_secs(4)), 0);
        assert_eq!(connections.end_expired(now + Duration::from_secs(7)), 1);
        assert_eq!(connections.end_expired(now + Duration::from_secs(8)), 0, "once is enough");
        assert_eq!(park.termination.reason.get(), Some(&TerminationReason::Expired));
        assert_eq!(leg.termination.reason.get(), None);
        assert!(!park.begin_session(), "a session on a connection that was ended");
    }

    #[test]
    fn a_wall_clock_that_was_set_back_or_forward_ends_nobody_when_the_rules_change() {
        let (proxies, endpoints) = (Authority::new("proxies"), Authority::new("endpoints"));
        let rules = Rules::new(&policy(&proxies, &[&endpoints], &[&endpoints])).unwrap();
        let connections: Arc<Connections> = Arc::default();
        let wall = OffsetDateTime::now_utc().unix_timestamp();
        let (day, year) = (24 * 60 * 60, 365 * 24 * 60 * 60);
        // By the wall clock as it stands now, the one is not valid yet, and the other no more.
        let early = connections.register(Port::Endpoint, leaf(wall + day, wall + year), Box::default());
        let late = connections.register(Port::Endpoint, leaf(wall - year, wall - day), Box::default());
        assert_eq!(connections.enforce(&rules, &rules), (0, Vec::new()));
        assert!(early.termination.reason.get().is_none() && late.termination.reason.get().is_none());
    }

    #[test]
    fn the_end_of_a_certificate_is_reckoned_from_the_handshake_whatever_it_says() {
        let (wall, now) = (OffsetDateTime::from_unix_timestamp(NOW).unwrap(), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(end_of(&leaf(0, NOW + 59), wall, now), after(60));
        assert_eq!(end_of(&leaf(0, NOW - 60), wall, now), now);
        assert!(end_of(&leaf(0, i64::MAX), wall, now) > after(3_000_000_000));
    }
}
