//! The bounded queue between those who log and the one thread that writes.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::record::{Level, Record, Source};

/// Records that wait for the writer; further ones are dropped and counted.
pub(crate) const MAX_QUEUED_RECORDS: usize = 8_192;
/// Bytes of memory that waiting records may take together.
pub const MAX_QUEUED_BYTES: usize = 8 * 1024 * 1024;

/// Where records end up. It is called by one thread only, and may take its time: the queue takes the load meanwhile.
pub trait Sink: Send {
    /// Takes one record. What goes wrong is the sink's own affair.
    fn write(&mut self, record: &Record);

    /// Called whenever no record waits. Returns when to be called again at the latest.
    fn idle(&mut self) -> Option<Duration> {
        None
    }

    /// Brings out what it still holds, at most until then.
    fn flush(&mut self, _by: Instant) {}
}

/// Whose records are pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    /// Those of this process.
    ThisProcess,
    /// Those of another process, whose flood must leave room for this one's.
    OtherProcess,
}

impl Share {
    /// Eighths of the queue: audit lines are the last to be dropped.
    fn eighths(self, audit: bool) -> usize {
        match (self, audit) {
            (Self::ThisProcess, true) => 8,
            (Self::ThisProcess, false) => 7,
            (Self::OtherProcess, true) => 5,
            (Self::OtherProcess, false) => 4,
        }
    }
}

#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// Something is to be done by the writer.
    work: Condvar,
    /// A flush is over.
    flushed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    dropped: u64,
    flushes_wanted: u64,
    flushes_done: u64,
    flush_by: Option<Instant>,
    closed: bool,
}

/// What the writer does next but for flushes.
enum Waiting {
    Record(Record),
    /// Something that is to be done once what stands before it is written.
    Step(Step),
}

/// What is done between two records.
pub(crate) type Step = Box<dyn FnOnce() + Send>;

enum Work {
    Write { dropped: u64, record: Record },
    Step(Step),
    Flush { number: u64, by: Instant },
    Nothing,
    End,
}

impl Queue {
    pub(crate) fn push(&self, record: Record, share: Share) {
        let mut state = self.lock();
        let (share, size) = (share.eighths(record.is_audit()), record.size());
        let full = state.waiting.len() >= MAX_QUEUED_RECORDS / 8 * share
            || state.bytes + size > MAX_QUEUED_BYTES / 8 * share;
        if full || state.closed {
            state.dropped = state.dropped.saturating_add(1);
            return;
        }
        state.bytes += size;
        state.waiting.push_back(Waiting::Record(record));
        drop(state);
        self.work.notify_one();
    }

    /// A step after the records that wait now. Left out where the queue is full.
    pub(crate) fn push_step(&self, step: Step) {
        let mut state = self.lock();
        if state.waiting.len() >= MAX_QUEUED_RECORDS || state.closed {
            return;
        }
        state.waiting.push_back(Waiting::Step(step));
        drop(state);
        self.work.notify_one();
    }

    /// Waits until everything that was pushed before is with the sink, and the sink has brought it out. Whether
    /// that was done in time.
    pub(crate) fn flush(&self, within: Duration) -> bool {
        let mut state = self.lock();
        state.flushes_wanted += 1;
        state.flush_by = Some(Instant::now() + within);
        let number = state.flushes_wanted;
        self.work.notify_one();
        let pending = |state: &mut State| state.flushes_done < number && !state.closed;
        let (state, _) =
            self.flushed.wait_timeout_while(state, within, pending).unwrap_or_else(PoisonError::into_inner);
        state.flushes_done >= number
    }

    /// The writer ends once it has written what waits.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_one();
    }

    /// What the writer thread does until the queue is closed.
    pub(crate) fn drain_into(self: Arc<Self>, mut sink: Box<dyn Sink>, own: &Source) {
        let mut timeout = sink.idle();
        loop {
            match self.next(timeout) {
                Work::Write { dropped, record } => {
                    if dropped > 0 {
                        sink.write(&lost(dropped, own));
                    }
                    sink.write(&record);
                    // The sink is asked again once the queue is empty.
                    timeout = Some(Duration::ZERO);
                }
                Work::Step(step) => {
                    step();
                    timeout = Some(Duration::ZERO);
                }
                Work::Nothing => timeout = sink.idle(),
                Work::Flush { number, by } => {
                    sink.flush(by);
                    self.lock().flushes_done = number;
                    self.flushed.notify_all();
                }
                Work::End => return,
            }
        }
    }

    fn next(&self, timeout: Option<Duration>) -> Work {
        let nothing = |state: &mut State| {
            state.waiting.is_empty() && state.flushes_done == state.flushes_wanted && !state.closed
        };
        let state = self.lock();
        let mut state = match timeout {
            Some(timeout) => {
                self.work
                    .wait_timeout_while(state, timeout, nothing)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
            None => self.work.wait_while(state, nothing).unwrap_or_else(PoisonError::into_inner),
        };
        match state.waiting.pop_front() {
            Some(Waiting::Record(record)) => {
                state.bytes = state.bytes.saturating_sub(record.size());
                return Work::Write { dropped: std::mem::take(&mut state.dropped), record };
            }
            Some(Waiting::Step(step)) => return Work::Step(step),
            None => {}
        }
        if state.flushes_done < state.flushes_wanted {
            let by = state.flush_by.unwrap_or_else(Instant::now);
            return Work::Flush { number: state.flushes_wanted, by };
        }
        if state.closed { Work::End } else { Work::Nothing }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn waiting(&self) -> (usize, usize) {
        let state = self.lock();
        (state.waiting.len(), state.bytes)
    }
}

fn lost(dropped: u64, own: &Source) -> Record {
    Record::new(Level::Warn, env!("CARGO_CRATE_NAME"), "records were dropped here: the log could not keep up")
        .with("dropped", dropped)
        .from_source(own.clone())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::record::AUDIT;

    /// A sink that passes records on, and waits for a permit before each.
    struct Throttled {
        permits: mpsc::Receiver<()>,
        seen: mpsc::Sender<Record>,
    }

    impl Sink for Throttled {
        fn write(&mut self, record: &Record) {
            // Nobody is left to give permits: everything passes.
            let _ = self.permits.recv();
            let _ = self.seen.send(record.clone());
        }
    }

    fn throttled() -> (Arc<Queue>, mpsc::Sender<()>, mpsc::Receiver<Record>) {
        let (open, permits) = mpsc::channel();
        let (seen, written) = mpsc::channel();
        let queue = Arc::new(Queue::default());
        let own = Source::own("test");
        let writer = Arc::clone(&queue);
        std::thread::spawn(move || writer.drain_into(Box::new(Throttled { permits, seen }), &own));
        (queue, open, written)
    }

    fn record(text: &str) -> Record {
        Record::new(Level::Info, "t", text)
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted_in_the_next_line() {
        let (queue, open, written) = throttled();
        let pushed = 100_000;
        for n in 0..pushed {
            queue.push(record(&n.to_string()), Share::ThisProcess);
            let (records, bytes) = queue.waiting();
            assert!(records <= MAX_QUEUED_RECORDS && bytes <= MAX_QUEUED_BYTES);
        }
        drop(open);
        assert!(queue.flush(Duration::from_secs(20)));
        queue.push(record("after"), Share::ThisProcess);
        assert!(queue.flush(Duration::from_secs(20)));
        let (lost, kept): (Vec<_>, Vec<_>) =
            written.try_iter().partition(|r| r.message().contains("were dropped"));
        let dropped: usize =
            lost.iter().map(|r| r.fields().next().unwrap().value().parse::<usize>().unwrap()).sum();
        assert_eq!(kept.len() + dropped, pushed + 1);
        assert!(dropped > 80_000);
        assert_eq!(kept.last().unwrap().message(), "after");
    }

    #[test]
    fn another_process_flood_leaves_room_for_the_own_records_and_any_flood_for_audit_lines() {
        let (queue, open, written) = throttled();
        let relay = Source { process: "zone-relay".into(), pid: 1 };
        let audit = |text: &str| Record::new(Level::Info, AUDIT, text);
        for _ in 0..2 * MAX_QUEUED_RECORDS {
            queue.push(record("flood").from_source(relay.clone()), Share::OtherProcess);
        }
        queue.push(audit("of the relay").from_source(relay.clone()), Share::OtherProcess);
        for _ in 0..2 * MAX_QUEUED_RECORDS {
            queue.push(record("own flood"), Share::ThisProcess);
        }
        queue.push(audit("own"), Share::ThisProcess);
        drop(open);
        assert!(queue.flush(Duration::from_secs(20)));
        let audited: Vec<_> =
            written.try_iter().filter(Record::is_audit).map(|r| r.message().into_owned()).collect();
        assert_eq!(audited, ["of the relay", "own"]);
    }

    #[test]
    fn a_step_is_done_when_what_stands_before_it_is_written_and_no_sooner() {
        let (queue, open, written) = throttled();
        queue.push(record("before"), Share::ThisProcess);
        let (done, steps) = mpsc::channel();
        queue.push_step(Box::new(move || {
            done.send(written.try_recv().map(|r| r.message().into_owned())).unwrap();
        }));
        assert!(steps.recv_timeout(Duration::from_millis(50)).is_err(), "the writer still writes");
        drop(open);
        assert_eq!(steps.recv_timeout(Duration::from_secs(20)).unwrap(), Ok("before".to_owned()));
    }

    #[test]
    fn long_records_are_bounded_by_their_bytes() {
        let (queue, _open, _written) = throttled();
        for _ in 0..MAX_QUEUED_RECORDS {
            queue.push(record(&"x".repeat(4_000)), Share::ThisProcess);
        }
        assert!(queue.waiting().1 <= MAX_QUEUED_BYTES);
    }

    #[test]
    fn a_flush_does_not_wait_for_a_stuck_writer_for_ever() {
        let (queue, _open, _written) = throttled();
        queue.push(record("stuck"), Share::ThisProcess);
        assert!(!queue.flush(Duration::from_millis(20)));
    }
}
