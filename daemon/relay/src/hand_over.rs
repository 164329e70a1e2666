//! What a relay is told, and tells, while one takes another one's place: which endpoints may come, which are wanted elsewhere,
//! and how much is still carried elsewhere.

use std::sync::Arc;

use zone_channel::{KnownEndpoint, Reply, ToRelay};
use zone_pairing::Event;

use crate::context::Context;
use crate::switchboard::Switchboard;

/// The most endpoints in one answer.
const MAX_LISTED: usize = 1_000;

/// Does what control says about another relay, which wants no answer. Anything else is none of it.
pub(crate) fn follow(context: &Context, message: ToRelay) {
    let switchboard = &context.switchboard;
    match message {
        ToRelay::AcceptEndpoints => context.endpoints_let_in.reach(),
        ToRelay::Release { endpoints } => {
            for endpoint in endpoints {
                switchboard.report(Event::Release { endpoint: endpoint.shared() });
            }
        }
        ToRelay::Expect { endpoints } => {
            for KnownEndpoint { id, seconds } in endpoints {
                let within = std::time::Duration::from_secs(seconds.into());
                switchboard.report(Event::Expected { endpoint: id.shared(), within });
            }
        }
        ToRelay::Elsewhere { sessions } => context.limiters.set_elsewhere(sessions),
        _ => {}
    }
}

/// The endpoints that are known here after this one, for the next relay.
pub(crate) fn known<L>(switchboard: &Arc<Switchboard<L>>, after: &str) -> Reply {
    let known = switchboard.known_after(after, MAX_LISTED);
    let next = (known.len() == MAX_LISTED).then(|| known.last().map(|(id, _)| id.to_string())).flatten();
    let told = |(id, left): (Arc<str>, std::time::Duration)| {
        let seconds = u32::try_from(left.as_secs()).unwrap_or(u32::MAX);
        Some(KnownEndpoint { id: id.parse().ok()?, seconds })
    };
    Reply::Endpoints { endpoints: known.into_iter().filter_map(told).collect(), next }
}
