//! Counting what is there, so that no source and no identity gets more than its share, and keeping the log
//! readable while somebody tries.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Counts holders by key; a [`Place`] is held as long as it lives.
#[derive(Debug)]
pub struct Counted<K: Eq + Hash> {
    held: Mutex<HashMap<K, usize>>,
}

impl<K: Eq + Hash> Default for Counted<K> {
    fn default() -> Self {
        Self { held: Mutex::default() }
    }
}

/// One of a key's places.
#[derive(Debug)]
pub struct Place<K: Eq + Hash> {
    counted: Arc<Counted<K>>,
    key: Option<K>,
}

impl<K: Eq + Hash + Clone> Counted<K> {
    /// A place, unless `most` are taken.
    pub fn take(self: &Arc<Self>, key: K, most: usize) -> Option<Place<K>> {
        let mut held = lock(&self.held);
        let count = held.entry(key.clone()).or_default();
        if *count >= most {
            if *count == 0 {
                held.remove(&key);
            }
            return None;
        }
        *count += 1;
        Some(Place { counted: Arc::clone(self), key: Some(key) })
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let mut held = lock(&self.counted.held);
        if let Some(count) = held.get_mut(&key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                held.remove(&key);
            }
        }
        if held.capacity() > 1_024 && held.len() * 4 < held.capacity() {
            held.shrink_to_fit();
        }
    }
}

/// What counts as one source: an IPv4 address, or the /64 of an IPv6 address.
pub fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let mut octets = v6.octets();
            octets[8..].fill(0);
            octets.into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Lets a burst of lines of one kind through, then some a second, and says how many it swallowed.
#[derive(Debug, Default)]
pub struct LogBudget {
    kinds: Mutex<HashMap<&'static str, Budget>>,
}

#[derive(Debug)]
struct Budget {
    left: f64,
    at: Instant,
    swallowed: u64,
}

const BURST: f64 = 50.0;
const PER_SECOND: f64 = 5.0;

impl LogBudget {
    /// Whether a line of this kind may be written now, and how many were not since the last one.
    pub fn allows(&self, kind: &'static str, now: Instant) -> Option<u64> {
        let mut kinds = lock(&self.kinds);
        let budget = kinds.entry(kind).or_insert(Budget { left: BURST, at: now, swallowed: 0 });
        budget.left = (budget.left + now.duration_since(budget.at).as_secs_f64() * PER_SECOND).min(BURST);
        budget.at = now;
        if budget.left < 1.0 {
            budget.swallowed += 1;
            return None;
        }
        budget.left -= 1.0;
        Some(std::mem::take(&mut budget.swallowed))
    }
}

/// A lock whose holder panicked still guards data that is whole: every update here is a single step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_place_is_free_again_when_its_holder_is_gone() {
        let counted = Arc::new(Counted::default());
        let first = counted.take("a", 1).unwrap();
        assert!(counted.take("a", 1).is_none());
        assert!(counted.take("b", 1).is_some());
        drop(first);
        assert!(counted.take("a", 1).is_some());
        assert!(lock(&counted.held).is_empty());
    }

    #[test]
    fn neighbours_in_an_ipv6_network_are_one_source() {
        let of = |text: &str| source(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }

    #[test]
    fn a_flood_of_one_kind_is_cut_and_counted() {
        let budget = LogBudget::default();
        let start = Instant::now();
        let written = (0..1_000).filter(|_| budget.allows("x", start).is_some()).count();
        assert_eq!(written, 50);
        assert_eq!(budget.allows("y", start), Some(0));
        assert_eq!(budget.allows("x", start + Duration::from_secs(1)), Some(950));
    }
}
