//! The life of a relay process that has said hello: what it says is taken in, and it is seen to its end.

use std::future::pending;
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::Duration;

use tokio::process::Child;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use zone_channel::{ChannelError, FromRelay, Receiver};

use super::end::Ender;
use super::error::RelayError;
use super::exchange::Exchange;
use super::intake::Taken;
use super::process::Process;

/// For a relay to exit once it was told to, or has closed its channel, before it is killed.
pub(super) const EXIT_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two attempts to kill a relay that goes on.
pub(super) const KILL_INTERVAL: Duration = Duration::from_secs(10);
/// For the log records that a relay sent before its end to be taken in.
const LAST_RECORDS_TIMEOUT: Duration = Duration::from_secs(1);
/// Characters of what a relay says went wrong.
const MAX_WORDS_CHARS: usize = 400;
/// Before more is read of a relay that says more than it may.
const FLOOD_DELAY: Duration = Duration::from_millis(5);

/// How a relay, or its channel, ended.
#[derive(Debug, Clone)]
pub(super) struct End {
    /// In words.
    pub(super) how: Rc<str>,
    /// Whether the process is gone. One that goes on has lost its channel, and can be taken up again.
    pub(super) gone: bool,
}

/// What is needed to see a relay to its end.
pub(super) struct Life {
    pub(super) receiver: Receiver<FromRelay>,
    pub(super) exchange: Rc<Exchange>,
    pub(super) child: Option<Child>,
    pub(super) process: Rc<Process>,
    pub(super) kill: Rc<Notify>,
    pub(super) ender: Rc<Ender>,
}

impl Life {
    /// Takes in what the relay says until it is gone or has lost its channel, and says how it went.
    pub(super) async fn live(mut self) -> End {
        let over = tokio::select! {
            how = exit(&mut self.child, &self.process) => {
                // What it said last is still on the way: its last records.
                let _ = timeout(LAST_RECORDS_TIMEOUT, read(&mut self.receiver, &self.exchange)).await;
                self.forsake();
                return End { how: how.into(), gone: true };
            }
            () = self.kill.notified() => None,
            error = read(&mut self.receiver, &self.exchange) => Some(error),
        };
        self.forsake();
        match over {
            None => self.kill("not having ended in time").await,
            Some(error) if error.is_violation() => {
                let pid = self.process.pid();
                tracing::error!(pid, %error, "a relay does not keep to the channel, and is killed");
                self.kill(&error.to_string()).await
            }
            // It can't be known whether it goes on.
            Some(error) if self.child.is_none() && self.process.handle().is_none() => {
                End { how: error.to_string().into(), gone: true }
            }
            Some(error) => tokio::select! {
                how = exit(&mut self.child, &self.process) => End { how: how.into(), gone: true },
                () = self.kill.notified() => self.kill(&error.to_string()).await,
                () = sleep(EXIT_TIMEOUT) => End { how: error.to_string().into(), gone: false },
            },
        }
    }

    /// The channel has ended for both sides, and whoever waits for an answer learns that none will come.
    fn forsake(&self) {
        self.receiver.close();
        self.exchange.close();
    }

    /// Kills it, again and again until it is gone.
    async fn kill(mut self, why: &str) -> End {
        let pid = self.process.pid();
        let mut said = false;
        loop {
            let killed = match &mut self.child {
                Some(child) => child.start_kill().map_err(|error| error.to_string()),
                None => self.ender.end(&self.process).await.map_err(|error| error.to_string()),
            };
            let failed = killed.err();
            if let Some(error) = failed.as_ref().filter(|_| !said) {
                tracing::error!(pid, error, "a relay that is to end can't be killed");
                said = true;
            }
            if self.child.is_none() && self.process.handle().is_none() {
                return End {
                    how: format!("it was given up: {}", failed.unwrap_or_default()).into(),
                    gone: true,
                };
            }
            match timeout(KILL_INTERVAL, exit(&mut self.child, &self.process)).await {
                Ok(how) => return End { how: format!("it was killed, {why} ({how})").into(), gone: true },
                Err(_) if said => {}
                Err(_) => {
                    said = true;
                    tracing::error!(pid, "a relay that was killed goes on");
                }
            }
        }
    }
}

/// What a relay says in words: as much as stands on a line.
fn words(text: &str) -> String {
    text.chars().take(MAX_WORDS_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

async fn read(receiver: &mut Receiver<FromRelay>, exchange: &Exchange) -> ChannelError {
    loop {
        let message = match receiver.receive().await {
            Ok((message, _)) => message,
            Err(error) => return error,
        };
        let expected = match message {
            FromRelay::Done(state) => {
                exchange.state.set(state);
                exchange.answer(Ok(state))
            }
            FromRelay::Failed { step, error } => {
                let (step, error) = (words(&step), words(&error));
                exchange.answer(Err(RelayError::Failed { step, error }))
            }
            FromRelay::Reply { id, reply } => {
                let asker = exchange.questions.borrow_mut().remove(&id);
                match asker {
                    Some(asker) => drop(asker.send(reply)),
                    // Perhaps nobody waits for it any more.
                    None => sleep(FLOOD_DELAY).await,
                }
                true
            }
            FromRelay::Log(record) => {
                if exchange.intake.take(record) == Taken::Beyond {
                    sleep(FLOOD_DELAY).await;
                }
                true
            }
            FromRelay::Wanted { endpoints } => {
                exchange.want(endpoints);
                // It has a few to name, in its first seconds.
                sleep(FLOOD_DELAY).await;
                true
            }
            FromRelay::Hello { .. } => return ChannelError::Malformed("a second hello".to_owned()),
        };
        if !expected {
            return ChannelError::Malformed("an answer that nobody asked for".to_owned());
        }
    }
}

/// Waits for the end of a process, and says how it ended; for ever where that can't be told.
async fn exit(child: &mut Option<Child>, process: &Process) -> String {
    match child {
        Some(child) => describe(child.wait().await),
        None if process.handle().is_none() => pending().await,
        None => {
            process.ended().await;
            "its process is gone".to_owned()
        }
    }
}

/// Ends a process that is of no use, and says how it ended where it had done so by itself.
pub(super) async fn reap(child: Option<Child>) -> Option<String> {
    let mut child = child?;
    if let Ok(status) = timeout(Duration::from_millis(100), child.wait()).await {
        return Some(describe(status));
    }
    let _ = child.start_kill();
    let _ = timeout(EXIT_TIMEOUT, child.wait()).await;
    None
}

fn describe(status: std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(error) => format!("its exit status can't be had: {error}"),
    }
}
