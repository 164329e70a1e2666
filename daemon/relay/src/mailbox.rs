//! What the switchboard tells the connection of a park.

use std::sync::Mutex;

use tokio::sync::Notify;
use zone_pairing::CloseReason;

use crate::lock::lock;

/// What a park's connection is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// Send a ping.
    Ping,
    /// Take up the call that the switchboard names.
    Assign,
    /// Close the connection, for this reason.
    Close(CloseReason),
}

/// A park's mailbox. The latest command counts, except that nothing overtakes a close.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    command: Mutex<Option<Command>>,
    wake: Notify,
}

impl Mailbox {
    /// Leaves a command and wakes the connection.
    pub(crate) fn put(&self, command: Command) {
        let mut slot = lock(&self.command);
        if !matches!(*slot, Some(Command::Close(_))) {
            *slot = Some(command);
        }
        self.wake.notify_one();
    }

    /// The next command. Can be cancelled.
    pub(crate) async fn next(&self) -> Command {
        loop {
            if let Some(command) = lock(&self.command).take() {
                return command;
            }
            self.wake.notified().await;
        }
    }

    /// Waits for a close and leaves other commands to nobody: for connections that are past them.
    pub(crate) async fn closed(&self) -> CloseReason {
        loop {
            if let Command::Close(reason) = self.next().await {
                return reason;
            }
        }
    }
}
