//! What control and a relay are in the middle of: commands that wait for their answers, and questions.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};

use tokio::sync::{oneshot, watch};
use zone_channel::{RelayState, Reply};
use zone_protocol::identity::Label;

use super::error::RelayError;
use super::intake::Intake;

/// Endpoints that a relay may want in its life: it does so only in its first seconds.
const MAX_WANTED: usize = 16_384;

/// What comes of a command: the state that the relay is in then.
pub(super) type Answer = Result<RelayState, RelayError>;

/// Shared by whoever asks and the task that reads what the relay says.
#[derive(Debug)]
pub(super) struct Exchange {
    /// The last one that the relay told.
    pub(super) state: Cell<RelayState>,
    /// Its log records, and the sessions in them.
    pub(super) intake: Intake,
    /// The endpoints that it wants, in the order in which it said so, see [`zone_channel::FromRelay::Wanted`].
    pub(super) wanted: watch::Sender<Vec<Label>>,
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

    /// Takes note of endpoints that the relay wants, as far as there is room.
    pub(super) fn want(&self, endpoints: Vec<Label>) {
        self.wanted.send_modify(|wanted| {
            let left = MAX_WANTED.saturating_sub(wanted.len());
            wanted.extend(endpoints.into_iter().take(left));
        });
    }

    /// No answer will come: whoever waits for one learns it.
    pub(super) fn close(&self) {
        self.commands.borrow_mut().clear();
        self.questions.borrow_mut().clear();
    }
}
