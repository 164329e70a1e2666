//! What control and a relay are in the middle of: commands that wait for their answers, and questions.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};

use tokio::sync::oneshot;
use zone_channel::{RelayState, Reply};

use super::error::RelayError;
use super::intake::Intake;

/// What comes of a command: the state that the relay is in then.
pub(super) type Answer = Result<RelayState, RelayError>;

/// Shared by whoever asks and the task that reads what the relay says.
#[derive(Debug)]
pub(super) struct Exchange {
    /// The last one that the relay told.
    pub(super) state: Cell<RelayState>,
    /// Its log records, and the sessions in them.
    pub(super) intake: Intake,
    /// Who waits for an answer to a command, the oldest first: a relay answers in order.
    pub(super) commands: RefCell<VecDeque<oneshot::Sender<Answer>>>,
    /// Who waits for an answer to a question, by its number.
    pub(super) questions: RefCell<HashMap<u64, oneshot::Sender<Reply>>>,
}

impl Exchange {
    /// Answers the oldest command; whether there is one.
    pub(super) fn answer(&self, answer: Answer) -> bool {
        let teller = self.commands.borrow_mut().pop_front();
        // Nobody waits any more where its time was over.
        teller.map(|teller| drop(teller.send(answer))).is_some()
    }

    /// No answer will come: whoever waits for one learns it.
    pub(super) fn close(&self) {
        self.commands.borrow_mut().clear();
        self.questions.borrow_mut().clear();
    }
}
