//! What the tasks of one endpoint have in common.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use zone_protocol::identity::Label;
use zone_protocol::instance::Instance;

use crate::allowance::Allowance;
use crate::config::DEFAULT_PARKS;
use crate::dial::Dialer;
use crate::events::{Event, Observer};
use crate::life::Life;
use crate::proxies::Proxies;
use crate::renewal::{CurrentTls, Tls};
use crate::service::AllowList;
use crate::timing::Timing;

/// What the tasks of one endpoint have in common.
pub(crate) struct Shared {
    pub(crate) id: Label,
    pub(crate) proxies: Proxies,
    pub(crate) tls: Arc<CurrentTls>,
    pub(crate) life: watch::Sender<Life>,
    pub(crate) dialer: Dialer,
    pub(crate) services: AllowList,
    pub(crate) timing: Timing,
    pub(crate) observer: Option<Observer>,
    pub(crate) allowance: Allowance,
    /// One permit for each session that may still begin.
    pub(crate) sessions: Arc<Semaphore>,
}

impl Shared {
    /// Of an endpoint without services that may not carry a session yet.
    pub(crate) fn new(id: Label, proxies: &[String], tls: CurrentTls) -> Self {
        let timing = Timing::default();
        let instance = Instance(rand::random());
        Self {
            id,
            proxies: Proxies::new(proxies),
            life: tls.life().clone(),
            tls: Arc::new(tls),
            dialer: Dialer { source: None, instance, limit: timing.dial },
            services: AllowList::default(),
            timing,
            observer: None,
            allowance: Allowance::new(DEFAULT_PARKS),
            sessions: Arc::new(Semaphore::new(0)),
        }
    }

    /// What connections and sessions are made with, after another look at the files.
    pub(crate) fn tls(&self) -> Tls {
        self.tls.look();
        self.tls.current()
    }

    /// Notes that a proxy has taken a park with the certificates of this number.
    pub(crate) fn accepted(&self, number: u64) {
        self.life.send_if_modified(|life| {
            let newer = life.accepted < number;
            life.accepted = life.accepted.max(number);
            newer
        });
    }

    /// Has the endpoint hold so many parks at a time.
    pub(crate) fn want(&self, parks: u32) {
        self.life.send_if_modified(|life| std::mem::replace(&mut life.parks, parks) != parks);
    }

    pub(crate) fn emit(&self, event: &Event) {
        if let Some(observer) = &self.observer {
            observer(event);
        }
    }
}
