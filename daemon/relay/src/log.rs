//! What this process logs: over the channel while control takes it in, to standard error otherwise.
//!
//! The relay opens no connection of its own, so its lines reach the journal or a syslog server through control. What it says
//! of sessions while no control listens is also noted for the next one.

use std::fs::File;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use zone_channel::{FromRelay, Sender};
use zone_log::{Level, Log, Record, Sink, Source, StartError, Stderr};

use crate::lock::lock;
use crate::notes::Notes;

/// Records that wait for a control that is slow to read; further ones go to standard error.
const MAX_FORWARDED_RECORDS: usize = 256;
/// For the last records to be taken in when the relay ends.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);
/// The level before control says one, for developers.
const LEVEL_VARIABLE: &str = "ZONE_LOG";

/// The running log of this relay.
#[derive(Debug)]
pub struct Records {
    log: Log,
    level: Option<Level>,
    outlet: Outlet,
    without_control: WithoutControl,
    forwarding: Option<Forwarding>,
}

/// Where the writing thread puts records for the channel; nowhere while there is none.
type Outlet = Arc<Mutex<Option<mpsc::Sender<Record>>>>;

/// Where records go that no control takes in: to standard error, and those about sessions into the notes.
#[derive(Debug, Clone)]
struct WithoutControl {
    notes: Arc<Mutex<Notes>>,
    stderr: Arc<Stderr>,
}

#[derive(Debug)]
struct Forwarding {
    abandon: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Starts the log, on standard error at first. Privileges must be given up before: the log has a thread.
pub fn start() -> Result<Records, StartError> {
    let level = std::env::var(LEVEL_VARIABLE).ok().and_then(|word| word.parse().ok()).unwrap_or_default();
    let outlet = Outlet::default();
    let without_control = WithoutControl { notes: Arc::default(), stderr: Arc::new(Stderr::new()) };
    let sink = ToControl { outlet: Arc::clone(&outlet), without_control: without_control.clone() };
    let log = zone_log::start(Source::own(env!("CARGO_PKG_NAME")), level, Box::new(sink))?;
    Ok(Records { log, level: None, outlet, without_control, forwarding: None })
}

impl Records {
    /// Does what a policy says that came over this channel.
    pub(crate) fn follow(&mut self, level: Option<Level>, channel: &Sender<FromRelay>) {
        let Some(level) = level else { return self.close() };
        if self.level.replace(level) != Some(level) {
            self.log.set_level(level);
        }
        if self.forwarding.is_none() {
            let (abandon, abandoned) = oneshot::channel();
            let (out, records) = mpsc::channel(MAX_FORWARDED_RECORDS);
            lock(&self.without_control.notes).begin_anew();
            let task =
                tokio::spawn(forward(records, channel.clone(), self.without_control.clone(), abandoned));
            *lock(&self.outlet) = Some(out);
            self.forwarding = Some(Forwarding { abandon, task });
        }
    }

    /// The file in which it is noted what becomes of sessions while there is no control.
    pub(crate) fn note_in(&mut self, file: File) {
        lock(&self.without_control.notes).write_to(file);
    }

    /// The channel is gone, or not to be used any more: what waits for it goes to standard error.
    pub(crate) fn close(&mut self) {
        *lock(&self.outlet) = None;
        lock(&self.without_control.notes).note_sent();
        if let Some(Forwarding { abandon, .. }) = self.forwarding.take() {
            // A task that has ended by itself needs no word.
            let _ = abandon.send(());
        }
    }

    /// Brings out what was logged so far. For the thread that drives the runtime, when nothing else is left to do.
    pub(crate) async fn finish(&mut self) {
        // It waits without letting go of this thread: there is no other to wait with, for a confined process starts none.
        // The workers go on, and with them what forwards records.
        self.log.flush(FINISH_TIMEOUT);
        *lock(&self.outlet) = None;
        if let Some(Forwarding { abandon, mut task }) = self.forwarding.take()
            && timeout(FINISH_TIMEOUT, &mut task).await.is_err()
        {
            let _ = abandon.send(());
            let _ = task.await;
        }
        // Perhaps there was no control any more to read the last ones.
        lock(&self.without_control.notes).note_sent();
    }
}

/// Sends records until there are no more; what can't be sent goes to standard error.
async fn forward(
    mut records: mpsc::Receiver<Record>,
    channel: Sender<FromRelay>,
    without_control: WithoutControl,
    mut abandoned: oneshot::Receiver<()>,
) {
    while let Some(record) = records.recv().await {
        let message = FromRelay::Log(record.clone());
        let sent = tokio::select! {
            sent = channel.send(&message, &[]) => sent.is_ok(),
            _ = &mut abandoned => false,
        };
        if !sent {
            without_control.put(&record);
            break;
        }
        lock(&without_control.notes).sent(record);
    }
    records.close();
    while let Ok(record) = records.try_recv() {
        without_control.put(&record);
    }
}

/// The sink of the writing thread.
struct ToControl {
    outlet: Outlet,
    without_control: WithoutControl,
}

impl Sink for ToControl {
    fn write(&mut self, record: &Record) {
        let outlet = lock(&self.outlet).clone();
        if outlet.is_none_or(|outlet| outlet.try_send(record.clone()).is_err()) {
            self.without_control.put(record);
        }
    }
}

impl WithoutControl {
    fn put(&self, record: &Record) {
        // The note comes first: an end without its beginning can be told from a session that goes on.
        if let Some(warning) = lock(&self.notes).written(record) {
            self.stderr.put(&warning);
        }
        self.stderr.put(record);
    }
}
