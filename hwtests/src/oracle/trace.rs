//! The rule that decides, as the kernel tells it.

use zone_judge::Place;
use zone_ruleset::Family;

use crate::ground::OWN_TABLE;
use crate::netlink::Traced;
use crate::opinion::{self, Outcome};

/// Says how the judge's deciding rule differs from that of a packet's trace; `None` where it does not.
pub(crate) fn disagreement(outcome: &Outcome, judged: Option<&Place>, steps: &[Traced]) -> Option<String> {
    let last = steps.iter().rfind(|step| step.table != OWN_TABLE.as_bytes());
    let Some(place) = judged else {
        let stopped = *outcome == Outcome::Stopped;
        return stopped.then(|| "stopped by nothing".to_owned());
    };
    // The kernel says nothing of the policy of a chain without rules.
    let silent = *outcome != Outcome::Stopped
        && place.handle.is_none()
        && !steps
            .iter()
            .any(|step| step.table == place.table.as_bytes() && step.chain == place.chain.as_bytes());
    if silent || last.is_some_and(|last| matches(place, last)) {
        return None;
    }
    let kernel = last.map_or_else(|| "no rule".to_owned(), told);
    Some(format!("{outcome} by {}; the kernel: by {kernel}", opinion::place(place)))
}

fn matches(place: &Place, step: &Traced) -> bool {
    let family = match place.family {
        Family::Inet => 1,
        Family::Ip => 2,
        Family::Arp => 3,
        Family::Netdev => 5,
        Family::Bridge => 7,
        Family::Ip6 => 10,
    };
    family == step.family
        && place.table.as_bytes() == step.table
        && place.chain.as_bytes() == step.chain
        && place.handle == step.handle
}

fn told(step: &Traced) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let which = step.handle.map_or_else(|| "its policy".to_owned(), |handle| format!("handle {handle}"));
    format!("{} {}, {which} (verdict {})", text(&step.table), text(&step.chain), step.verdict)
}
