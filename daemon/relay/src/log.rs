//! What this process logs: over the channel while control takes it in, to standard error otherwise.
//!
//! The relay opens no connection of its own, so its lines reach the journal or a syslog server through control.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use zone_channel::{FromRelay, Sender};
use zone_log::{Level, Log, Record, Sink, Source, StartError, Stderr};

use crate::lock::lock;

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
    forwarding: Option<Forwarding>,
}

/// Where the writing thread puts records for the channel; nowhere while there is none.
type Outlet = Arc<Mutex<Option<mpsc::Sender<Record>>>>;

#[derive(Debug)]
struct Forwarding {
    abandon: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Starts the log, on standard error at first. Privileges must be given up before: the log has a thread.
pub fn start() -> Result<Records, StartError> {
    let level = std::env::var(LEVEL_VARIABLE).ok().and_then(|word| word.parse().ok()).unwrap_or_default();
    let outlet = Outlet::default();
    let sink = ToControl { outlet: Arc::clone(&outlet), stderr: Stderr::new() };
    let log = zone_log::start(Source::own(env!("CARGO_PKG_NAME")), level, Box::new(sink))?;
    Ok(Records { log, level: None, outlet, forwarding: None })
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
            let task = tokio::spawn(forward(records, channel.clone(), abandoned));
            *lock(&self.outlet) = Some(out);
            self.forwarding = Some(Forwarding { abandon, task });
        }
    }

    /// The channel is gone, or not to be used any more: what waits for it goes to standard error.
    pub(crate) fn close(&mut self) {
        *lock(&self.outlet) = None;
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
    }
}

/// Sends records until there are no more; what can't be sent goes to standard error.
async fn forward(
    mut records: mpsc::Receiver<Record>,
    channel: Sender<FromRelay>,
    mut abandoned: oneshot::Receiver<()>,
) {
    let stderr = Stderr::new();
    while let Some(record) = records.recv().await {
        let message = FromRelay::Log(record.clone());
        let sent = tokio::select! {
            sent = channel.send(&message, &[]) => sent.is_ok(),
            _ = &mut abandoned => false,
        };
        if !sent {
            stderr.put(&record);
            break;
        }
    }
    records.close();
    while let Ok(record) = records.try_recv() {
        stderr.put(&record);
    }
}

/// The sink of the writing thread.
struct ToControl {
    outlet: Outlet,
    stderr: Stderr,
}

impl Sink for ToControl {
    fn write(&mut self, record: &Record) {
        let outlet = lock(&self.outlet).clone();
        if outlet.is_none_or(|outlet| outlet.try_send(record.clone()).is_err()) {
            self.stderr.put(record);
        }
    }

    fn flush(&mut self, by: Instant) {
        self.stderr.flush(by);
    }
}
