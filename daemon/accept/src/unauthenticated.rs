//! A bound of their own for connections that have not authenticated: whoever floods a port takes these places and no others,
//! and a newcomer finds one all the same, because the oldest that waits for its peer makes room.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::connection_limit::source_of;

/// For this long from its first byte on, a connection keeps its place: a handshake takes less, and what it has cost by then
/// would be lost.
pub const GRACE: Duration = Duration::from_secs(1);

/// Between two looks whether somebody can be asked to go, while no place is given back.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Counts the connections of one port that have not authenticated.
#[derive(Debug, Default)]
pub struct UnauthenticatedLimit {
    table: Mutex<Table>,
    given_back: Notify,
}

/// A place among the connections that have not authenticated. Dropping it gives the place back: the connection has
/// authenticated, or is gone.
#[derive(Debug)]
pub struct Unauthenticated {
    limit: Arc<UnauthenticatedLimit>,
    id: u64,
    evicted: Arc<Notify>,
}

impl UnauthenticatedLimit {
    /// A place for a connection from this address, where `limit` of them may be. Where they are all taken, another connection
    /// is evicted (see [`Unauthenticated::evicted`]); `None` where none can be asked to go.
    ///
    /// The oldest goes of those that have said nothing, or have been at it for longer than [`GRACE`] and wait for their peers.
    /// Where all are in the
    /// midst of their handshakes, the newest goes of the source that has the most, if it has more than the newcomer's.
    pub fn enter(self: &Arc<Self>, address: IpAddr, limit: usize, now: Instant) -> Option<Unauthenticated> {
        self.enter_beside(address, limit, now, Duration::ZERO)
    }

    /// A place for a connection from this address, which waits for it where none is free: for a port that strangers do not
    /// reach, where many that come at the same time are no flood. Then a silent connection is evicted after [`GRACE`] only. It
    /// does not wait for ever, for every connection has a deadline. Can be cancelled.
    pub async fn wait(self: &Arc<Self>, address: IpAddr, limit: usize) -> Unauthenticated {
        loop {
            let given_back = self.given_back.notified();
            if let Some(place) = self.enter_beside(address, limit, Instant::now(), GRACE) {
                return place;
            }
            // Whichever comes first, there may be a place.
            let _ = timeout(LOOK_INTERVAL, given_back).await;
        }
    }

    fn enter_beside(
        self: &Arc<Self>,
        address: IpAddr,
        limit: usize,
        now: Instant,
        silent_grace: Duration,
    ) -> Option<Unauthenticated> {
        let source = source_of(address);
        let mut table = self.lock();
        // More than one is too many where the limit was lowered.
        while table.places.len() >= limit.max(1) {
            let victim = table.victim(source, now, silent_grace)?;
            if let Some(place) = table.places.remove(&victim) {
                place.evicted.notify_one();
            }
        }
        let (id, evicted) = (table.next, Arc::new(Notify::new()));
        table.next += 1;
        table.places.insert(
            id,
            Place { source, spoke: None, waits_for_us: false, arrived: now, evicted: Arc::clone(&evicted) },
        );
        Some(Unauthenticated { limit: Arc::clone(self), id, evicted })
    }

    /// How many places are taken.
    pub fn count(&self) -> usize {
        self.lock().places.len()
    }

    /// A holder of the lock that panicked leaves a table that is whole: every update is a single step.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unauthenticated {
    /// Looks whether the peer's first byte is there already, as it is where accepting could not keep up: then it counts as said.
    pub fn look_for_first_byte(&self, socket: impl AsFd, now: Instant) {
        let peeked = recv(socket, &mut [0; 1][..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        if matches!(peeked, Ok((1.., _))) {
            self.spoke(now);
        }
    }

    /// The connection comes from this address, as a balancer said.
    pub fn comes_from(&self, address: IpAddr) {
        if let Some(place) = self.limit.lock().places.get_mut(&self.id) {
            place.source = source_of(address);
        }
    }

    /// The peer has sent its first byte.
    pub fn spoke(&self, now: Instant) {
        if let Some(place) = self.limit.lock().places.get_mut(&self.id) {
            place.spoke.get_or_insert(now);
        }
    }

    /// Whether it has sent what was to come from it, and waits in line: then it is not for its peer's slowness that it is there.
    pub fn waits_for_us(&self, waits: bool) {
        if let Some(place) = self.limit.lock().places.get_mut(&self.id) {
            place.waits_for_us = waits;
        }
    }

    /// Waits until this connection has to make room for another, for as long as it takes: for ever where it authenticates.
    pub fn evicted(&self) -> impl Future<Output = ()> + use<> {
        let evicted = Arc::clone(&self.evicted);
        async move { evicted.notified().await }
    }
}

impl Drop for Unauthenticated {
    fn drop(&mut self) {
        self.limit.lock().places.remove(&self.id);
        self.limit.given_back.notify_one();
    }
}

#[derive(Debug, Default)]
struct Table {
    /// By number; a greater one arrived later.
    places: HashMap<u64, Place>,
    next: u64,
}

#[derive(Debug)]
struct Place {
    source: IpAddr,
    arrived: Instant,
    /// When its first byte came.
    spoke: Option<Instant>,
    /// Whether the next step is ours.
    waits_for_us: bool,
    evicted: Arc<Notify>,
}

impl Table {
    fn victim(&self, newcomer: IpAddr, now: Instant, silent_grace: Duration) -> Option<u64> {
        let waiting = self
            .places
            .iter()
            .filter_map(|(id, place)| Some((place.waits_since(now, silent_grace)?, *id)))
            .min();
        waiting.map(|(_, id)| id).or_else(|| self.newest_of_the_most_frequent(newcomer))
    }

    fn newest_of_the_most_frequent(&self, newcomer: IpAddr) -> Option<u64> {
        let mut sources: HashMap<IpAddr, (usize, u64)> = HashMap::new();
        for (id, place) in &self.places {
            let (count, newest) = sources.entry(place.source).or_default();
            (*count, *newest) = (*count + 1, (*newest).max(*id));
        }
        let own = sources.get(&newcomer).map_or(0, |(count, _)| *count);
        let (count, newest) = sources.into_values().max()?;
        (count > own + 1).then_some(newest)
    }
}

impl Place {
    /// Since when it has kept its place waiting for its peer; `None` while a handshake is in progress.
    fn waits_since(&self, now: Instant, silent_grace: Duration) -> Option<Instant> {
        match self.spoke {
            _ if self.waits_for_us => None,
            None => (now.duration_since(self.arrived) >= silent_grace).then_some(self.arrived),
            Some(spoke) => (now.duration_since(spoke) >= GRACE).then_some(self.arrived),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(1);

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn evicted(place: &Unauthenticated) -> bool {
        let mut evicted = std::pin::pin!(place.evicted());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        evicted.as_mut().poll(&mut context).is_ready()
    }

    #[test]
    fn the_oldest_silent_connection_makes_room_for_the_next_one() {
        let (limit, start) = (Arc::new(UnauthenticatedLimit::default()), Instant::now());
        let enter = |at: u32| limit.enter(address(1), 2, start + SOON * at).unwrap();
        let (first, second, third) = (enter(0), enter(1), enter(2));
        assert_eq!([&first, &second, &third].map(evicted), [true, false, false]);
        drop(first);
        assert_eq!(limit.count(), 2, "an evicted one gives no place back twice");
        drop(second);
        assert!(!evicted(&third) && !evicted(&enter(3)) && limit.count() == 1);
    }

    #[test]
    fn a_handshake_in_progress_keeps_its_place_and_one_that_stands_still_does_not() {
        let (limit, start) = (Arc::new(UnauthenticatedLimit::default()), Instant::now());
        let handshake = limit.enter(address(1), 2, start).unwrap();
        handshake.spoke(start);
        let silent = limit.enter(address(2), 2, start + SOON).unwrap();
        let next = limit.enter(address(3), 2, start + SOON * 2).unwrap();
        assert_eq!([&handshake, &silent, &next].map(evicted), [false, true, false]);
        let later = limit.enter(address(3), 2, start + GRACE).unwrap();
        assert_eq!([&handshake, &next, &later].map(evicted), [true, false, false]);
    }

    #[test]
    fn a_handshake_that_waits_for_its_turn_here_keeps_its_place_however_long_it_takes() {
        let (limit, start) = (Arc::new(UnauthenticatedLimit::default()), Instant::now());
        let enter = |at: Duration| limit.enter(address(1), 1, start + at);
        let first = enter(Duration::ZERO).unwrap();
        first.spoke(start);
        first.waits_for_us(true);
        assert!(enter(GRACE * 5).is_none());
        first.waits_for_us(false);
        assert!(enter(GRACE * 5).is_some() && evicted(&first));
    }

    #[test]
    fn where_all_are_at_their_handshakes_the_source_that_has_the_most_makes_room_for_one_that_has_fewer() {
        let (limit, start) = (Arc::new(UnauthenticatedLimit::default()), Instant::now());
        let enter = |source: u8| limit.enter(address(source), 4, start);
        let greedy: Vec<_> = (0..4).map(|_| enter(1).unwrap()).collect();
        for place in &greedy {
            place.spoke(start);
        }
        assert!(enter(1).is_none(), "its own newcomers are refused");
        let other = enter(2).unwrap();
        other.spoke(start);
        assert_eq!(greedy.iter().map(evicted).collect::<Vec<_>>(), [false, false, false, true]);
        let another = enter(2).unwrap();
        another.spoke(start);
        assert!(evicted(&greedy[2]));
        assert!(enter(2).is_none(), "two each is fair");
        assert!(!evicted(&other) && !evicted(&another) && limit.count() == 4);
    }

    #[tokio::test]
    async fn where_newcomers_wait_nobody_is_evicted_at_once_and_each_gets_a_place() {
        let limit = Arc::new(UnauthenticatedLimit::default());
        let first = limit.wait(address(1), 1).await;
        let mut second = std::pin::pin!(limit.wait(address(1), 1));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(second.as_mut().poll(&mut context).is_pending() && !evicted(&first));
        drop(first);
        let second = second.await;
        // A silent one makes room after a while.
        let _third = limit.wait(address(1), 1).await;
        assert!(evicted(&second) && limit.count() == 1);
    }

    #[test]
    fn a_limit_that_was_lowered_is_kept_from_the_next_connection_on() {
        let (limit, start) = (Arc::new(UnauthenticatedLimit::default()), Instant::now());
        let places: Vec<_> = (0..10).map(|_| limit.enter(address(1), 10, start).unwrap()).collect();
        let next = limit.enter(address(1), 3, start).unwrap();
        assert_eq!(limit.count(), 3);
        assert_eq!(places.iter().filter(|place| evicted(place)).count(), 8);
        assert!(!evicted(&next));
    }

    /// Whoever enters, speaks, authenticates or leaves in whatever order: no more places are taken than there are, nobody is
    /// evicted in the midst of a handshake for one of its own source, and a newcomer is refused only where all are.
    #[test]
    fn no_order_of_events_takes_more_places_than_there_are() {
        for seed in 1..=500_u64 {
            let mut random = seed;
            let mut draw = move |below: u64| {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 33) % below
            };
            let limit = Arc::new(UnauthenticatedLimit::default());
            let (mut now, mut held) = (Instant::now(), Vec::<(Unauthenticated, u8, Option<Instant>)>::new());
            for step in 0..200 {
                now += Duration::from_millis(draw(150));
                match draw(4) {
                    0 | 1 => {
                        let source = u8::try_from(draw(3)).unwrap();
                        let busy = |(_, _, spoke): &(_, _, Option<Instant>)| {
                            spoke.is_some_and(|at| now.duration_since(at) < GRACE)
                        };
                        let all_busy = held.len() == 8 && held.iter().all(busy);
                        let entered = limit.enter(address(source), 8, now);
                        assert!(entered.is_some() || all_busy, "seed {seed}, step {step}");
                        let gone: Vec<_> = held.iter().map(|(place, ..)| evicted(place)).collect();
                        for ((_, of, spoke), _) in held.iter().zip(&gone).filter(|(_, gone)| **gone) {
                            let in_progress = spoke.is_some_and(|at| now.duration_since(at) < GRACE);
                            assert!(!in_progress || (all_busy && *of != source), "seed {seed}, step {step}");
                        }
                        let mut gone = gone.into_iter();
                        held.retain(|_| gone.next() != Some(true));
                        held.extend(entered.map(|place| (place, source, None)));
                    }
                    2 if !held.is_empty() => {
                        let index = usize::try_from(draw(held.len() as u64)).unwrap();
                        held[index].0.spoke(now);
                        held[index].2.get_or_insert(now);
                    }
                    3 if !held.is_empty() => {
                        drop(held.swap_remove(usize::try_from(draw(held.len() as u64)).unwrap()));
                    }
                    _ => {}
                }
                assert!(limit.count() == held.len() && held.len() <= 8, "seed {seed}, step {step}");
            }
        }
    }
}
