//! Why a change was not made, where everything before the step that failed was undone; or why it is not in force yet.

use std::borrow::Cow;
use std::fmt;

use zone_protocol::identity::printable;

use crate::bootstrap::BootstrapError;
use crate::firewall::FirewallError;
use crate::keys::KeyError;
use crate::relay::{NotInForce, RelayError};
use crate::state::StateError;
use crate::tls::NoRandomness;

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
    /// The name, as users know it.
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

    /// What it means that this step failed.
    fn failure(self) -> &'static str {
        match self {
            Self::Validate => "The documents can't be taken",
            Self::Bind => "A port can't be had",
            Self::Relay => "The relay does not do its part",
            Self::StoreState => "The state can't be stored",
            Self::Firewall => "The firewall can't be changed",
            Self::Accept => "The ports can't be opened",
        }
    }
}

/// Why a change was not made, or is not in force. It says so in words for a person; what a program is told is made of it where it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeError {
    /// A step of it failed.
    Step(StepError),
    /// Another change is under way.
    Busy,
    /// Only a provisioned proxy can be changed so.
    NotProvisioned,
    /// There is no open offer of this id and purpose.
    OfferUnknown(String),
    /// The change builds on another trust document than the one in force.
    PreconditionFailed {
        /// The version that it builds on.
        named: u64,
        /// The version in force.
        current: u64,
    },
    /// The new trust document would not let its own sender in, for this reason.
    LockOut(String),
    /// The new trust document would let somebody in again, or do so with a retired anchor; one line for each.
    TakesBack(Vec<String>),
    /// The keys of an offer can't be made, for this reason.
    Keys(String),
    /// The change was made and stays, and relays go by what was before: these, in words.
    NotInForce(String),
    /// The task that made the change ended before it.
    BrokeOff,
}

impl ChangeError {
    /// The step that failed, if the change got as far as its steps.
    pub fn step(&self) -> Option<Step> {
        match self {
            Self::Step(error) => Some(error.step),
            _ => None,
        }
    }

    /// What is wrong, the same words for every occurrence.
    pub fn title(&self) -> &'static str {
        match self {
            Self::Step(error) => error.step.failure(),
            Self::Busy => "Another change is under way",
            Self::NotProvisioned => "The proxy belongs to no zone",
            Self::OfferUnknown(_) => "There is no such offer",
            Self::PreconditionFailed { .. } => "Another trust version is in force",
            Self::LockOut(_) => "The new trust document would lock its sender out",
            Self::TakesBack(_) => "The new trust document takes back what holds",
            Self::NotInForce(_) => "The change is made, and not in force everywhere",
            Self::Keys(_) | Self::BrokeOff => "The proxy could not do it",
        }
    }

    /// What is wrong this time.
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::Step(error) => Some(error.why.clone()),
            Self::Busy | Self::NotProvisioned => None,
            Self::OfferUnknown(id) => {
                let id = printable(id);
                Some(format!(
                    "offer {id} was never made, was replaced by a newer one, has lapsed or is completed"
                ))
            }
            Self::PreconditionFailed { named, current } => {
                Some(format!("If-Match names version {named}, and version {current} is in force"))
            }
            Self::TakesBack(lines) => Some(some_of(lines)),
            Self::LockOut(why) | Self::Keys(why) | Self::NotInForce(why) => Some(why.clone()),
            Self::BrokeOff => Some("the change broke off".to_owned()),
        }
    }

    /// What to do about it.
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::Step(error) => error.help.as_deref(),
            Self::Busy => Some("try again when it is done"),
            Self::NotProvisioned => Some("provision it first"),
            Self::OfferUnknown(_) => Some("open a new one"),
            Self::PreconditionFailed { .. } => Some("read the one in force, and change that"),
            Self::TakesBack(_) => Some(
                "read the one in force and merge it; who is denied is let in again by a new certificate only",
            ),
            Self::LockOut(_) => Some("send it with a certificate that it lets in"),
            Self::NotInForce(_) => Some(
                "it is killed again and again until it is gone; `zone-proxy status` shows it until then: end its process",
            ),
            Self::Keys(_) | Self::BrokeOff => Some("its log says more"),
        }
    }
}

/// The first few lines, and how many there are more.
fn some_of(lines: &[String]) -> String {
    const MAX_LINES: usize = 5;
    let more = lines.len().saturating_sub(MAX_LINES);
    let text = lines[..lines.len() - more].join("; ");
    if more > 0 { format!("{text}; and {more} more") } else { text }
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail().unwrap_or_else(|| self.title().to_owned()))
    }
}

impl std::error::Error for ChangeError {}

impl From<NotInForce> for ChangeError {
    fn from(error: NotInForce) -> Self {
        Self::NotInForce(error.to_string())
    }
}

impl From<KeyError> for ChangeError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Busy => Self::Busy,
            error => Self::Keys(error.to_string()),
        }
    }
}

impl From<StepError> for ChangeError {
    fn from(error: StepError) -> Self {
        Self::Step(error)
    }
}

/// A step that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepError {
    /// The step, in the order of [`Step`].
    pub step: Step,
    /// One line for a person.
    pub why: String,
    /// What its sender, or an admin, can do about it.
    pub help: Option<Cow<'static, str>>,
    /// Whether the disk is full.
    pub no_space: bool,
}

impl StepError {
    pub(super) fn new(step: Step, why: impl fmt::Display) -> Self {
        Self { step, why: why.to_string(), help: None, no_space: false }
    }

    pub(super) fn invalid(why: impl fmt::Display) -> Self {
        Self::new(Step::Validate, why)
    }

    pub(super) fn help(self, help: impl Into<Cow<'static, str>>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

impl From<StateError> for StepError {
    fn from(error: StateError) -> Self {
        Self { no_space: error.no_space(), ..Self::new(Step::StoreState, error) }
    }
}

impl From<RelayError> for StepError {
    fn from(error: RelayError) -> Self {
        Self::new(Step::Relay, error)
    }
}

impl From<FirewallError> for StepError {
    fn from(error: FirewallError) -> Self {
        match error {
            FirewallError::Refused { why, help } => Self::new(Step::Firewall, why).help(help),
            error @ FirewallError::Unreachable(_) => Self::new(Step::Firewall, error),
        }
    }
}

impl From<NoRandomness> for StepError {
    fn from(error: NoRandomness) -> Self {
        Self::new(Step::Validate, error)
    }
}

impl From<BootstrapError> for StepError {
    fn from(error: BootstrapError) -> Self {
        Self::new(Step::Validate, error)
    }
}
