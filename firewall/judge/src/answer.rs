//! What was found out.

use std::sync::Arc;

use zone_ruleset::{Family, HookPoint, Name};

use crate::question::Span;

/// The cases that packets fall into: together all that were asked about, and no packet is in two, unless these differ in
/// their conditions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The cases.
    pub cases: Vec<Case>,
}

/// Packets that fare alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Where they come from.
    pub sources: Arc<[Span]>,
    /// The ports that they come from.
    pub source_ports: Arc<[Span]>,
    /// The addresses that they go to.
    pub destinations: Arc<[Span]>,
    /// How many bytes they have, network header included.
    pub lengths: Arc<[Span]>,
    /// Whether these are all the lengths that were asked about.
    pub of_any_length: bool,
    /// The device that they come in by; `None` where the host has none.
    pub interface: Option<Name>,
    /// What must hold beside it, in the order in which it was asked. Whether it holds is not known.
    pub conditions: Vec<Condition>,
    /// What becomes of them.
    pub fate: Fate,
    /// The rule or policy that decides. `None` where nothing stands in their way.
    pub decided_by: Option<Place>,
    /// Where a policy decides: the rule that led them out of the base chain early, or the end (no handle) of a chain that they were
    /// sent to for good.
    pub left_by: Option<Place>,
    /// The chains that they pass, and the rules that lead from one to the other, in order.
    pub path: Vec<Step>,
    /// Whether a rule on the way to the deciding one, or this one itself, names a port, an address, a device or a condition: then
    /// it is meant for these packets, and not for whatever is left at the end of a chain.
    pub named: bool,
    /// Whether the deciding rule itself does.
    pub named_by_itself: bool,
}

/// What becomes of packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// They come to the socket that listens.
    Accepted,
    /// They are gone, and nobody is told.
    Dropped,
    /// They are gone, and the sender is told.
    Rejected,
    /// They come to the socket, and its answer is gone on its way out.
    Unanswered,
    /// They come to another port or address of this host.
    Redirected {
        /// Where to, as `ADDRESS:PORT`, as far as it is known.
        to: String,
    },
    /// They go on to another host.
    Forwarded {
        /// Where to, as far as it is known.
        to: String,
    },
    /// A program, or the kernel in its place, decides or answers.
    TakenOver {
        /// By whom, such as `queue 3` or `synproxy`.
        by: String,
    },
    /// It can't be told.
    Unknown(Reason),
}

/// Why something can't be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// What it is about, in words.
    pub what: String,
    /// The rule that could not be followed, if it is about one.
    pub place: Option<Place>,
}

/// Something that holds or does not hold, and nobody knows which.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Condition {
    /// What is asked, such as `limit rate 5/second` or `meta mark`.
    pub what: String,
    /// Whether it holds in this case.
    pub holds: bool,
    /// The rule that asks.
    pub place: Place,
    /// The option of `explain` that would decide it: `--iif`, `--mac`, `--mark`.
    pub decided_with: Option<&'static str>,
    /// For a rate or a quota: whether this is so as long as little comes. `None` for everything else.
    pub while_quiet: Option<bool>,
}

/// A rule, or a policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The family of the table.
    pub family: Family,
    /// The table.
    pub table: Name,
    /// The chain.
    pub chain: Name,
    /// The rule's handle; `None` for the policy.
    pub handle: Option<u64>,
}

/// A step of a packet's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Where: a base chain that it comes to (no handle), or a rule that leads it elsewhere.
    pub place: Place,
    /// What happens there.
    pub kind: StepKind,
}

/// What happens at a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepKind {
    /// It comes to a base chain.
    Hook {
        /// Where that is hooked in.
        point: HookPoint,
        /// With which priority.
        priority: i32,
    },
    /// It goes to a chain, and comes back.
    Jump(Name),
    /// It goes to a chain for good.
    Goto(Name),
    /// It goes back to where it was called from, or leaves a base chain.
    Return,
}

impl std::fmt::Display for StepKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Hook { point, priority } => write!(f, "hook {} priority {priority}", point.as_str()),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
            Self::Return => f.write_str("return"),
        }
    }
}
