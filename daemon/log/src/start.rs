//! Starting the log of a process, and what can be done with it while it runs.

use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id};
use tracing::{Dispatch, Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::{LookupSpan, Scope};
use tracing_subscriber::{Layer, Registry, reload};

use crate::local::Stderr;
use crate::queue::{Queue, Share, Sink};
use crate::record::{AUDIT, Level, Record, Source, SpanFacts};

/// How far back another process may date its records: it may have had to hold them for a while.
const MAX_RECORD_AGE: Duration = Duration::from_secs(60);

/// The queue of this process' log, for records that other processes send.
static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The thread that writes.
    #[error(
        "the log's thread can't be started: {0}; is the limit of processes (ulimit -u, TasksMax=) reached?"
    )]
    Thread(#[from] std::io::Error),
}

/// A running log. Dropped, it brings out what waits; [`Log::flush`] says for how long.
pub struct Log {
    queue: Arc<Queue>,
    level: reload::Handle<Targets, Registry>,
}

/// For what waits to be written when a log is dropped.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Starts the log of this process with a thread of its own, so drop privileges first: they belong to threads. What
/// goes to [`AUDIT`] is written at every level. A second log in one process (tests) is refused, and the first stays.
pub fn start(own: Source, level: Level, sink: Box<dyn Sink>) -> Result<Log, StartError> {
    let (log, dispatch) = Log::detached(own, level, sink)?;
    if tracing::dispatcher::set_global_default(dispatch).is_ok() {
        let _ = QUEUE.set(Arc::clone(&log.queue));
    }
    Ok(log)
}

/// The log of a program that ends soon, without a thread: each line is on standard error when the call returns, with
/// a priority in front if that is the journal. A second log in one process is refused, and the first stays.
pub fn stderr(level: Level) {
    let direct = Direct(Stderr::new());
    let subscriber = Registry::default().with(filter(level)).with(direct);
    let _ = tracing::dispatcher::set_global_default(Dispatch::new(subscriber));
}

/// Takes in a record of another process, which gets at most half of the queue and no say in who it is. Where no
/// log was started, it goes to standard error.
pub fn submit(record: Record, source: Source) {
    let record = record.within(MAX_RECORD_AGE).from_source(source);
    match QUEUE.get() {
        Some(queue) => queue.push(record, Share::OtherProcess),
        None => Stderr::new().put(&record),
    }
}

/// Does something on the thread that writes, right after it has written what was logged before. It must not take long.
/// Where the queue is full it is left out, and where no log was started it is done at once.
pub fn when_written(then: impl FnOnce() + Send + 'static) {
    match QUEUE.get() {
        Some(queue) => queue.push_step(Box::new(then)),
        None => then(),
    }
}

impl Log {
    /// A log that is nobody's yet, and the subscriber that feeds it.
    pub fn detached(own: Source, level: Level, sink: Box<dyn Sink>) -> Result<(Self, Dispatch), StartError> {
        let queue = Arc::new(Queue::default());
        let (filter, level) = reload::Layer::new(filter(level));
        let feed = Feed { queue: Arc::clone(&queue), own: own.clone() };
        let dispatch = Dispatch::new(Registry::default().with(filter).with(feed));
        let writer = Arc::clone(&queue);
        thread::Builder::new().name("log".to_owned()).spawn(move || {
            let _ending = EndsWithWriter;
            writer.drain_into(sink, &own);
        })?;
        Ok((Self { queue, level }, dispatch))
    }

    /// Logs from this severity on.
    pub fn set_level(&self, level: Level) {
        if let Err(error) = self.level.reload(filter(level)) {
            tracing::error!(%error, "the log level can't be changed");
        }
    }

    /// Waits until everything logged so far is out. Whether it was done in time.
    pub fn flush(&self, within: Duration) -> bool {
        self.queue.flush(within)
    }
}

/// A daemon whose records go nowhere any more is of no use, so it ends with the thread that writes them, and a fresh one
/// takes its place: dropped in a panic, it ends the process, as [`EXIT_WRITER_ENDED`] says.
struct EndsWithWriter;

/// The exit status of a process whose writer has panicked: `EX_SOFTWARE` of sysexits(3).
const EXIT_WRITER_ENDED: i32 = 70;

impl Drop for EndsWithWriter {
    fn drop(&mut self) {
        if thread::panicking() {
            std::process::exit(EXIT_WRITER_ENDED);
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.flush(FLUSH_TIMEOUT);
        self.queue.close();
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Log(..)")
    }
}

fn filter(level: Level) -> Targets {
    let from = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    Targets::new().with_default(from).with_target(AUDIT, LevelFilter::INFO.max(from))
}

/// Feeds the queue.
struct Feed {
    queue: Arc<Queue>,
    own: Source,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Feed {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        keep_facts(attributes, id, &context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        self.queue.push(record(event, self.own.clone(), &context), Share::ThisProcess);
    }
}

/// Writes at once.
struct Direct(Stderr);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Direct {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        keep_facts(attributes, id, &context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        self.0.put(&record(event, Source::default(), &context));
    }
}

/// Keeps the facts of a span, as they are when it begins, with the span.
fn keep_facts<S: Subscriber + for<'a> LookupSpan<'a>>(
    attributes: &Attributes<'_>,
    id: &Id,
    context: &Context<'_, S>,
) {
    if let Some(span) = context.span(id) {
        span.extensions_mut().insert(SpanFacts::new(attributes));
    }
}

/// An event's record: the facts of the spans that it is in, the outermost first, then its own.
fn record<S: Subscriber + for<'a> LookupSpan<'a>>(
    event: &Event<'_>,
    source: Source,
    context: &Context<'_, S>,
) -> Record {
    let mut record = Record::of_event(event, source);
    for span in context.event_scope(event).into_iter().flat_map(Scope::from_root) {
        if let Some(facts) = span.extensions().get::<SpanFacts>() {
            record.take_span(facts);
        }
    }
    record.take_event(event);
    record
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::line::text;

    struct Collected(mpsc::Sender<String>);

    impl Sink for Collected {
        fn write(&mut self, record: &Record) {
            let _ = self.0.send(text(record));
        }
    }

    fn logged(level: Level, work: impl FnOnce(&Log)) -> Vec<String> {
        let (seen, written) = mpsc::channel();
        let (log, dispatch) = Log::detached(Source::own("test"), level, Box::new(Collected(seen))).unwrap();
        tracing::dispatcher::with_default(&dispatch, || work(&log));
        assert!(log.flush(Duration::from_secs(20)));
        written.try_iter().collect()
    }

    #[test]
    fn a_process_ends_with_the_thread_that_writes_its_log() {
        const CHILD: &str = "ZONE_LOG_TEST_CHILD";
        struct Broken;
        impl Sink for Broken {
            fn write(&mut self, _: &Record) {
                panic!("out of luck");
            }
        }
        if std::env::var_os(CHILD).is_some() {
            let _log = start(Source::own("test"), Level::Info, Box::new(Broken)).unwrap();
            tracing::info!("words");
            thread::sleep(Duration::from_secs(20));
            return;
        }
        let name = "start::tests::a_process_ends_with_the_thread_that_writes_its_log";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let began = std::time::Instant::now();
        let ended = child.args([name, "--exact", "--nocapture"]).env(CHILD, "").output().unwrap();
        assert_eq!(ended.status.code(), Some(EXIT_WRITER_ENDED), "{ended:?}");
        assert!(String::from_utf8_lossy(&ended.stderr).contains("out of luck"), "{ended:?}");
        assert!(began.elapsed() < Duration::from_secs(10), "at once");
    }

    #[test]
    fn words_and_facts_of_an_event_reach_the_sink() {
        let lines = logged(Level::Info, |_| {
            let error = std::io::Error::other("torn\napart");
            tracing::info!(target: "x", who = "a b", n = 3, ok = true, %error, list = ?[1, 2], "{} happened", "it");
        });
        assert_eq!(lines, [r#"x: it happened who="a b" n=3 ok=true error=torn\napart list=[1, 2]"#]);
    }

    #[test]
    fn the_facts_of_a_span_stand_in_front_of_those_of_each_event_in_it() {
        let lines = logged(Level::Error, |_| {
            let outer = tracing::info_span!(target: AUDIT, "session", session = %7, target = "e1:ssh");
            let inner = outer.in_scope(|| tracing::info_span!(target: AUDIT, "leg", park = 3));
            outer.in_scope(|| tracing::info!(target: AUDIT, caller = %"m", "begins"));
            inner.in_scope(|| tracing::error!(target: "x", "lost"));
            tracing::error!(target: "x", "outside");
        });
        assert_eq!(
            lines,
            [
                r#"audit: begins session=7 target="e1:ssh" caller=m"#,
                r#"x: lost session=7 target="e1:ssh" park=3"#,
                "x: outside"
            ]
        );
    }

    #[test]
    fn audit_lines_are_written_at_every_level() {
        let lines = logged(Level::Error, |_| {
            tracing::info!("unheard");
            tracing::info!(target: AUDIT, change = "reset", "done");
        });
        assert_eq!(lines, [r#"audit: done change="reset""#]);
    }

    #[test]
    fn the_level_can_be_changed_while_the_log_runs() {
        let lines = logged(Level::Info, |log| {
            let inner = || tracing::debug!(target: "t", "inside");
            inner();
            log.set_level(Level::Debug);
            inner();
            log.set_level(Level::Warn);
            inner();
        });
        assert_eq!(lines, ["t: inside"]);
    }
}
