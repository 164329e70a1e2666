//! How long to wait before the next dial.

use std::time::Duration;

use rand::{Rng, RngExt as _};

/// The longest wait after a proxy let go of a park in an orderly way that had lasted, or of one that it let go soon after.
const MAX_PROMPT_DELAY: Duration = Duration::from_millis(100);

/// The longest wait after a proxy has let go of several parks in a row that did not last.
const MAX_CLEAN_CLOSE_DELAY: Duration = Duration::from_secs(1);

/// So many parks in a row that are let go, and do not last, are dialed again promptly.
const PROMPT_DIALS: u32 = 3;

/// So many failures after an orderly end are not taken for the proxy's absence: it stops and starts again.
const EXPECTED_FAILURES: u32 = 10;

/// Exponential back-off with full jitter: each wait is drawn evenly from zero to a window that doubles with
/// every failure in a row, so that endpoints cut off together don't come back together.
#[derive(Debug, Clone)]
pub(crate) struct BackOff {
    first: Duration,
    longest: Duration,
    failures: u32,
    prompt_dials: u32,
    /// Further failures that do not make the window wider.
    expected_failures: u32,
}

impl BackOff {
    /// Windows grow from `first` to `longest`.
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        let longest = longest.max(first);
        Self { first, longest, failures: 0, prompt_dials: PROMPT_DIALS, expected_failures: 0 }
    }

    /// The wait after a failure.
    pub(crate) fn after_failure(&mut self, rng: &mut impl Rng) -> Duration {
        if self.expected_failures > 0 {
            self.expected_failures -= 1;
            return within(self.first, rng);
        }
        within(self.next_window(), rng)
    }

    /// The wait after a park was pushed out by somebody else's: at least half of the window, or the two would push each other out
    /// again and again.
    pub(crate) fn after_eviction(&mut self, rng: &mut impl Rng) -> Duration {
        let half = self.next_window() / 2;
        half + within(half, rng)
    }

    /// The wait after a clean close: the proxy wants the endpoint back, and somebody may wait for it there; only a proxy that
    /// closes again and again is dialed more slowly.
    pub(crate) fn after_clean_close(&mut self, rng: &mut impl Rng) -> Duration {
        self.failures = 0;
        self.expected_failures = EXPECTED_FAILURES;
        if self.prompt_dials == 0 {
            return within(MAX_CLEAN_CLOSE_DELAY, rng);
        }
        self.prompt_dials -= 1;
        within(MAX_PROMPT_DELAY, rng)
    }

    fn next_window(&mut self) -> Duration {
        let doubled = 2_u32.checked_pow(self.failures).and_then(|factor| self.first.checked_mul(factor));
        self.failures = self.failures.saturating_add(1);
        doubled.unwrap_or(self.longest).min(self.longest)
    }

    /// Starts again from the first window: a connection has proved good.
    pub(crate) fn reset(&mut self) {
        (self.failures, self.prompt_dials, self.expected_failures) = (0, PROMPT_DIALS, 0);
    }
}

fn within(window: Duration, rng: &mut impl Rng) -> Duration {
    window.mul_f64(rng.random_range(0.0..=1.0))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use rand::rngs::StdRng;
    use rand::{SeedableRng as _, TryRng};

    use super::*;

    /// Draws the top of every range, which shows the windows themselves.
    struct Highest;

    impl TryRng for Highest {
        type Error = Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Infallible> {
            Ok(u32::MAX)
        }

        fn try_next_u64(&mut self) -> Result<u64, Infallible> {
            Ok(u64::MAX)
        }

        fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
            bytes.fill(u8::MAX);
            Ok(())
        }
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn the_window_doubles_up_to_the_longest_and_starts_again_after_a_success() {
        let mut back_off = BackOff::new(seconds(1), seconds(10));
        let mut windows: Vec<_> = (0..6).map(|_| back_off.after_failure(&mut Highest)).collect();
        back_off.reset();
        windows.push(back_off.after_failure(&mut Highest));
        let rounded: Vec<_> = windows.iter().map(|w| (w.as_millis() + 1) / 1000).collect();
        assert_eq!(rounded, [1, 2, 4, 8, 10, 10, 1]);
    }

    #[test]
    fn a_failure_after_very_many_waits_the_longest_and_no_more() {
        let mut back_off = BackOff::new(seconds(1), seconds(60));
        back_off.failures = u32::MAX;
        assert!(back_off.after_failure(&mut Highest) <= seconds(60));
    }

    #[test]
    fn waits_are_spread_over_the_whole_window() {
        let mut rng = StdRng::seed_from_u64(7);
        let waits: Vec<_> = (0..1000)
            .map(|_| BackOff::new(seconds(8), seconds(60)).after_failure(&mut rng).as_secs_f64())
            .collect();
        let mean = waits.iter().sum::<f64>() / 1000.0;
        assert!((3.5..4.5).contains(&mean), "mean {mean}");
        assert!(waits.iter().any(|w| *w < 0.5) && waits.iter().any(|w| *w > 7.5));
    }

    #[test]
    fn a_park_that_was_pushed_out_stays_away_for_half_of_its_window_at_least() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut back_off = BackOff::new(seconds(60), seconds(600));
        for (least, most) in [(30, 60), (60, 120), (120, 240), (240, 480), (300, 600), (300, 600)] {
            let wait = back_off.after_eviction(&mut rng);
            assert!(wait >= seconds(least) && wait <= seconds(most), "{wait:?}");
        }
    }

    #[test]
    fn a_clean_close_brings_the_endpoint_back_promptly_and_a_proxy_that_goes_on_closing_within_a_second() {
        let mut back_off = BackOff::new(seconds(1), seconds(60));
        let longest = |back_off: &mut BackOff| back_off.after_clean_close(&mut Highest).as_millis();
        let waits: Vec<_> = (0..5).map(|_| longest(&mut back_off)).collect();
        assert_eq!(waits, [100, 100, 100, 1_000, 1_000]);
        back_off.reset();
        assert_eq!(longest(&mut back_off), 100, "a park that lasted");
    }

    #[test]
    fn a_proxy_that_said_goodbye_is_dialed_every_second_for_a_while_until_it_is_back() {
        let mut back_off = BackOff::new(seconds(1), seconds(60));
        back_off.after_failure(&mut Highest);
        back_off.after_clean_close(&mut Highest);
        let windows: Vec<_> =
            (0..13).map(|_| back_off.after_failure(&mut Highest).as_secs_f64().round()).collect();
        assert_eq!(windows, [1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 2., 4.]);
    }
}
