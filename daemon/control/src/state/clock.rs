//! Time as the daemon sees it: a wall clock that may be set back, and a clock since boot that can't be.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use time::OffsetDateTime;

/// How far the wall clock may lie behind the highest time ever stored before that is worth a word.
pub const TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// Where time comes from.
pub trait Clock {
    /// The wall clock, UTC.
    fn wall(&self) -> OffsetDateTime;
    /// Time since boot, suspended time included (`CLOCK_BOOTTIME`).
    fn since_boot(&self) -> Duration;
    /// Which boot; another one starts [`Clock::since_boot`] again.
    fn boot_id(&self) -> &str;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    boot_id: String,
}

impl SystemClock {
    /// Reads which boot this is. Where the kernel does not say, every start counts as another boot.
    pub fn new() -> Self {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_or_else(|_| uuid::Uuid::new_v4().to_string(), |text| text.trim().to_owned());
        Self { boot_id }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }

    fn since_boot(&self) -> Duration {
        let now = clock_gettime(ClockId::Boottime);
        Duration::new(
            u64::try_from(now.tv_sec).unwrap_or_default(),
            u32::try_from(now.tv_nsec).unwrap_or_default(),
        )
    }

    fn boot_id(&self) -> &str {
        &self.boot_id
    }
}

/// The clocks, with the highest wall clock that was ever stored.
pub struct Time {
    clock: Rc<dyn Clock>,
    highest: Cell<OffsetDateTime>,
}

impl Time {
    /// `highest` is what the state directory remembers.
    pub fn new(clock: Rc<dyn Clock>, highest: Option<OffsetDateTime>) -> Self {
        let highest = Cell::new(highest.unwrap_or(OffsetDateTime::UNIX_EPOCH));
        Self { clock, highest }
    }

    /// The wall clock, as an admin sees it. Certificates are judged by it.
    pub fn wall(&self) -> OffsetDateTime {
        self.clock.wall()
    }

    /// The wall clock, but never before the highest one stored.
    pub fn never_back(&self) -> OffsetDateTime {
        self.wall().max(self.highest.get())
    }

    /// The machine's clock.
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// What is to be stored as the highest wall clock now; it is remembered as such.
    pub fn advance(&self) -> OffsetDateTime {
        self.highest.set(self.never_back());
        self.highest.get()
    }

    /// How far the wall clock was set back, where that is more than [`TOLERANCE`].
    pub fn set_back_by(&self) -> Option<Duration> {
        Duration::try_from(self.highest.get() - self.wall()).ok().filter(|back| *back > TOLERANCE)
    }
}

/// The line about a wall clock that was set back.
pub fn clock_warning(back: Duration) -> String {
    format!("the wall clock is {} s behind the highest time that this proxy has seen: set it", back.as_secs())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A clock that a test sets.
    pub(crate) struct SetClock {
        pub(crate) wall: Cell<OffsetDateTime>,
        pub(crate) since_boot: Cell<Duration>,
        pub(crate) boot_id: String,
    }

    impl SetClock {
        pub(crate) fn at(unix: i64) -> Rc<Self> {
            Rc::new(Self {
                wall: Cell::new(OffsetDateTime::from_unix_timestamp(unix).unwrap()),
                since_boot: Cell::new(Duration::from_secs(1_000)),
                boot_id: "one".into(),
            })
        }

        pub(crate) fn pass(&self, span: Duration) {
            self.wall.set(self.wall.get() + span);
            self.since_boot.set(self.since_boot.get() + span);
        }
    }

    impl Clock for SetClock {
        fn wall(&self) -> OffsetDateTime {
            self.wall.get()
        }

        fn since_boot(&self) -> Duration {
            self.since_boot.get()
        }

        fn boot_id(&self) -> &str {
            &self.boot_id
        }
    }

    #[test]
    fn a_clock_that_was_set_back_is_noticed_and_does_not_count() {
        let clock = SetClock::at(1_000_000);
        let time = Time::new(Rc::<SetClock>::clone(&clock), None);
        let stored = time.advance();
        clock.wall.set(stored - Duration::from_secs(3_600));
        assert_eq!(time.never_back(), stored);
        assert_eq!(time.set_back_by(), Some(Duration::from_secs(3_600)));
        clock.wall.set(stored - Duration::from_secs(60));
        assert_eq!(time.set_back_by(), None);
    }
}
