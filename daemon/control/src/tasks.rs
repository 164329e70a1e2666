//! The tasks that stand for the whole process: without one of them it is of no more use, so when one panics the process ends,
//! and a fresh one takes its place.

use std::cell::RefCell;
use std::future::poll_fn;

use tokio::task::JoinSet;
use zone_watchdog::poll_task_ended;

/// They run on control's one thread, each until it ends by itself, which it may.
#[derive(Debug, Default)]
pub(crate) struct Tasks(RefCell<JoinSet<()>>);

impl Tasks {
    /// Starts one more.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.0.borrow_mut().spawn_local(task);
    }

    /// Waits for one to panic, and says how it ended. There must be one that does not end by itself.
    pub(crate) async fn ended(&self) -> String {
        poll_fn(|context| poll_task_ended(&mut self.0.borrow_mut(), context)).await
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::rc::Rc;
    use std::time::Duration;

    use tokio::task::LocalSet;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_panic_of_a_task_is_told_also_of_one_that_another_one_has_started() {
        let local = LocalSet::new();
        let why = local.run_until(async {
            let tasks = Rc::new(Tasks::default());
            tasks.spawn(pending());
            tasks.spawn(async {});
            let own = Rc::clone(&tasks);
            tasks.spawn(async move {
                // By then the others have run, and everybody waits.
                tokio::task::yield_now().await;
                own.spawn(async { panic!("out of luck") });
            });
            timeout(Duration::from_secs(20), tasks.ended()).await.unwrap()
        });
        let why = why.await;
        assert!(why.contains("out of luck"), "{why}");
    }
}
