//! Changes of the state: each is done whole or undone, one at a time, and goes on when its client goes away.

mod identity;
mod offer;
mod provision;
mod token;
mod trust;
mod unprovision;
mod validate;

use std::borrow::Cow;
use std::fmt::Display;
use std::rc::Rc;
use std::sync::Arc;

use tokio::task::spawn_local;
use zone_protocol::problem::Problem;
use zone_protocol::tls::certificate::hex;

pub use offer::{OpenOffer, Purpose};

use crate::daemon::Daemon;
use crate::firewall::FirewallError;
use crate::relay::RelayError;
use crate::server::problems;
use crate::state::{State, StateError};

/// The steps of a change, as problems and the log name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The documents are looked at.
    Validate,
    /// The ports are bound, and don't listen yet.
    Bind,
    /// A relay has everything and is ready, or has taken the new policy.
    Relay,
    /// The one switch.
    StoreState,
    /// The ports listen, and the host's firewall lets connections through to them.
    Firewall,
    /// The relay accepts.
    Accept,
}

impl Step {
    /// In their order.
    pub const ALL: [Self; 6] =
        [Self::Validate, Self::Bind, Self::Relay, Self::StoreState, Self::Firewall, Self::Accept];

    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Validate => "validate",
            Self::Bind => "bind",
            Self::Relay => "relay",
            Self::StoreState => "store state",
            Self::Firewall => "firewall",
            Self::Accept => "accept",
        }
    }
}

impl Step {
    fn refusal(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::Validate => (422, "validation-failed", "The documents can't be taken"),
            Self::Bind => (409, "bind-failed", "A port can't be had"),
            Self::Relay => (500, "relay-failed", "The relay does not do its part"),
            Self::StoreState => (500, "store-failed", "The state can't be stored"),
            Self::Firewall => (500, "firewall-failed", "The firewall can't be changed"),
            Self::Accept => (500, "accept-failed", "The ports can't be opened"),
        }
    }
}

/// A step that failed, after everything before it was undone.
#[derive(Debug)]
pub struct Failure {
    step: Step,
    why: String,
    help: Option<Cow<'static, str>>,
    no_space: bool,
}

impl Failure {
    fn new(step: Step, why: impl Display) -> Self {
        Self { step, why: why.to_string(), help: None, no_space: false }
    }

    fn help(self, help: impl Into<Cow<'static, str>>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    fn invalid(why: impl Display) -> Self {
        Self::new(Step::Validate, why)
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        Self { no_space: error.no_space(), ..Self::new(Step::StoreState, error) }
    }
}

impl From<RelayError> for Failure {
    fn from(error: RelayError) -> Self {
        Self::new(Step::Relay, error)
    }
}

impl From<FirewallError> for Failure {
    fn from(error: FirewallError) -> Self {
        match error {
            FirewallError::Refused { why, help } => Self::new(Step::Firewall, why).help(help),
            error @ FirewallError::Unreachable(_) => Self::new(Step::Firewall, error),
        }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let (status, slug, title) = failure.step.refusal();
        let status = if failure.no_space { 507 } else { status };
        let problem = Problem::new(status, slug, title).step(failure.step.as_str()).detail(failure.why);
        match failure.help {
            Some(help) => problem.help(help),
            None => problem,
        }
    }
}

/// Who wants a change, for the audit log.
#[derive(Debug, Clone)]
pub struct Actor {
    /// An identity, or the user of this host.
    pub who: String,
    /// Where from.
    pub from: String,
}

impl Actor {
    /// Somebody.
    pub fn new(who: impl Display, from: impl Display) -> Self {
        Self { who: who.to_string(), from: from.to_string() }
    }
}

/// What a change did, for the audit log.
struct Change {
    before: String,
    after: String,
}

impl Change {
    fn between(before: &State, after: &State) -> Self {
        Self { before: summary(before), after: summary(after) }
    }
}

fn summary(state: &State) -> String {
    let token = if state.token.is_some() { " token=outstanding" } else { "" };
    match &state.membership {
        None => format!("unprovisioned{token}"),
        Some(own) => format!(
            "zone={} name={} provisioning={} trust={} keys={}{token}",
            own.document.zone,
            own.document.name,
            own.id,
            own.document.trust.version,
            state.pin().map(|pin| hex(&pin[..4])).unwrap_or_default()
        ),
    }
}

/// Runs a change in a task of its own, if no other is under way, and writes the audit line.
async fn change<T: 'static, E: Into<Problem> + 'static>(
    daemon: &Rc<Daemon>,
    kind: &'static str,
    actor: Actor,
    work: impl AsyncFnOnce(Rc<Daemon>) -> Result<(T, Change), E> + 'static,
) -> Result<T, Problem> {
    let Ok(turn) = Arc::clone(&daemon.turn).try_lock_owned() else { return Err(problems::busy()) };
    let daemon = Rc::clone(daemon);
    let running = spawn_local(async move {
        let result = work(Rc::clone(&daemon)).await.map_err(Into::into);
        report(&daemon, kind, &actor, result.as_ref().map(|(_, change)| change));
        drop(turn);
        result.map(|(value, _)| value)
    });
    match running.await {
        Ok(result) => result,
        Err(error) => {
            tracing::error!(kind, %error, "a change broke off");
            Err(problems::internal("the change broke off"))
        }
    }
}

fn report(daemon: &Daemon, kind: &'static str, actor: &Actor, result: Result<&Change, &Problem>) {
    let Actor { who, from } = actor;
    match result {
        Ok(Change { before, after }) => {
            daemon.metrics.change(kind, "done");
            tracing::info!(target: crate::log::AUDIT, change = kind, who, from, before, after, "done");
        }
        Err(problem) => {
            let step = problem.step.as_deref().unwrap_or("request");
            daemon.metrics.change(kind, step_label(step));
            let error = problem.detail.as_deref().unwrap_or(&problem.title);
            tracing::warn!(target: crate::log::AUDIT, change = kind, who, from, step, error, "failed, undone");
        }
    }
}

/// The step as a metric label, which must not be made from what peers send.
fn step_label(step: &str) -> &'static str {
    Step::ALL.into_iter().map(Step::as_str).find(|name| *name == step).unwrap_or("request")
}
