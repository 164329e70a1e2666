//! What the tasks of one endpoint have in common.

use std::sync::Arc;

use rustls::ClientConfig;
use tokio::sync::Semaphore;
use zone_protocol::identity::Label;
use zone_protocol::instance::Instance;

use crate::dial::Dialer;
use crate::events::{Event, Observer};
use crate::proxies::Proxies;
use crate::service::AllowList;
use crate::timing::Timing;

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

/// What the tasks of one endpoint have in common.
pub(crate) struct Shared {
    pub(crate) id: Label,
    pub(crate) proxies: Proxies,
    pub(crate) dialer: Dialer,
    pub(crate) services: AllowList,
    pub(crate) timing: Timing,
    pub(crate) observer: Option<Observer>,
    /// One permit for each session that may still begin.
    pub(crate) sessions: Arc<Semaphore>,
}

impl Shared {
    /// Of an endpoint without services that may not carry a session yet.
    pub(crate) fn new(id: Label, proxies: &[String], tls: Arc<ClientConfig>) -> Self {
        let timing = Timing::default();
        let instance = Instance(rand::random());
        Self {
            id,
            proxies: Proxies::new(proxies),
            dialer: Dialer { tls, source: None, instance, limit: timing.dial },
            services: AllowList::default(),
            timing,
            observer: None,
            sessions: Arc::new(Semaphore::new(0)),
        }
    }

    pub(crate) fn emit(&self, event: &Event) {
        if let Some(observer) = &self.observer {
            observer(event);
        }
    }
}
