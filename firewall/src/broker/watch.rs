//! The watch: rules that others have changed are noticed when the kernel tells of it, judged, and put back or reported.
//!
//! It has a thread of its own, which sleeps until the kernel tells of a change of rules, addresses or interfaces, until a
//! request has set the ports, or until `schedule` wants to be told the time. It watches while the record holds ports.

mod changes;
mod follow;
mod journal;
mod judgement;
mod schedule;

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::resource::{UsageWho, getrusage};
use zone_firewall_protocol::{WatchMode, WatchReport};

use super::work::Work;
use crate::config;
use crate::host::Host;
use changes::{Sources, Wakeup, sleep};
use journal::Journal;
use judgement::{Judgement, Repair, by_level, is_drift, judge};
use schedule::{Action, Event, Outcome, Schedule, Settings};

pub(crate) use follow::{Change, FollowError, follow};

/// How long it waits before it subscribes again, where that failed.
const SUBSCRIBE_RETRY_DELAY: Duration = Duration::from_secs(10);

/// The watch, as the rest of the broker sees it.
pub(super) struct Watch {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

/// What both sides know.
struct Shared {
    report: Mutex<WatchReport>,
    /// Whether there is something to watch.
    is_on: AtomicBool,
    /// Whether a request has set the ports since the watch looked.
    ports_set: AtomicBool,
    wakeup: Wakeup,
}

impl Watch {
    /// Begins to watch, where the record holds ports and root's file does not say "off".
    pub(super) fn start(work: Arc<Work>) -> io::Result<Self> {
        let settings = settings(&work.host, &config::Watch::default());
        let report = WatchReport {
            mode: settings.mode,
            watching: false,
            judged_at: None,
            findings: by_level(&[]),
            judgements: 0,
            repairs: 0,
            trouble: None,
        };
        let shared = Arc::new(Shared {
            report: Mutex::new(report),
            is_on: AtomicBool::new(settings.mode != WatchMode::Off),
            ports_set: AtomicBool::new(false),
            wakeup: Wakeup::new()?,
        });
        let watcher = Watcher {
            shared: Arc::clone(&shared),
            work,
            schedule: Schedule::new(settings),
            sources: None,
            subscribe_at: None,
            journal: Journal::default(),
            config: config::Watch::default(),
        };
        let thread = thread::Builder::new().name("watch".to_owned()).spawn(move || watcher.run())?;
        Ok(Self { shared, thread })
    }

    /// Whether there is something to watch, so that the broker must not end.
    pub(super) fn is_on(&self) -> bool {
        self.shared.is_on.load(Ordering::Relaxed)
    }

    /// Whether its thread is gone, which only a fault of ours can cause.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// What it saw last.
    pub(super) fn report(&self) -> WatchReport {
        self.shared.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells it that a request has set the ports: the record is another, and rules are as they should be.
    pub(super) fn ports_were_set(&self) {
        self.shared.ports_set.store(true, Ordering::Relaxed);
        self.shared.wakeup.call();
    }
}

/// The thread's own side.
struct Watcher {
    shared: Arc<Shared>,
    work: Arc<Work>,
    schedule: Schedule,
    sources: Option<Sources>,
    /// When it subscribes again, where that failed.
    subscribe_at: Option<Instant>,
    journal: Journal,
    /// What root's file said when it could be read last.
    config: config::Watch,
}

impl Watcher {
    fn run(mut self) {
        self.look_at_settings();
        loop {
            self.subscribe();
            self.wait();
            self.listen();
        }
    }

    /// Is subscribed while there is something to watch, and not otherwise.
    fn subscribe(&mut self) {
        if !self.shared.is_on.load(Ordering::Relaxed) {
            self.sources = None;
            self.subscribe_at = None;
        } else if self.sources.is_none() && self.subscribe_at.is_none_or(|at| at <= Instant::now()) {
            match Sources::open() {
                Ok(sources) => {
                    self.sources = Some(sources);
                    self.subscribe_at = None;
                    // What has changed before is not told.
                    self.tell(Event::Changed);
                }
                Err(error) => self.broken(&error.to_string()),
            }
        }
        let watching = self.sources.is_some();
        self.report(|report| report.watching = watching);
    }

    /// Sleeps until something is to be done. While changes settle nobody looks for more, so that a flood of them costs a
    /// few wake-ups a second, however many they are.
    fn wait(&self) {
        let mut fds = vec![self.shared.wakeup.as_fd()];
        if let Some(sources) = self.sources.as_ref().filter(|_| !self.schedule.is_settling()) {
            fds.extend(sources.fds());
        }
        sleep(&fds, [self.schedule.due(), self.subscribe_at].into_iter().flatten().min());
    }

    /// Takes what there is to be known, and does what follows from it.
    fn listen(&mut self) {
        if self.shared.wakeup.was_called() {
            self.look_at_settings();
            if self.shared.ports_set.swap(false, Ordering::Relaxed) {
                self.tell(Event::PortsSet);
            }
        }
        match self.sources.as_mut().map(Sources::drain) {
            Some(Ok(true)) => self.tell(Event::Changed),
            Some(Ok(false)) | None => {}
            Some(Err(error)) => self.broken(&error.to_string()),
        }
        self.tell(Event::Tick);
    }

    fn broken(&mut self, why: &str) {
        self.sources = None;
        self.subscribe_at = Some(Instant::now() + SUBSCRIBE_RETRY_DELAY);
        self.journal.failed(why);
        self.report(|report| report.trouble = Some(why.to_owned()));
    }

    fn read_settings(&mut self) -> Settings {
        if let Ok(config) = self.work.host.config() {
            self.config = config.watch;
        }
        settings(&self.work.host, &self.config)
    }

    fn look_at_settings(&mut self) {
        let settings = self.read_settings();
        let is_on = settings.mode != WatchMode::Off;
        self.shared.is_on.store(is_on, Ordering::Relaxed);
        let mode = self.config.mode;
        self.report(|report| {
            report.mode = mode;
            if !is_on {
                report.findings = by_level(&[]);
                report.trouble = None;
            }
        });
        if !is_on {
            self.journal.forget();
        }
        self.tell(Event::Settings(settings));
    }

    /// Tells the schedule, and does what it says.
    fn tell(&mut self, event: Event) {
        let mut actions = VecDeque::from(self.schedule.on(event, Instant::now()));
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Judge { repair } => {
                    let judged = self.judge(repair);
                    self.look_at_settings();
                    actions.extend(self.schedule.on(judged, Instant::now()));
                    if matches!(judged, Event::Judged { outcome: Outcome::Drifted, .. }) {
                        self.tell_of_rest();
                    }
                }
                Action::SayRest(length) => self.journal.rests(length, self.config.repairs_per_minute),
            }
        }
    }

    fn judge(&mut self, repair: bool) -> Event {
        // Root's file and the record may have changed with the rules.
        let repair = repair && self.read_settings().mode == WatchMode::Repair;
        let turn = self.work.turn();
        let before = processor_time();
        let judged = judge(&self.work.host, repair);
        let cost = processor_time().saturating_sub(before);
        drop(turn);
        let outcome = match &judged {
            Ok(Some(judgement)) => self.judged(judgement),
            Ok(None) => Outcome::AsMeant,
            Err(error) => {
                let why = error.to_string();
                self.journal.failed(&why);
                self.report(|report| report.trouble = Some(why));
                Outcome::NotJudged
            }
        };
        Event::Judged { cost, outcome }
    }

    fn judged(&mut self, judgement: &Judgement) -> Outcome {
        let by = self.sources.as_mut().map_or_else(String::new, |own| own.judged(&judgement.generation));
        self.journal.judged(judgement, &by);
        let drifted = judgement.left.iter().any(is_drift);
        let (outcome, trouble) = match &judgement.repair {
            Repair::NotTried if drifted => (Outcome::Drifted, None),
            Repair::NotTried => (Outcome::AsMeant, None),
            Repair::Done(_) if drifted => {
                (Outcome::NotRepaired, Some("rules that were put back are gone again at once".to_owned()))
            }
            Repair::Done(_) => (Outcome::Repaired, None),
            Repair::Failed(why) => (Outcome::NotRepaired, Some(why.clone())),
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.report(|report| {
            report.judged_at = Some(now);
            report.judgements += 1;
            report.repairs += u64::from(outcome == Outcome::Repaired);
            report.findings = by_level(&judgement.left);
            report.trouble = trouble;
        });
        outcome
    }

    fn tell_of_rest(&self) {
        let Some(until) = self.schedule.rests_until() else { return };
        let seconds = until.saturating_duration_since(Instant::now()).as_secs();
        self.report(|report| {
            report.trouble.get_or_insert_with(|| {
                format!("others undid every repair, so that rules are not put back for {seconds} s")
            });
        });
    }

    fn report(&self, change: impl FnOnce(&mut WatchReport)) {
        change(&mut self.shared.report.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// What root's file says; off where no port of the relay is to be open.
fn settings(host: &Host, config: &config::Watch) -> Settings {
    Settings::new(config, if host.recorded().is_empty() { WatchMode::Off } else { config.mode })
}

/// What this process and the tools that it has run used of the processor until now.
fn processor_time() -> Duration {
    let used = |who| {
        getrusage(who).map_or(Duration::ZERO, |usage| {
            [usage.user_time(), usage.system_time()]
                .into_iter()
                .map(|time| {
                    let seconds = Duration::from_secs(time.tv_sec().try_into().unwrap_or(0));
                    seconds + Duration::from_micros(time.tv_usec().try_into().unwrap_or(0))
                })
                .sum()
        })
    };
    used(UsageWho::RUSAGE_SELF) + used(UsageWho::RUSAGE_CHILDREN)
}
