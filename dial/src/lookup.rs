//! Looking a name up without waiting longer than one likes for the resolver, which has times of its own.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::place::Place;

/// Names that may be looked up at a time in one process. A resolver that does not answer holds each of them for as long as it
/// is configured to (resolv.conf(5)), also where nobody waits for it any more.
pub const MAX_LOOKUPS: usize = 64;

static LOOKUPS: AtomicUsize = AtomicUsize::new(0);

/// Has a name looked up on a thread of its own, which tells `done` its addresses in the order of preference. For an address it is
/// called before this returns.
pub fn look_up(place: &Place, done: impl FnOnce(io::Result<Vec<SocketAddr>>) + Send + 'static) {
    if let Some(address) = place.address() {
        return done(Ok(vec![address]));
    }
    let Some(under_way) = UnderWay::begin() else {
        return done(Err(io::Error::other(format!("{MAX_LOOKUPS} names are being looked up already"))));
    };
    let place = place.clone();
    let lookup = move || {
        let _under_way = under_way;
        done((place.host.as_str(), place.port).to_socket_addrs().map(Iterator::collect));
    };
    // Where no thread can be had, `done` is dropped with the closure: whoever waits for it is told by that.
    drop(thread::Builder::new().name("look-up".to_owned()).spawn(lookup));
}

/// Counts one lookup until it is dropped.
struct UnderWay;

impl UnderWay {
    fn begin() -> Option<Self> {
        let more = |count| (count < MAX_LOOKUPS).then_some(count + 1);
        LOOKUPS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Self)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        LOOKUPS.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    fn found(text: &str) -> io::Result<Vec<SocketAddr>> {
        let (told, result) = mpsc::channel();
        look_up(&Place::parse(text).unwrap(), move |found| told.send(found).unwrap());
        result.recv_timeout(Duration::from_secs(30)).unwrap()
    }

    #[test]
    fn addresses_are_their_own_and_names_are_asked_for() {
        assert_eq!(found("[::1]:7").unwrap(), ["[::1]:7".parse().unwrap()]);
        assert!(found("localhost:7").unwrap().contains(&"127.0.0.1:7".parse().unwrap()));
    }
}
