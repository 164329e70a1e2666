//! The rule that decides, as the kernel tells it.

use zone_judge::Place;
use zone_ruleset::Family;

use crate::ground::OWN_TABLE;
use crate::netlink::Traced;
use crate::opinion::{self, Outcome};

/// Says how the judge's deciding rule differs from that of a packet's trace; `None` where it does not.
pub(crate) fn disagreement(outcome: &Outcome, judged: Option<&Place>, steps: &[Traced]) -> Option<String> {
    let foreign = steps.iter().filter(|step| step.table != OWN_TABLE.as_bytes());
    let said = judged.map_or_else(|| "nothing".to_owned(), opinion::place);
    match outcome {
        Outcome::Stopped => {
            let Some(last) = foreign.last() else {
                return Some(format!("stopped by {said}; the kernel traced no rule"));
            };
            let same = judged.is_some_and(|place| matches(place, last));
            (!same).then(|| format!("stopped by {said}; the kernel says by {}", told(last)))
        }
        // Whoever accepts last may be named, or nobody.
        Outcome::Arrives | Outcome::Elsewhere => {
            let place = judged?;
            let met = foreign.into_iter().any(|step| matches(place, step));
            (!met).then(|| format!("accepted by {said}, which the kernel did not come to"))
        }
    }
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
