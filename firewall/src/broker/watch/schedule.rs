//! When rules are judged and when they may be put back: a machine without a clock, a socket or a rule of its own.
//!
//! Changes come in bursts. A burst is judged once it has been quiet for a moment, or after some seconds where it does not
//! become quiet. Between two judgements lies an interval, and what judgements cost of the processor is bounded. A
//! repair that others undo again and again is left off for a while.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use zone_firewall_protocol::WatchMode;

use crate::config;

/// Repairs are counted within this time.
const REPAIR_WINDOW: Duration = Duration::from_secs(60);
/// How long repairs are left off at first, where others undo them; each further time follows twice as long a rest.
const FIRST_REST: Duration = Duration::from_secs(60);
/// The longest rest.
const LONGEST_REST: Duration = Duration::from_secs(60 * 60);
/// Whoever leaves our rules alone for this long after a rest begins anew, with [`FIRST_REST`].
const PEACE: Duration = Duration::from_secs(10 * 60);
/// The longest time before what failed is tried again. The first is a second, and each further one twice as long.
const LONGEST_RETRY: Duration = Duration::from_secs(64);
/// For how much idle time a burst of judgements may use the processor at once.
const PROCESSOR_CREDIT: Duration = Duration::from_secs(5);

/// What root's file says about the watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settings {
    /// What is done about drift. Off also where there are no ports to watch.
    pub(super) mode: WatchMode,
    /// The quiet time at the end of a burst.
    pub(super) settle: Duration,
    /// How long a burst may put a judgement off.
    pub(super) longest_burst: Duration,
    /// From the beginning of a judgement to that of the next, in the long run: one may come half of it early.
    pub(super) interval: Duration,
    /// How much of one processor judgements may use in the long run.
    pub(super) processor_percent: u32,
    /// Repairs within a minute, after which there is a rest.
    pub(super) repairs_per_minute: usize,
}

impl Settings {
    /// As the file has it, with this mode in place of its own.
    pub(super) fn new(config: &config::Watch, mode: WatchMode) -> Self {
        Self {
            mode,
            settle: Duration::from_millis(config.settle_ms.into()),
            longest_burst: Duration::from_secs(config.longest_burst.into()),
            interval: Duration::from_secs(config.interval.into()),
            processor_percent: config.processor_percent,
            repairs_per_minute: config.repairs_per_minute,
        }
    }
}

/// Something that the schedule is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// Somebody changed rules or addresses, or may have.
    Changed,
    /// This is what root's file and the record say now.
    Settings(Settings),
    /// Somebody who may decide it has set the ports: a rest is over.
    PortsSet,
    /// The judgement that was asked for has ended.
    Judged {
        /// What it used of the processor.
        cost: Duration,
        /// What it came to.
        outcome: Outcome,
    },
    /// Time has passed.
    Tick,
}

/// What a judgement came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// There was nothing to put back.
    AsMeant,
    /// There was, and it was put back.
    Repaired,
    /// There is, and it was not to be put back.
    Drifted,
    /// The rules could not be judged.
    NotJudged,
    /// The rules could not be put back.
    NotRepaired,
}

/// Something that is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Judge the rules, and tell by [`Event::Judged`].
    Judge {
        /// Whether drift is put back.
        repair: bool,
    },
    /// Say that repairs rest for this long.
    SayRest(Duration),
}

/// Changes that were not judged yet.
#[derive(Debug, Clone, Copy)]
struct Burst {
    first: Instant,
    last: Instant,
}

/// Repairs are left off.
#[derive(Debug, Clone, Copy)]
struct Rest {
    until: Instant,
    length: Duration,
}

/// The machine.
#[derive(Debug)]
pub(super) struct Schedule {
    settings: Settings,
    burst: Option<Burst>,
    retry: Option<Instant>,
    failures: u32,
    /// When the next judgement would begin if they were regular.
    regular_at: Option<Instant>,
    processor_free_at: Option<Instant>,
    repairs: VecDeque<Instant>,
    rest: Option<Rest>,
    last_rest: Option<Rest>,
}

impl Schedule {
    /// Nothing was judged yet.
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings: Settings { mode: WatchMode::Off, ..settings },
            burst: None,
            retry: None,
            failures: 0,
            regular_at: None,
            processor_free_at: None,
            repairs: VecDeque::new(),
            rest: None,
            last_rest: None,
        }
    }

    /// Takes an event and says what is to be done.
    pub(super) fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Changed => self.changed(now),
            Event::Settings(settings) => self.set(settings, now),
            Event::PortsSet => self.forget_repairs(now),
            Event::Judged { cost, outcome } => actions.extend(self.judged(cost, outcome, now)),
            Event::Tick => {}
        }
        if self.due().is_some_and(|due| due <= now) {
            self.burst = None;
            self.retry = None;
            self.regular_at = Some(self.regular_at.map_or(now, |at| at.max(now)) + self.settings.interval);
            actions.push(Action::Judge { repair: self.may_repair(now) });
        }
        actions
    }

    /// When it is to be told the time.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.settings.mode == WatchMode::Off {
            return None;
        }
        let settled = self
            .burst
            .map(|burst| (burst.last + self.settings.settle).min(burst.first + self.settings.longest_burst));
        let wished = [settled, self.retry].into_iter().flatten().min()?;
        let early = self.regular_at.and_then(|at| at.checked_sub(self.settings.interval / 2));
        [early, self.processor_free_at].into_iter().flatten().chain([wished]).max()
    }

    /// Whether there are changes that wait to be judged. Until then nobody needs to look for more of them.
    pub(super) fn is_settling(&self) -> bool {
        self.burst.is_some()
    }

    /// Until when repairs rest.
    pub(super) fn rests_until(&self) -> Option<Instant> {
        self.rest.map(|rest| rest.until)
    }

    fn changed(&mut self, now: Instant) {
        let first = self.burst.map_or(now, |burst| burst.first);
        self.burst = Some(Burst { first, last: now });
    }

    fn set(&mut self, settings: Settings, now: Instant) {
        let was = std::mem::replace(&mut self.settings, settings).mode;
        if settings.mode == WatchMode::Off {
            self.burst = None;
            self.retry = None;
        } else if was != settings.mode {
            self.changed(now);
        }
    }

    fn judged(&mut self, cost: Duration, outcome: Outcome, now: Instant) -> Option<Action> {
        self.spend(cost, now);
        if matches!(outcome, Outcome::Repaired | Outcome::NotRepaired) {
            self.repairs.push_back(now);
        }
        match outcome {
            Outcome::AsMeant => self.failures = 0,
            Outcome::Repaired => {
                self.failures = 0;
                // It is bounded by the number of repairs, so that the next drift need not wait.
                self.regular_at = None;
            }
            Outcome::Drifted if self.settings.mode == WatchMode::Repair => {
                let begun = (self.rest.is_none() && self.is_undone(now)).then(|| self.begin_rest(now));
                self.retry = self.rest.map(|rest| rest.until);
                return begun.map(Action::SayRest);
            }
            Outcome::Drifted => {}
            Outcome::NotJudged | Outcome::NotRepaired => {
                self.retry = Some(now + Duration::from_secs(1 << self.failures.min(6)).min(LONGEST_RETRY));
                self.failures += 1;
            }
        }
        None
    }

    fn may_repair(&mut self, now: Instant) -> bool {
        if self.rest.is_some_and(|rest| rest.until <= now) {
            self.last_rest = self.rest.take();
            self.repairs.clear();
        }
        self.settings.mode == WatchMode::Repair && self.rest.is_none() && !self.is_undone(now)
    }

    /// Whether there were as many repairs within a minute as there may be.
    fn is_undone(&mut self, now: Instant) -> bool {
        while self.repairs.front().is_some_and(|at| now.duration_since(*at) >= REPAIR_WINDOW) {
            self.repairs.pop_front();
        }
        self.repairs.len() >= self.settings.repairs_per_minute
    }

    fn begin_rest(&mut self, now: Instant) -> Duration {
        let length = match self.last_rest {
            Some(last) if now.duration_since(last.until) < PEACE => (last.length * 2).min(LONGEST_REST),
            _ => FIRST_REST,
        };
        self.rest = Some(Rest { until: now + length, length });
        length
    }

    fn forget_repairs(&mut self, now: Instant) {
        self.repairs.clear();
        self.last_rest = None;
        if self.rest.take().is_some() {
            self.changed(now);
        }
    }

    /// Puts the next judgement off for as long as this one's use of the processor is worth, unless it was idle before.
    fn spend(&mut self, cost: Duration, now: Instant) {
        let earliest = now.checked_sub(PROCESSOR_CREDIT).unwrap_or(now);
        let from = self.processor_free_at.map_or(earliest, |at| at.max(earliest));
        self.processor_free_at = Some(from + cost * 100 / self.settings.processor_percent.max(1));
    }
}

#[cfg(test)]
mod tests;
