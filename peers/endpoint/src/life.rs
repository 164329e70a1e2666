//! What the tasks of one endpoint go by, from its start to its stop.

use tokio::sync::watch;

/// How far an endpoint is from start to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It keeps parks and takes sessions.
    Serving,
    /// It lets go of its parks; sessions go on.
    Draining,
    /// Sessions are cut too.
    Aborting,
}

/// The phase of an endpoint, and which certificates its parks are to be made with. Each set of certificates has a number
/// that is above those of the sets before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life {
    /// How far it is from start to stop.
    pub(crate) phase: Phase,
    /// The certificates in use: parks that were made with others are not dialed again.
    pub(crate) renewed: u64,
    /// The newest certificates with which a proxy has taken a park: parks that were made with others are let go.
    pub(crate) accepted: u64,
    /// How many parks are wanted at a time: those of a higher place are let go.
    pub(crate) parks: u32,
}

impl Life {
    /// Of an endpoint that starts.
    pub(crate) fn begin() -> watch::Sender<Self> {
        watch::Sender::new(Self { phase: Phase::Serving, renewed: 0, accepted: 0, parks: u32::MAX })
    }
}
