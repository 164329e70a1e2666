//! How many parks this endpoint holds at a time: as many as configured, or fewer where its proxy keeps fewer of one endpoint id.
//!
//! A proxy says how many it keeps. An earlier one does not: it cuts the oldest park, without a word, whenever there is one more
//! than it keeps. Whoever dials that one again pushes the next one out, for ever. So several cuts that follow right upon a new
//! park are taken for what the proxy does not say.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

/// A cut that comes so soon behind a new park may be its consequence.
const CONSEQUENCE_WINDOW: Duration = Duration::from_secs(2);

/// So many cuts of that kind in a row are no chance.
const MIN_CUTS: u32 = 3;

/// What was guessed is never less: with fewer parks an endpoint can't be called while a session begins.
const MIN_GUESS: u32 = 2;

/// A park that is let go may be one too many of our own for so long after there were too many.
const SURPLUS_MEMORY: Duration = Duration::from_secs(3);

/// A guess holds for so long: the proxy's limit may be raised.
const GUESS_LIFETIME: Duration = Duration::from_secs(3600);

/// What is said where parks are pushed out by somebody else's.
const OTHERS: &str = "a newer park of this endpoint id took the place of one of ours: another machine runs under the same id, from a copied image or bundle; each needs an id and a certificate of its own";

/// How many parks are wanted, and how many there are.
#[derive(Debug)]
pub(crate) struct Allowance(Mutex<Tally>);

/// Counts a dial that is under way.
pub(crate) struct Dialing<'a>(&'a Allowance);

impl Drop for Dialing<'_> {
    fn drop(&mut self) {
        self.0.with(|tally, _| tally.dialing = tally.dialing.saturating_sub(1));
    }
}

/// The same, by itself.
#[derive(Debug)]
struct Tally {
    configured: u32,
    held: u32,
    /// Dials that are under way.
    dialing: u32,
    /// When held and dialed ones together were last seen to be more than the proxy keeps.
    exceeded: Option<Instant>,
    /// How many the proxy says that it keeps.
    told: Option<u32>,
    /// How many an earlier proxy seems to keep, and since when.
    guessed: Option<(u32, Instant)>,
    last_parked: Option<Instant>,
    /// Cuts in a row that came right behind a new park.
    cuts: u32,
    /// What was last warned of.
    warned: Option<u32>,
    /// Whether somebody else has pushed a park out, and whether that was said.
    others: Option<bool>,
}

impl Allowance {
    /// For so many parks, as the endpoint is configured.
    pub(crate) fn new(configured: u32) -> Self {
        Self(Mutex::new(Tally {
            configured,
            held: 0,
            dialing: 0,
            exceeded: None,
            told: None,
            guessed: None,
            last_parked: None,
            cuts: 0,
            warned: None,
            others: None,
        }))
    }

    /// A park is being dialed until this is dropped.
    pub(crate) fn dialing(&self) -> Dialing<'_> {
        self.with(|tally, _| tally.dialing += 1);
        Dialing(self)
    }

    /// A proxy has taken a park, and said how many it keeps, if it did; how many parks are wanted from here on.
    pub(crate) fn parked(&self, told: Option<u32>) -> u32 {
        self.with(|tally, now| tally.parked(told, now))
    }

    /// A park is gone, for another reason than that the proxy cut it.
    pub(crate) fn gone(&self) {
        self.with(|tally, _| tally.gone());
    }

    /// A park was cut without a word; how many parks are wanted from here on.
    pub(crate) fn cut(&self) -> u32 {
        self.with(Tally::cut)
    }

    /// A park, which is still counted, was let go for a newer one. Whether that is this endpoint's own: it holds more parks than
    /// it should.
    pub(crate) fn is_own_surplus(&self) -> bool {
        self.with(Tally::is_own_surplus)
    }

    /// Works on the tally, and warns if fewer parks are wanted than before.
    fn with<T>(&self, work: impl FnOnce(&mut Tally, Instant) -> T) -> T {
        let mut tally = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let result = work(&mut tally, now);
        if let Some(warning) = tally.warning(now) {
            warn!("{warning}");
        }
        result
    }
}

impl Tally {
    fn wanted(&self, now: Instant) -> u32 {
        let guess = || {
            let (guess, since) = self.guessed?;
            (now.duration_since(since) < GUESS_LIFETIME).then_some(guess)
        };
        self.told.or_else(guess).map_or(self.configured, |limit| self.configured.min(limit.max(1)))
    }

    fn parked(&mut self, told: Option<u32>, now: Instant) -> u32 {
        self.held += 1;
        self.told = told;
        self.last_parked = Some(now);
        self.note_surplus(now);
        self.wanted(now)
    }

    fn gone(&mut self) {
        self.held = self.held.saturating_sub(1);
    }

    fn cut(&mut self, now: Instant) -> u32 {
        self.gone();
        let soon = |parked: Instant| now.duration_since(parked) < CONSEQUENCE_WINDOW;
        if self.told.is_none() && self.held >= MIN_GUESS && self.last_parked.is_some_and(soon) {
            self.cuts += 1;
            if self.cuts >= MIN_CUTS && self.held < self.wanted(now) {
                self.guessed = Some((self.held, now));
            }
        } else {
            self.cuts = 0;
        }
        self.wanted(now)
    }

    fn is_own_surplus(&mut self, now: Instant) -> bool {
        self.note_surplus(now);
        let is_own = self.exceeded.is_some_and(|then| now.duration_since(then) < SURPLUS_MEMORY);
        if !is_own && self.others.is_none() {
            self.others = Some(false);
        }
        is_own
    }

    /// Parks are let go at the proxy before the newer ones are confirmed here, so those that are being dialed count.
    fn note_surplus(&mut self, now: Instant) {
        if self.told.is_some_and(|keeps| self.held + self.dialing > keeps) {
            self.exceeded = Some(now);
        }
    }

    /// What is to be said, once for each number of parks, and once of others.
    fn warning(&mut self, now: Instant) -> Option<String> {
        if self.others == Some(false) {
            self.others = Some(true);
            return Some(OTHERS.to_owned());
        }
        let wanted = self.wanted(now);
        if wanted >= self.configured || self.warned == Some(wanted) {
            return None;
        }
        self.warned = Some(wanted);
        let how = if self.told.is_some() { "keeps" } else { "seems to keep" };
        Some(format!(
            "parks = {}, and the proxy {how} {wanted} parks of one endpoint (limits.parks_per_endpoint there): {wanted} are held",
            self.configured
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(configured: u32) -> (Tally, Instant) {
        let Allowance(tally) = Allowance::new(configured);
        (tally.into_inner().unwrap(), Instant::now())
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn an_endpoint_holds_no_more_than_the_proxy_says_and_says_so_once() {
        let (mut tally, now) = tally(8);
        assert_eq!(tally.parked(Some(4), now), 4);
        assert!(tally.warning(now).unwrap().contains("parks = 8, and the proxy keeps 4"));
        assert_eq!(tally.parked(Some(4), now), 4);
        assert_eq!(tally.warning(now), None);
        assert_eq!(tally.parked(Some(16), now), 8, "as configured where the proxy keeps more");
        assert_eq!(tally.parked(Some(0), now), 1, "never none");
    }

    #[test]
    fn a_park_that_is_pushed_out_by_somebody_else_is_told_from_a_surplus_of_our_own() {
        let (mut tally, now) = tally(2);
        assert_eq!([(); 2].map(|()| tally.parked(Some(4), now)), [2, 2]);
        assert!(!tally.is_own_surplus(now));
        assert!(tally.warning(now).unwrap().contains("another machine"));
        assert!(!tally.is_own_surplus(now) && tally.warning(now).is_none(), "it is said once");
        tally.dialing = 3;
        assert!(tally.is_own_surplus(now));
        tally.dialing = 0;
        assert!(tally.is_own_surplus(now + seconds(2)), "what follows upon it is told later");
        assert!(!tally.is_own_surplus(now + SURPLUS_MEMORY));
    }

    #[test]
    fn what_an_earlier_proxy_keeps_is_guessed_from_cuts_that_follow_upon_new_parks() {
        let (mut tally, mut now) = tally(8);
        (0..4).for_each(|_| assert_eq!(tally.parked(None, now), 8));
        let wanted: Vec<_> = (0..4)
            .map(|_| {
                now += seconds(1);
                tally.parked(None, now);
                tally.cut(now)
            })
            .collect();
        assert_eq!(wanted, [8, 8, 4, 4]);
        assert!(tally.warning(now).unwrap().contains("seems to keep 4"));
        assert_eq!(tally.wanted(now + GUESS_LIFETIME), 8, "the limit may have been raised");
    }

    #[test]
    fn parks_that_are_lost_by_themselves_are_no_reason_to_hold_fewer() {
        let (mut tally, mut now) = tally(4);
        assert_eq!([(); 4].map(|()| tally.parked(None, now)), [4; 4]);
        for _ in 0..20 {
            now += seconds(5);
            assert_eq!(tally.cut(now), 4);
            tally.parked(None, now + seconds(1));
        }
        // All at once, again and again: a relay that crashes.
        for _ in 0..20 {
            now += seconds(1);
            (0..4).for_each(|_| assert!(tally.cut(now) >= MIN_GUESS));
            (0..4).for_each(|_| assert!(tally.parked(None, now) >= MIN_GUESS));
        }
    }
}
