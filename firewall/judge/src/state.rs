//! A packet on its way: what it is, which packets it stands for, and what it has passed.

use std::sync::Arc;

use crate::answer::{Condition, Place, Step, StepKind};
use crate::packet::Packet;
use crate::region::Region;

/// Packets that have fared alike so far.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// Their headers and properties, as far as these are known.
    pub(crate) packet: Arc<Packet>,
    /// The sources, ports, addresses and lengths that they still may have.
    pub(crate) region: Region,
    /// What must hold beside it.
    pub(crate) conditions: Vec<Condition>,
    /// The base chains that they came to, and the rules that led them elsewhere.
    pub(crate) path: Path,
    /// The rule by which they left the base chain early, or the end of a chain that they were sent to for good, and whether
    /// something was named on the way there.
    pub(crate) left_by: Option<(Place, bool)>,
    /// The rule or policy by which they passed the last base chain.
    pub(crate) passed_by: Option<Place>,
}

/// The steps of a way, shared by all that have gone it together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Path(Option<Arc<Node>>);

#[derive(Debug)]
struct Node {
    step: Step,
    before: Path,
}

impl Path {
    /// One step further.
    pub(crate) fn push(&mut self, place: Place, kind: StepKind) {
        let before = std::mem::take(self);
        self.0 = Some(Arc::new(Node { step: Step { place, kind }, before }));
    }

    /// From the first step to the last.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut at = self;
        while let Some(node) = &at.0 {
            steps.push(node.step.clone());
            at = &node.before;
        }
        steps.reverse();
        steps
    }
}

/// Joins states that nothing tells apart any more but which packets they stand for.
pub(crate) fn join(states: &mut Vec<State>) {
    // What was joined has fewer conditions, and may be like one that was passed over.
    while join_once(states) {}
}

fn join_once(states: &mut Vec<State>) -> bool {
    let count = states.len();
    let mut at = 0;
    while at < states.len() {
        let mut other = at + 1;
        while other < states.len() {
            if let Some(joined) = joined(&states[at], &states[other]) {
                states[at] = joined;
                states.swap_remove(other);
                other = at + 1;
            } else {
                other += 1;
            }
        }
        at += 1;
    }
    states.len() < count
}

fn joined(a: &State, b: &State) -> Option<State> {
    if a.left_by != b.left_by || a.passed_by != b.passed_by || a.packet != b.packet {
        return None;
    }
    if a.conditions == b.conditions {
        // Of the same conditions: the packets of the one are not those of the other.
        return Some(State { region: a.region.join(&b.region), ..a.clone() });
    }
    if a.region != b.region || a.conditions.len() != b.conditions.len() {
        return None;
    }
    let mut differ = (0..a.conditions.len()).filter(|index| a.conditions[*index] != b.conditions[*index]);
    let (index, None) = (differ.next()?, differ.next()) else { return None };
    let (mine, other) = (&a.conditions[index], &b.conditions[index]);
    if mine.place != other.place || mine.what != other.what || mine.holds == other.holds {
        return None;
    }
    let mut conditions = a.conditions.clone();
    conditions.remove(index);
    Some(State { conditions, ..a.clone() })
}
