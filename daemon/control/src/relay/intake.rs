//! What becomes of a relay's log records: they reach the log as the relay's own words, and as no more than a relay has to
//! say in a second.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;
use zone_channel::note::{SESSION_BEGINS, SESSION_ENDED, session};
use zone_channel::{Note, OpenSession};
use zone_log::{AUDIT, Level, Record, Source};

use super::sessions::{Known, Sessions};
use crate::metrics::Metrics;

/// Records of one relay in the long run.
pub(super) const MAX_RECORDS_PER_SECOND: f64 = 1_000.0;
/// Records of one relay at once, such as the ends of all sessions.
const MAX_RECORDS_BURST: f64 = 16_000.0;
/// Bytes of these records in the long run.
const MAX_RECORD_BYTES_PER_SECOND: f64 = 512.0 * 1024.0;
/// Bytes of these records at once.
const MAX_RECORD_BYTES_BURST: f64 = 8.0 * 1024.0 * 1024.0;
/// Between two lines about records that were dropped.
const DROPPED_INTERVAL: Duration = Duration::from_secs(60);
/// What a relay's log records are known by.
const PROCESS: &str = "zone-relay";
/// The target of what says that it is from elsewhere, and of an audit line that a relay has no business with.
const TARGET: &str = "zone_relay";
/// The crates that a relay is made of, as far as they log.
const CRATES: [&str; 9] = [
    "zone_relay",
    "zone_accept",
    "zone_channel",
    "zone_log",
    "zone_pairing",
    "zone_privileges",
    "zone_protocol",
    "zone_service_manager",
    "rustls",
];
/// Before a fact's name where control uses the same one for what it vouches for.
const PREFIX: &str = "relay_";
/// The names of facts by which control says what was done and by whom.
const RESERVED: [&str; 18] = [
    "after",
    "before",
    "change",
    "dropped",
    "from",
    "keys",
    "kind",
    "module_server",
    "pid",
    "process",
    "provisioning",
    "state",
    "step",
    "token",
    "trust",
    "who",
    "zone",
    "name",
];
/// The audit lines of a relay, with their facts.
const AUDIT_LINES: [(&str, &[&str]); 3] = [
    (SESSION_BEGINS, &["session", "target", "caller", "caller_address", "endpoint_address", "end_to_end"]),
    (
        SESSION_ENDED,
        &["session", "target", "caller", "reason", "cause", "seconds", "from_caller", "from_endpoint"],
    ),
    ("connections that the new rules do not admit were ended", &["connections"]),
];

/// Takes in the records of one relay.
#[derive(Debug)]
pub(super) struct Intake {
    pid: u32,
    level: Cell<Level>,
    max_sessions: Cell<usize>,
    sessions: Rc<Sessions>,
    budget: RefCell<Budget>,
    metrics: Rc<Metrics>,
}

/// Whether a record was within what a relay may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It was.
    Within,
    /// It was dropped.
    Beyond,
}

#[derive(Debug)]
struct Budget {
    records: f64,
    bytes: f64,
    at: Instant,
    dropped: u64,
    said: Option<Instant>,
}

impl Intake {
    /// For the relay of this process, with the sessions that it has open.
    pub(super) fn new(pid: u32, sessions: Rc<Sessions>, metrics: Rc<Metrics>) -> Self {
        let budget = Budget {
            records: MAX_RECORDS_BURST,
            bytes: MAX_RECORD_BYTES_BURST,
            at: Instant::now(),
            dropped: 0,
            said: None,
        };
        let max_sessions = zone_settings::Limits::default().sessions;
        Self {
            pid,
            level: Cell::default(),
            max_sessions: Cell::new(max_sessions),
            sessions,
            budget: RefCell::new(budget),
            metrics,
        }
    }

    /// From which severity on it is to log, and how many sessions it may have.
    pub(super) fn expect(&self, level: Option<Level>, max_sessions: usize) {
        self.level.set(level.unwrap_or_default());
        self.max_sessions.set(max_sessions);
    }

    /// Takes in which sessions the relay says are open.
    pub(super) fn reconcile(&self, listed: Vec<OpenSession>) {
        self.sessions.reconcile(listed, self.max_sessions.get());
    }

    /// How many sessions it may have.
    pub(super) fn max_sessions(&self) -> usize {
        self.max_sessions.get()
    }

    /// Has a record logged as this relay's, or drops it.
    pub(super) fn take(&self, record: Record) -> Taken {
        let about = session(&record);
        match self.judge(record) {
            Some(record) => {
                zone_log::submit(record, Source { process: PROCESS.into(), pid: self.pid });
                if let Some(id) = about {
                    self.sessions.note_when_logged(&id);
                }
                Taken::Within
            }
            None => Taken::Beyond,
        }
    }

    /// Takes in what the relay has noted while no control took its records in.
    pub(super) fn take_noted(&self, note: Note) {
        match note {
            Note::Begins(session) => self.sessions.begins_elsewhere(session, self.max_sessions.get()),
            Note::Ended(id) => self.sessions.ended_elsewhere(&id),
            Note::Sent(record) => {
                // It is in the log already where the control that it was sent to had the time.
                let begins = record.message() == SESSION_BEGINS;
                if session(&record).is_some_and(|id| !self.sessions.has_logged(&id, begins)) {
                    self.take(record);
                }
            }
        }
    }

    /// The record as it may be logged; `None` where it is dropped.
    fn judge(&self, record: Record) -> Option<Record> {
        let Some((line, facts)) = audit_line(&record) else {
            if record.level() > self.level.get() || !self.afford(&record, 1.0) {
                return self.dropped();
            }
            return Some(as_relays(record));
        };
        let fact = |name: &str| {
            record.fields().find(|field| field.name == name).map(|field| field.value().into_owned())
        };
        match (line, fact("session")) {
            (SESSION_BEGINS, Some(id)) => {
                let limit = self.max_sessions.get();
                // The end is paid for too, so that it is never dropped where the beginning was not.
                if !self.afford(&record, 2.0) {
                    self.sessions.begins_unlogged(id, limit);
                    return self.dropped();
                }
                let (target, caller) =
                    (fact("target").unwrap_or_default(), fact("caller").unwrap_or_default());
                if self.sessions.begins(OpenSession { id, target, caller }, limit).is_none() {
                    return self.dropped();
                }
            }
            (SESSION_ENDED, Some(id)) => match self.sessions.ended(&id) {
                Known::Logged => {}
                Known::Unknown if self.afford(&record, 1.0) => {}
                Known::Unknown | Known::Dropped => return self.dropped(),
            },
            (SESSION_BEGINS | SESSION_ENDED, None) => return self.dropped(),
            _ if self.afford(&record, 1.0) => {}
            _ => return self.dropped(),
        }
        Some(record.renamed(|name| facts.contains(&name).then_some(Cow::Borrowed(name))))
    }

    fn dropped(&self) -> Option<Record> {
        self.metrics.relay_records_dropped.inc();
        let mut budget = self.budget.borrow_mut();
        budget.dropped += 1;
        let now = Instant::now();
        if budget.said.is_none_or(|said| now - said >= DROPPED_INTERVAL) {
            budget.said = Some(now);
            let dropped = std::mem::take(&mut budget.dropped);
            tracing::warn!(
                relay = self.pid,
                dropped,
                "records of a relay are dropped: it logs more than it may, or what it may not"
            );
        }
        None
    }

    fn afford(&self, record: &Record, records: f64) -> bool {
        let mut budget = self.budget.borrow_mut();
        let now = Instant::now();
        let passed = (now - budget.at).as_secs_f64();
        budget.at = now;
        budget.records = (budget.records + passed * MAX_RECORDS_PER_SECOND).min(MAX_RECORDS_BURST);
        budget.bytes = (budget.bytes + passed * MAX_RECORD_BYTES_PER_SECOND).min(MAX_RECORD_BYTES_BURST);
        #[expect(clippy::cast_precision_loss, reason = "a record has a few thousand bytes")]
        let bytes = record.size() as f64 * records;
        if budget.records < records || budget.bytes < bytes {
            return false;
        }
        budget.records -= records;
        budget.bytes -= bytes;
        true
    }
}

/// Which of a relay's audit lines it is, with the names of its facts.
fn audit_line(record: &Record) -> Option<(&'static str, &'static [&'static str])> {
    if !record.is_audit() || record.level() != Level::Info {
        return None;
    }
    let message = record.message();
    AUDIT_LINES.into_iter().find(|(line, _)| *line == message)
}

/// What a relay says, so that it can't be taken for control's word.
fn as_relays(record: Record) -> Record {
    let target = record.target().into_owned();
    let of_crate = |name: &str| target == name || target.starts_with(&format!("{name}::"));
    let record =
        if target != AUDIT && CRATES.into_iter().any(of_crate) { record } else { record.with_target(TARGET) };
    record.renamed(|name| {
        let reserved = RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved));
        Some(if reserved { Cow::Owned(format!("{PREFIX}{name}")) } else { Cow::Borrowed(name) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        intake: Intake,
        _directory: tempfile::TempDir,
    }

    fn bench() -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let sessions = Rc::new(Sessions::of(directory.path(), 1));
        Bench { intake: Intake::new(42, sessions, Rc::new(Metrics::new())), _directory: directory }
    }

    fn session(words: &str, id: &str) -> Record {
        Record::new(Level::Info, AUDIT, words)
            .with("session", id)
            .with("target", "host-7:ssh")
            .with("caller", "m")
    }

    fn line(record: &Record) -> String {
        zone_log::text(record)
    }

    #[tokio::test]
    async fn what_a_relay_says_never_reads_as_controls_word() {
        let bench = bench();
        let forged = Record::new(Level::Info, AUDIT, "done")
            .with("change", "provision")
            .with("WHO", "spiffe://plant/module-server/m")
            .with("process", "zone-proxy")
            .with("peer", "192.0.2.1");
        let logged = bench.intake.judge(forged).unwrap();
        assert!(!logged.is_audit());
        assert_eq!(
            line(&logged),
            "zone_relay: done relay_change=\"provision\" relay_WHO=\"spiffe://plant/module-server/m\" \
             relay_process=\"zone-proxy\" peer=\"192.0.2.1\""
        );
        for target in ["zone_proxy::transaction", "audit", "", "zone_relayed", "AUDIT"] {
            let record = bench.intake.judge(Record::new(Level::Warn, target, "words")).unwrap();
            assert_eq!(record.target(), TARGET, "{target}");
        }
        let own = bench.intake.judge(Record::new(Level::Warn, "zone_relay::park", "words")).unwrap();
        assert_eq!(own.target(), "zone_relay::park");
        let padded = session("session begins", "1").with("change", "provision").with("who", "root");
        assert_eq!(
            line(&bench.intake.judge(padded).unwrap()),
            "audit: session begins session=\"1\" target=\"host-7:ssh\" caller=\"m\""
        );
        let severe = Record::new(Level::Error, AUDIT, "session begins").with("session", "2");
        assert!(!bench.intake.judge(severe).unwrap().is_audit());
    }

    #[tokio::test]
    async fn what_is_below_the_level_is_dropped_and_audit_lines_are_not() {
        let bench = bench();
        bench.intake.expect(Some(Level::Error), 10);
        assert!(bench.intake.judge(Record::new(Level::Debug, "zone_relay", "x")).is_none());
        assert!(bench.intake.judge(session("session begins", "1")).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_cut_to_the_budget_and_counted() {
        let bench = bench();
        let flood = |seconds: usize| {
            let mut bytes = 0;
            for _ in 0..100_000 {
                let record = Record::new(Level::Info, "zone_relay", &"y".repeat(3_000));
                bytes += bench.intake.judge(record).map_or(0, |record| record.size());
            }
            assert!(bytes <= (8 * 1024 + seconds * 512) * 1024, "{bytes}");
            bytes
        };
        assert!(flood(0) > 7 * 1024 * 1024);
        tokio::time::advance(Duration::from_secs(1)).await;
        let later = flood(1);
        assert!((400_000..530_000).contains(&later), "{later}");
        let counted = bench.intake.metrics.relay_records_dropped.get();
        assert!(counted > 190_000, "{counted}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_whose_beginning_is_in_the_log_ends_there_whatever_is_left_of_the_budget() {
        let bench = bench();
        bench.intake.expect(None, 100_000);
        let (mut begun, mut number) = (Vec::new(), 0);
        while number < 20_000 {
            let id = number.to_string();
            if bench.intake.judge(session("session begins", &id)).is_some() {
                begun.push(id);
            }
            number += 1;
        }
        assert!(begun.len() < 20_000 && begun.len() > 5_000, "{}", begun.len());
        let ended =
            (0..number).filter(|id| bench.intake.judge(session("session ended", &id.to_string())).is_some());
        assert_eq!(ended.count(), begun.len());
    }

    #[tokio::test]
    async fn no_more_sessions_begin_than_there_can_be() {
        let bench = bench();
        bench.intake.expect(None, 2);
        let begins = |id| bench.intake.judge(session("session begins", id)).is_some();
        assert_eq!([begins("1"), begins("2"), begins("3"), begins("1")], [true, true, false, false]);
        assert!(bench.intake.judge(session("session ended", "1")).is_some());
        assert!(begins("4"));
    }
}
