//! Connection limits: how many connections, sessions or streams there may be, in all and for each source or identity.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts permits by key. A [`Permit`] is held as long as it lives.
#[derive(Debug)]
pub struct Limiter<K: Eq + Hash> {
    held: Mutex<HashMap<K, usize>>,
}

impl<K: Eq + Hash> Default for Limiter<K> {
    fn default() -> Self {
        Self { held: Mutex::default() }
    }
}

/// The permission to be one of those that a [`Limiter`] counts under a key. Dropping it gives it back.
#[derive(Debug)]
pub struct Permit<K: Eq + Hash> {
    limiter: Arc<Limiter<K>>,
    key: Option<K>,
}

impl<K: Eq + Hash + Clone> Limiter<K> {
    /// A permit under this key, unless `limit` of them are held already.
    pub fn acquire(self: &Arc<Self>, key: K, limit: usize) -> Option<Permit<K>> {
        let mut held = lock(&self.held);
        let count = held.entry(key.clone()).or_default();
        if *count >= limit {
            if *count == 0 {
                held.remove(&key);
            }
            return None;
        }
        *count += 1;
        Some(Permit { limiter: Arc::clone(self), key: Some(key) })
    }
}

impl<K: Eq + Hash> Drop for Permit<K> {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let mut held = lock(&self.limiter.held);
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

/// What counts as one source: an IPv4 address, or the /64 of an IPv6 address, which one subscriber has to themselves.
/// An IPv4 address that is mapped into IPv6 (RFC 4291, section 2.5.5.2) counts as the IPv4 address.
///
/// ```
/// use zone_accept::source_of;
///
/// let source = |text: &str| source_of(text.parse().unwrap()).to_string();
/// assert_eq!(source("2001:db8::7:1"), "2001:db8::");
/// assert_eq!(source("::ffff:192.0.2.1"), "192.0.2.1");
/// ```
pub fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let mut octets = v6.octets();
            octets[8..].fill(0);
            octets.into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// A lock whose holder panicked still guards data that is whole: every update here is a single step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_is_free_again_when_its_holder_is_gone() {
        let limiter = Arc::new(Limiter::default());
        let first = limiter.acquire("a", 1).unwrap();
        assert!(limiter.acquire("a", 1).is_none());
        assert!(limiter.acquire("b", 1).is_some());
        drop(first);
        assert!(limiter.acquire("a", 1).is_some());
        assert!(lock(&limiter.held).is_empty());
    }

    #[test]
    fn neighbours_in_an_ipv6_network_are_one_source() {
        let of = |text: &str| source_of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
