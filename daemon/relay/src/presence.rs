//! Who is there: the list of endpoints and the stream of its changes, as server-sent events.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::json;
use zone_protocol::provisioning::{EndpointStatus, Endpoints};

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// An endpoint has its first connection.
    Joined,
    /// It has none any more.
    Left,
    /// The number of its parks or sessions is another one.
    Changed,
}

impl Change {
    fn event(self) -> &'static str {
        match self {
            Self::Joined => "joined",
            Self::Left => "left",
            Self::Changed => "changed",
        }
    }
}

/// One change, numbered.
#[derive(Debug, Clone)]
pub(crate) struct PresenceEvent {
    /// Grows by one with every event of this relay.
    pub(crate) sequence: u64,
    /// What changed.
    pub(crate) change: Change,
    /// The endpoint, as it is now.
    pub(crate) endpoint: Arc<EndpointStatus>,
}

/// The first event of a stream, and again after a `resync`: everything.
pub(crate) fn snapshot(list: &Endpoints) -> String {
    let data = serde_json::to_string(list).unwrap_or_default();
    event("snapshot", &list.boot, list.sequence, &data)
}

/// One change.
pub(crate) fn change(boot: &str, event_of: &PresenceEvent) -> String {
    let data = json!({ "sequence": event_of.sequence, "endpoint": &*event_of.endpoint });
    event(event_of.change.event(), boot, event_of.sequence, &data.to_string())
}

/// Tells a reader that was too slow that events were lost; a snapshot follows.
pub(crate) fn resync(boot: &str, sequence: u64) -> String {
    event("resync", boot, sequence, &json!({ "sequence": sequence }).to_string())
}

/// Keeps an idle stream alive; readers ignore comments.
pub(crate) const KEEP_ALIVE: &str = ":\n\n";

fn event(name: &str, boot: &str, sequence: u64, data: &str) -> String {
    let mut text = String::new();
    // Writing to a String can't fail, and JSON on one line holds no line break.
    let _ = write!(text, "event: {name}\nid: {boot}-{sequence}\ndata: {data}\n\n");
    text
}
