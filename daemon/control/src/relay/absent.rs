//! A relay that control knows of and has no channel to, and what that means.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use super::end::HELPER_TIMEOUT;
use super::life::EXIT_TIMEOUT;
use super::process::Process;
use super::sessions::Sessions;

/// For a relay to answer at its rendezvous before it is killed. A relay that is stopped, or has no descriptor left, is given
/// so long.
pub(super) const TAKE_UP_TIMEOUT: Duration = Duration::from_secs(30);

/// A relay that control knows of and has no channel to.
pub(super) struct Absent {
    /// Its generation.
    pub(super) generation: u64,
    /// Its process, where an earlier control has noted it.
    pub(super) process: Option<Rc<Process>>,
    pub(super) sessions: Rc<Sessions>,
    /// Since when it is awaited.
    pub(super) since: Instant,
    /// Why it is not taken up yet.
    pub(super) why: RefCell<String>,
    /// Whether it has had its time.
    pub(super) given_up: Cell<bool>,
    /// Its time is over now.
    pub(super) give_up: Notify,
    settled: watch::Sender<bool>,
}

impl Absent {
    /// Awaited from now on.
    pub(super) fn new(generation: u64, process: Option<Rc<Process>>, sessions: Rc<Sessions>) -> Self {
        Self {
            generation,
            process,
            sessions,
            since: Instant::now(),
            why: RefCell::default(),
            given_up: Cell::default(),
            give_up: Notify::new(),
            settled: watch::Sender::new(false),
        }
    }

    /// Waits until it is taken up, or is gone.
    pub(super) async fn is_settled(&self) {
        let mut settled = self.settled.subscribe();
        // The sender is this.
        let _ = settled.wait_for(|settled| *settled).await;
    }

    /// Waits until it is taken up under the rules of now, or is gone. After `patience` it is killed. Says what is not in
    /// force otherwise.
    pub(super) async fn settled(&self, patience: Duration) -> Option<String> {
        if timeout(patience, self.is_settled()).await.is_ok() {
            return None;
        }
        self.give_up.notify_one();
        let ended = timeout(HELPER_TIMEOUT + EXIT_TIMEOUT, self.is_settled()).await.is_ok();
        (!ended).then(|| self.to_string())
    }

    /// What it means that it is absent, for an admin.
    pub(super) fn warning(&self) -> String {
        let next = if self.given_up.get() {
            "it can't be ended by this control: end its process".to_owned()
        } else {
            let left = TAKE_UP_TIMEOUT.saturating_sub(self.since.elapsed()).as_secs();
            format!("it is taken up once it answers, or ended in {left} s")
        };
        format!("{self}: its sessions and ports go by the rules that it had; {next}")
    }

    /// It is taken up, or gone.
    pub(super) fn settle(&self) {
        self.settled.send_replace(true);
    }
}

impl std::fmt::Display for Absent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let generation = self.generation;
        match &self.process {
            Some(process) => write!(f, "relay {generation} (process {}) does not answer", process.pid()),
            None => write!(f, "relay {generation} (of an unknown process) does not answer"),
        }?;
        let why = self.why.borrow();
        if why.is_empty() { Ok(()) } else { write!(f, " ({why})") }
    }
}
