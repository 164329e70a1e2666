use super::*;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

const SETTLE: Duration = Duration::from_millis(200);
const LONGEST_BURST: Duration = Duration::from_secs(5);
const INTERVAL: Duration = Duration::from_secs(1);

fn settings(mode: WatchMode) -> Settings {
    Settings {
        mode,
        settle: SETTLE,
        longest_burst: LONGEST_BURST,
        interval: INTERVAL,
        processor_percent: 10,
        repairs_per_minute: 5,
    }
}

fn between(earlier: Duration, later: Duration) -> Duration {
    later.saturating_sub(earlier)
}

/// A schedule with a clock that stands until it is told to go on, and a host whose judgements cost as much as is said.
struct Played {
    schedule: Schedule,
    start: Instant,
    now: Instant,
    cost: Duration,
    /// What a judgement finds: whether there is drift, and whether a repair succeeds.
    drift: bool,
    repairs_hold: bool,
    /// When judgements began, after how long, and whether they were to repair.
    judged: Vec<(Duration, bool)>,
    repaired: usize,
    rests: Vec<(Duration, Duration)>,
}

impl Played {
    fn new(mode: WatchMode) -> Self {
        let start = Instant::now();
        let mut played = Self {
            schedule: Schedule::new(settings(mode)),
            start,
            now: start,
            cost: Duration::from_millis(5),
            drift: false,
            repairs_hold: true,
            judged: Vec::new(),
            repaired: 0,
            rests: Vec::new(),
        };
        played.tell(Event::Settings(settings(mode)));
        played
    }

    /// One whose first judgement is long over.
    fn settled(mode: WatchMode) -> Self {
        let mut played = Self::new(mode);
        played.pass(Duration::from_secs(100));
        played.start = played.now;
        played.judged.clear();
        played
    }

    fn tell(&mut self, event: Event) {
        let mut actions = self.schedule.on(event, self.now);
        while let Some(action) = actions.pop() {
            match action {
                Action::Judge { repair } => {
                    self.judged.push((self.now - self.start, repair));
                    self.now += self.cost;
                    let outcome = match (self.drift, repair, self.repairs_hold) {
                        (false, ..) => Outcome::AsMeant,
                        (true, false, _) => Outcome::Drifted,
                        (true, true, false) => Outcome::NotRepaired,
                        (true, true, true) => {
                            self.drift = false;
                            self.repaired += 1;
                            Outcome::Repaired
                        }
                    };
                    let judged = Event::Judged { cost: self.cost, outcome };
                    actions.extend(self.schedule.on(judged, self.now));
                }
                Action::SayRest(length) => self.rests.push((self.now - self.start, length)),
            }
        }
    }

    /// Lets time pass, and wakes it when it wants to be woken.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.schedule.due().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.tell(Event::Tick);
        }
        self.now = self.now.max(end);
    }

    fn changed(&mut self) {
        self.tell(Event::Changed);
    }

    fn drifted(&mut self) {
        self.drift = true;
        self.changed();
    }

    fn at(&self) -> Vec<Duration> {
        self.judged.iter().map(|(at, _)| *at).collect()
    }
}

#[test]
fn a_change_is_judged_once_it_is_quiet_and_nothing_happens_without_one() {
    let mut played = Played::settled(WatchMode::Repair);
    played.pass(Duration::from_secs(24 * 60 * 60));
    assert_eq!(played.at(), [], "nobody polls");
    assert_eq!(played.schedule.due(), None);
    played.start = played.now;
    played.changed();
    played.pass(Duration::from_millis(150));
    played.changed();
    played.pass(Duration::from_secs(10));
    assert_eq!(played.at(), [Duration::from_millis(350)]);
}

#[test]
fn changes_in_every_moment_are_judged_once_a_second_and_one_after_a_quiet_time_sooner() {
    let mut played = Played::settled(WatchMode::Repair);
    for _ in 0..20 {
        played.changed();
        played.pass(Duration::from_millis(500));
    }
    let at: Vec<_> = played.at().iter().map(Duration::as_millis).collect();
    assert_eq!(at[..4], [200, 700, 1_700, 2_700]);
    assert_eq!(at.len(), 11, "in ten seconds: {at:?}");
    played.pass(Duration::from_secs(10));
    played.start = played.now;
    played.judged.clear();
    for _ in 0..2 {
        played.changed();
        played.pass(Duration::from_millis(220));
    }
    played.pass(Duration::from_secs(2));
    assert_eq!(played.at(), [SETTLE, SETTLE + INTERVAL / 2]);
}

#[test]
fn a_flood_is_judged_after_five_seconds_and_then_every_five() {
    let mut played = Played::settled(WatchMode::Repair);
    for _ in 0..1_100 {
        played.changed();
        played.pass(Duration::from_millis(10));
    }
    let at = played.at();
    assert_eq!(at.len(), 2, "{at:?}");
    assert!(at[0] >= LONGEST_BURST && at[0] < LONGEST_BURST + SETTLE, "{at:?}");
}

#[test]
fn five_drifts_in_a_row_are_each_put_back_within_a_third_of_a_second() {
    let mut played = Played::settled(WatchMode::Repair);
    for number in 1..=5 {
        played.drifted();
        played.pass(Duration::from_millis(300));
        assert!(!played.drift, "drift {number}");
    }
    assert_eq!(played.judged.len(), 5);
}

#[test]
fn dear_judgements_use_no_more_than_their_share_of_the_processor() {
    let mut played = Played::settled(WatchMode::Repair);
    played.cost = Duration::from_secs(2);
    for _ in 0..600 {
        played.changed();
        played.pass(Duration::from_millis(500));
    }
    let used = played.cost * u32::try_from(played.judged.len()).unwrap();
    let bound = (played.now - played.start + PROCESSOR_CREDIT) / 10 + played.cost;
    assert!(used <= bound, "{used:?} of {bound:?}");
    assert!(played.judged.len() >= 10, "it goes on judging");
}

#[test]
fn after_five_repairs_in_a_minute_it_rests_and_the_rests_grow() {
    let mut played = Played::settled(WatchMode::Repair);
    for _ in 0..4_000 {
        // Somebody undoes each repair at once.
        if !played.drift {
            played.drifted();
        }
        played.pass(Duration::from_secs(1));
    }
    let lengths: Vec<_> = played.rests.iter().map(|(_, length)| length.as_secs()).collect();
    assert_eq!(lengths, [60, 120, 240, 480, 960, 1920, 3600]);
    assert_eq!(played.judged.iter().filter(|(_, repair)| *repair).count(), 5 * 7);
}

#[test]
fn a_new_set_of_ports_ends_a_rest() {
    let mut played = Played::settled(WatchMode::Repair);
    for _ in 0..6 {
        played.drifted();
        played.pass(Duration::from_secs(1));
    }
    assert!(played.drift && played.rests.len() == 1 && played.schedule.rests_until().is_some());
    played.tell(Event::PortsSet);
    played.pass(Duration::from_secs(1));
    assert!(!played.drift && played.schedule.rests_until().is_none());
}

#[test]
fn who_reports_only_repairs_nothing_and_does_not_ask_again_by_itself() {
    let mut played = Played::settled(WatchMode::Report);
    played.drifted();
    played.pass(Duration::from_secs(3_600));
    assert_eq!(played.judged, [(SETTLE, false)]);
    assert_eq!(played.rests, []);
    played.tell(Event::Settings(settings(WatchMode::Off)));
    played.changed();
    played.pass(Duration::from_secs(3_600));
    assert_eq!(played.judged.len(), 1, "off is off");
    played.tell(Event::Settings(settings(WatchMode::Repair)));
    played.pass(Duration::from_secs(1));
    assert!(!played.drift, "what happened meanwhile is judged");
}

#[test]
fn what_failed_is_tried_again_after_longer_and_longer_times() {
    let mut played = Played::settled(WatchMode::Repair);
    played.repairs_hold = false;
    played.drifted();
    played.pass(Duration::from_secs(40));
    let gaps: Vec<_> = played.at().windows(2).map(|two| between(two[0], two[1]).as_secs()).collect();
    assert_eq!(gaps, [1, 2, 4, 8, 16]);
    played.repairs_hold = true;
    played.pass(Duration::from_secs(200));
    assert!(!played.drift);
}

/// What holds whatever happens, over random histories: bursts, quiet times, drift, dear judgements, repairs that fail.
#[test]
fn any_history_is_judged_soon_and_not_too_often() {
    for seed in 0..2_000 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut played = Played::settled(WatchMode::Repair);
        let mut changes = Vec::new();
        let mut used = Duration::ZERO;
        for _ in 0..random.random_range(1..120) {
            played.cost = Duration::from_millis(random.random_range(1..=20));
            played.repairs_hold = random.random_ratio(9, 10);
            if random.random_ratio(1, 8) {
                played.drift = true;
            }
            let judged = played.judged.len();
            played.changed();
            changes.push(played.now - played.start);
            played.pass(Duration::from_millis(match random.random_range(0..3) {
                0 => random.random_range(1..50),
                1 => random.random_range(100..1_500),
                _ => random.random_range(1_000..20_000),
            }));
            used += played.cost * u32::try_from(played.judged.len() - judged).unwrap();
        }
        played.repairs_hold = true;
        let end = played.now - played.start;
        played.pass(Duration::from_secs(2 * 60 * 60));
        let judged = &played.judged;

        // Each change is followed by a judgement: within a second of the last one of its burst (of changes that follow each
        // other within the interval), and no burst lasts longer than five seconds, to which the interval may add one.
        for change in &changes {
            let next = judged.iter().find(|(at, _)| at >= change).map(|(at, _)| *at);
            let next = next.unwrap_or_else(|| panic!("seed {seed}: never judged after {change:?}"));
            assert!(
                between(*change, next) <= LONGEST_BURST + INTERVAL,
                "seed {seed}: {change:?} judged at {next:?}"
            );
            let follows = changes
                .iter()
                .any(|other| other > change && between(*change, *other) <= INTERVAL && *other <= next);
            assert!(
                follows || between(*change, next) <= INTERVAL,
                "seed {seed}: {change:?} judged at {next:?}"
            );
        }
        let soon = judged.windows(2).filter(|two| between(two[0].0, two[1].0) < INTERVAL / 2).count();
        assert!(soon <= played.repaired, "seed {seed}: {soon} judgements close to another");
        let seconds = usize::try_from(judged.last().unwrap().0.as_secs()).unwrap() + 1;
        let bound = seconds + 1 + played.repaired;
        assert!(judged.len() <= bound, "seed {seed}: {} in {seconds} s", judged.len());
        assert!(used <= (end + PROCESSOR_CREDIT) / 10 + Duration::from_millis(20), "seed {seed}: {used:?}");
        assert!(!played.drift, "seed {seed}: in the end all is as it should be");
    }
}

/// However others behave, no minute has more than five repairs.
#[test]
fn no_minute_has_more_repairs_than_are_allowed() {
    for seed in 0..300 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut played = Played::settled(WatchMode::Repair);
        let mut repairs = Vec::new();
        for _ in 0..400 {
            let had = played.drift;
            if random.random_ratio(1, 2) {
                played.drifted();
            }
            let before = played.judged.len();
            let drift = had || played.drift;
            played.pass(Duration::from_millis(random.random_range(1..6_000)));
            if drift && !played.drift {
                repairs
                    .extend(played.judged[before..].iter().filter(|(_, repair)| *repair).map(|(at, _)| *at));
            }
        }
        for window in repairs.windows(6) {
            assert!(between(window[0], window[5]) >= Duration::from_secs(59), "seed {seed}: {window:?}");
        }
    }
}
