//! How a change is made: in a task of its own, one at a time, with a line in the audit log whatever comes of it.

use std::fmt::Display;
use std::rc::Rc;
use std::sync::Arc;

use tokio::task::spawn_local;
use zone_protocol::tls::certificate::hex;

use super::error::{ChangeError, Step, StepError};
use crate::daemon::Daemon;
use crate::state::{State, pin};
use crate::tls::PortTicketKeys;

/// Who wants a change, for the audit log.
#[derive(Debug, Clone)]
pub struct Actor {
    /// An identity, or the user of this host.
    pub who: String,
    /// The address that they ask from, or the admin socket.
    pub from: String,
}

impl Actor {
    /// `who` wants it, from the address or place `from`.
    pub fn new(who: impl Display, from: impl Display) -> Self {
        Self { who: who.to_string(), from: from.to_string() }
    }
}

/// What a change did, for the audit log.
pub(super) struct Change {
    before: String,
    after: String,
}

impl Change {
    /// In the words of the audit log: zone, name, provisioning, trust version, keys and token of both states.
    pub(super) fn between(before: &State, after: &State) -> Self {
        Self { before: summary(before), after: summary(after) }
    }
}

fn summary(state: &State) -> String {
    let short = |keys| pin(keys).map(|pin| hex(&pin[..4])).unwrap_or_default();
    let token = if state.token.is_some() { " token=outstanding" } else { "" };
    let control = state.control_identity.as_ref();
    let control = control.map(|keys| format!(" control-keys={}", short(keys))).unwrap_or_default();
    match &state.membership {
        None => format!("unprovisioned{token}"),
        Some(own) => format!(
            "zone={} name={} provisioning={} trust={} keys={}{control}{token}",
            own.document.zone,
            own.document.name,
            own.id,
            own.document.trust.version,
            short(&state.identity)
        ),
    }
}

impl Daemon {
    /// Runs a change, if no other is under way, and writes the audit line.
    pub(super) async fn change<T: 'static>(
        self: &Rc<Self>,
        kind: &'static str,
        actor: Actor,
        work: impl AsyncFnOnce(Rc<Self>) -> Result<(T, Change), ChangeError> + 'static,
    ) -> Result<T, ChangeError> {
        let Ok(changing) = Arc::clone(&self.change_lock).try_lock_owned() else {
            return Err(ChangeError::Busy);
        };
        let daemon = Rc::clone(self);
        let running = spawn_local(async move {
            let result = work(Rc::clone(&daemon)).await;
            audit(&daemon, kind, &actor, result.as_ref().map(|(_, change)| change));
            drop(changing);
            result.map(|(value, _)| value)
        });
        match running.await {
            Ok(result) => result,
            Err(error) => {
                tracing::error!(kind, %error, "a change broke off");
                Err(ChangeError::BrokeOff)
            }
        }
    }

    /// Stores a state of the same provisioning and has everybody go by it, with fresh ticket keys.
    ///
    /// What is stored stays, for it may take rights away: a relay that does not take it is ended, and the one that serves
    /// is replaced. When this returns, no relay goes by the state of before, or the error names those that do.
    pub(super) async fn put_in_force(self: &Rc<Self>, next: State) -> Result<(), ChangeError> {
        let tickets = PortTicketKeys::generate().map_err(StepError::from)?;
        self.store.replace(&next).map_err(StepError::from)?.commit();
        let policy = self.policy(&next, &tickets);
        self.enter(next, Some(tickets));
        match policy {
            Some(policy) => Ok(self.supervisor.set_policy(&Rc::new(policy)).await?),
            None => Ok(()),
        }
    }
}

fn audit(daemon: &Daemon, kind: &'static str, actor: &Actor, result: Result<&Change, &ChangeError>) {
    let Actor { who, from } = actor;
    match result {
        Ok(Change { before, after }) => {
            daemon.metrics.change(kind, "done");
            tracing::info!(target: crate::log::AUDIT, change = kind, who, from, before, after, "done");
        }
        Err(ChangeError::NotInForce(error)) => {
            daemon.metrics.change(kind, "not in force");
            let after = summary(&daemon.state());
            tracing::error!(target: crate::log::AUDIT, change = kind, who, from, after, error, "stored, not in force everywhere");
        }
        Err(error) => {
            let step = error.step().map_or("request", Step::as_str);
            daemon.metrics.change(kind, step);
            let error = error.to_string();
            tracing::warn!(target: crate::log::AUDIT, change = kind, who, from, step, error, "failed, undone");
        }
    }
}
