//! The proxies that an endpoint may park at.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::{debug, warn};

/// The proxies in order of preference, and which one was good last.
pub(crate) struct Proxies {
    list: Vec<Proxy>,
    last_good: AtomicUsize,
}

impl Proxies {
    pub(crate) fn new(addresses: &[String]) -> Self {
        let proxy =
            |address: &String| Proxy { address: address.as_str().into(), last_failure: Mutex::default() };
        Self { list: addresses.iter().map(proxy).collect(), last_good: AtomicUsize::new(0) }
    }

    /// Each once, beginning with the one that was good last.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = &Proxy> {
        let first = self.last_good.load(Ordering::Relaxed);
        (0..self.list.len()).map(move |n| &self.list[(first + n) % self.list.len()])
    }

    /// The next dial begins here.
    pub(crate) fn mark_good(&self, proxy: &Proxy) {
        proxy.forget_failure();
        if let Some(index) = self.list.iter().position(|other| std::ptr::eq(other, proxy)) {
            self.last_good.store(index, Ordering::Relaxed);
        }
    }
}

/// One proxy.
pub(crate) struct Proxy {
    /// `host:port` as configured.
    pub(crate) address: Arc<str>,
    last_failure: Mutex<Option<String>>,
}

impl Proxy {
    /// Logs why the proxy could not be parked at, once for as long as the reason stays the same.
    pub(crate) fn log_failure(&self, reason: &str) {
        let mut last = self.last_failure.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_deref() == Some(reason) {
            debug!("{reason}");
        } else {
            warn!("{reason}");
            *last = Some(reason.to_owned());
        }
    }

    fn forget_failure(&self) {
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dialing_begins_with_the_proxy_that_was_good_last_and_comes_round_to_all() {
        let proxies = Proxies::new(&["a:1".into(), "b:1".into(), "c:1".into()]);
        let order = || proxies.in_order().map(|p| p.address.to_string()).collect::<Vec<_>>();
        assert_eq!(order(), ["a:1", "b:1", "c:1"]);
        proxies.mark_good(&proxies.list[1]);
        assert_eq!(order(), ["b:1", "c:1", "a:1"]);
    }
}
