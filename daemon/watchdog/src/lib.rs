//! The watchdog: proof of progress for the service manager, which ends a process that gives none.
//!
//! Tasks that must never stand still (accept loops, the switchboard's clock, whoever looks after the firewall) are asked
//! for a heartbeat and answer from within their own loops, and every worker thread of the runtime must have come round
//! since it was looked at last. Only then is the service manager's watchdog fed. Nobody outside the process is asked: a
//! slow broker must not get control killed.
//!
//! A task that must not end at all is waited for by [`task_ended`]: a process without it is of no more use.
//!
//! ```
//! # use std::time::Duration;
//! # use zone_watchdog::Watchdog;
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let watchdog = Watchdog::new();
//! let mut heartbeat = watchdog.register("accept loop");
//! tokio::spawn(async move {
//!     loop {
//!         heartbeat.answer().await; // beside accept(2), in a select!
//!     }
//! });
//! assert_eq!(watchdog.check(Duration::from_secs(5)).await, Ok(()));
//! # });
//! ```

pub mod fault;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeMetrics};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Asks the tasks that must never stand still for a heartbeat.
#[derive(Debug)]
pub struct Watchdog {
    round: watch::Sender<u64>,
    tasks: Mutex<Vec<Arc<Task>>>,
    answered: Arc<Notify>,
}

/// One that is asked.
#[derive(Debug)]
struct Task {
    name: &'static str,
    /// The last round that it answered.
    answered: AtomicU64,
}

/// A task's answer to the watchdog, from within its loop. Dropped, the task is not asked any more.
#[derive(Debug)]
pub struct Heartbeat {
    watchdog: Arc<Watchdog>,
    round: watch::Receiver<u64>,
    task: Arc<Task>,
}

impl Watchdog {
    /// Nobody to ask yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { round: watch::Sender::new(0), tasks: Mutex::default(), answered: Arc::default() })
    }

    /// One more task that must go on. The name stands in the log if it does not.
    pub fn register(self: &Arc<Self>, name: &'static str) -> Heartbeat {
        let round = self.round.subscribe();
        let task = Arc::new(Task { name, answered: AtomicU64::new(*round.borrow()) });
        lock(&self.tasks).push(Arc::clone(&task));
        Heartbeat { watchdog: Arc::clone(self), round, task }
    }

    /// Asks every task; the name of one that did not answer in time is the error.
    pub async fn check(&self, within: Duration) -> Result<(), &'static str> {
        let mut round = 0;
        self.round.send_modify(|number| {
            *number += 1;
            round = *number;
        });
        let silent = || {
            let tasks = lock(&self.tasks);
            tasks.iter().find(|task| task.answered.load(Ordering::Acquire) < round).map(|task| task.name)
        };
        let everybody = async {
            loop {
                let answer = self.answered.notified();
                if silent().is_none() {
                    return;
                }
                answer.await;
            }
        };
        match timeout(within, everybody).await {
            Ok(()) => Ok(()),
            Err(_) => silent().map_or(Ok(()), Err),
        }
    }
}

impl Heartbeat {
    /// Answers when it is asked, and returns then. Can be cancelled; belongs into a `select!` of the loop.
    pub async fn answer(&mut self) {
        if self.round.changed().await.is_err() {
            return std::future::pending().await;
        }
        fault::reached(self.task.name);
        let round = *self.round.borrow_and_update();
        self.task.answered.store(round, Ordering::Release);
        self.watchdog.answered.notify_waiters();
    }
}

impl Heartbeat {
    /// Does something to its end, and answers meanwhile: for a wait within the loop that may take longer than the
    /// watchdog is ready to wait.
    pub async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = self.answer() => {}
            }
        }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        lock(&self.watchdog.tasks).retain(|task| !Arc::ptr_eq(task, &self.task));
        self.watchdog.answered.notify_waiters();
    }
}

/// Feeds the service manager's watchdog, by `feed`, for as long as a check at each `interval` finds progress.
pub async fn run(watchdog: Arc<Watchdog>, interval: Duration, feed: impl Fn()) {
    let metrics = Handle::current().metrics();
    let mut before = samples(&metrics);
    loop {
        sleep(interval).await;
        if let Err(name) = watchdog.check(interval).await {
            tracing::error!(name, "a task gives no sign of life: the watchdog is not fed");
            continue;
        }
        let now = samples(&metrics);
        let stuck = before.iter().zip(&now).position(|(before, now)| !progressed(*before, *now));
        before = now;
        match stuck {
            None => feed(),
            Some(worker) => tracing::error!(worker, "a worker thread stands still: the watchdog is not fed"),
        }
    }
}

/// The exit status of a process whose indispensable task has ended: `EX_SOFTWARE` of sysexits(3).
pub const EXIT_TASK_ENDED: u8 = 70;

/// Waits for a task that panics, or is aborted, and says how it ended. A task that ends by itself may. Can be cancelled.
pub async fn task_ended(tasks: &mut JoinSet<()>) -> String {
    poll_fn(|context| poll_task_ended(tasks, context)).await
}

/// The same for those who can't lend the tasks for so long.
pub fn poll_task_ended(tasks: &mut JoinSet<()>, context: &mut Context<'_>) -> Poll<String> {
    loop {
        match ready!(tasks.poll_join_next(context)) {
            Some(Ok(())) => {}
            Some(Err(error)) => return Poll::Ready(error.to_string()),
            None => return Poll::Pending,
        }
    }
}

/// The list of tasks is whole at every step, also where its holder panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A worker thread at one moment: how often it went to sleep or woke up, and how long it was busy in all.
type Sample = (u64, Duration);

fn samples(metrics: &RuntimeMetrics) -> Vec<Sample> {
    (0..metrics.num_workers())
        .map(|worker| (metrics.worker_park_unpark_count(worker), metrics.worker_total_busy_duration(worker)))
        .collect()
}

/// Whether a worker sleeps, or has come round between two looks. An odd count means asleep.
fn progressed(before: Sample, now: Sample) -> bool {
    now.0 % 2 == 1 || before != now
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn everybody_is_asked_and_who_stands_still_is_named() {
        let watchdog = Watchdog::new();
        let (mut lively, stuck) = (watchdog.register("lively"), watchdog.register("stuck"));
        let living = tokio::spawn(async move {
            loop {
                lively.answer().await;
            }
        });
        assert_eq!(watchdog.check(SHORT).await, Err("stuck"));
        drop(stuck);
        assert_eq!(watchdog.check(LONG).await, Ok(()));
        living.abort();
        let _ = living.await;
        assert_eq!(watchdog.check(SHORT).await, Ok(()), "who has ended is not asked");
    }

    #[tokio::test]
    async fn a_task_that_waits_for_somebody_slow_answers_meanwhile() {
        let watchdog = Watchdog::new();
        let mut heartbeat = watchdog.register("waiting");
        let (done, waiting) = tokio::sync::oneshot::channel::<u8>();
        let task = tokio::spawn(async move { heartbeat.during(waiting).await.unwrap() });
        assert_eq!(watchdog.check(LONG).await, Ok(()));
        done.send(7).unwrap();
        assert_eq!(task.await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_task_that_panics_is_told_from_one_that_ends() {
        let mut tasks = JoinSet::new();
        tasks.spawn(async {});
        tasks.spawn(async {
            tokio::task::yield_now().await;
            panic!("out of luck");
        });
        let why = task_ended(&mut tasks).await;
        assert!(why.contains("panicked") && why.contains("out of luck"), "{why}");
    }

    #[test]
    fn a_worker_that_is_busy_with_the_same_thing_all_the_time_stands_still() {
        let second = Duration::from_secs(1);
        assert!(progressed((3, second), (3, second)), "asleep");
        assert!(progressed((3, second), (4, second)), "woken");
        assert!(progressed((4, second), (4, 2 * second)), "busy, and coming round");
        assert!(!progressed((4, second), (4, second)));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_worker_that_a_task_blocks_starves_the_watchdog_until_it_is_free_again() {
        let (fed, mut feeding) = watch::channel(0_u64);
        let watchdog = Watchdog::new();
        let task = tokio::spawn(run(watchdog, SHORT, move || fed.send_modify(|n| *n += 1)));
        feeding.changed().await.unwrap();
        let (free, blocked) = std::sync::mpsc::channel::<()>();
        let (begun, beginning) = tokio::sync::oneshot::channel();
        let blocking = tokio::spawn(async move {
            let _ = begun.send(());
            let _ = blocked.recv();
        });
        beginning.await.unwrap();
        // One look may fall between the last feeding and the block.
        let mut looks = 0;
        while let Ok(Ok(())) = timeout(8 * SHORT, feeding.changed()).await {
            looks += 1;
            assert!(looks < 5, "it is fed although a worker is blocked");
        }
        drop(free);
        blocking.await.unwrap();
        timeout(LONG, feeding.changed()).await.expect("it is fed again").unwrap();
        task.abort();
    }
}
