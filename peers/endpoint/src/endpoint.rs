//! The endpoint itself: what it is made of, and its life from start to stop.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, error, info, warn};
use zone_protocol::identity::Label;
use zone_protocol::instance::Instance;

use crate::config::{Config, EndToEnd};
use crate::credentials::{Credentials, CredentialsError};
use crate::dial::Dialer;
use crate::events::{Event, Observer};
use crate::keeper;
use crate::local::LocalTcp;
use crate::service::{AllowList, Entry, Protection, Service};

/// Parks that an endpoint keeps where nothing else is said.
pub(crate) const DEFAULT_PARKS: u32 = 2;

/// Sessions that an endpoint carries at most where nothing else is said.
pub(crate) const DEFAULT_MAX_SESSIONS: u32 = 64;

/// Sessions that were cut have this long to close their sockets.
const CUTTING: Duration = Duration::from_secs(5);

/// How long things may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// One dial, from the proxy's name to its 101.
    pub dial: Duration,
    /// The proxy pings after 20 s of silence; after this long without a byte it is given up.
    pub silence: Duration,
    /// Opening a service for a session. The proxy tries another park after 3 s without an answer, so this
    /// should stay below.
    pub target_connect: Duration,
    /// The handshake of TLS end to end.
    pub end_to_end: Duration,
    /// The window of the first back-off.
    pub back_off_first: Duration,
    /// The window of every later back-off grows to this.
    pub back_off_longest: Duration,
    /// Sessions may go on for this long once the endpoint is told to stop.
    pub shutdown_grace: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            dial: Duration::from_secs(10),
            silence: Duration::from_secs(45),
            target_connect: Duration::from_secs(2),
            end_to_end: Duration::from_secs(10),
            back_off_first: Duration::from_secs(1),
            back_off_longest: Duration::from_secs(60),
            shutdown_grace: Duration::from_secs(5),
        }
    }
}

/// Why an endpoint can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Certificates, keys or anchors are wrong.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// Two services are in each other's way.
    #[error("{0}")]
    Service(String),
}

/// An endpoint that can be run.
pub struct Endpoint {
    shared: Shared,
    parks: u32,
    max_sessions: u32,
}

impl Endpoint {
    /// What a configuration describes: services are local TCP targets.
    pub fn from_config(config: &Config) -> Result<Self, SetupError> {
        let credentials = Credentials::read(config)?;
        let mut endpoint = Self::new(config.id.clone(), &config.proxies, credentials.client()?)
            .with_parks(config.parks)
            .with_max_sessions(config.max_sessions)
            .with_timing(config.timing());
        let end_to_end = Protection::EndToEnd(credentials.end_to_end_server()?);
        for service in &config.service {
            let protection = match service.end_to_end {
                EndToEnd::Required => end_to_end.clone(),
                EndToEnd::Off => Protection::Off,
            };
            let target = LocalTcp::new(&service.target);
            endpoint = endpoint.with_service(service.name.clone(), service.port, protection, target)?;
        }
        Ok(endpoint)
    }

    /// An endpoint without services yet. `proxies` are `host:port` in order of preference, `tls` shows its
    /// certificate and verifies that the other side is a proxy of its zone.
    pub fn new(id: Label, proxies: &[String], tls: Arc<ClientConfig>) -> Self {
        let timing = Timing::default();
        let instance = Instance(rand::random());
        Self {
            shared: Shared {
                id,
                proxies: Proxies::new(proxies),
                dialer: Dialer { tls, source: None, instance, limit: timing.dial },
                services: AllowList::default(),
                timing,
                observer: None,
                sessions: Arc::new(Semaphore::new(0)),
            },
            parks: DEFAULT_PARKS,
            max_sessions: DEFAULT_MAX_SESSIONS,
        }
    }

    /// Lets sessions reach a service by its name and, for callers that know only numbers, by `port`.
    pub fn with_service(
        mut self,
        name: Label,
        port: Option<u16>,
        protection: Protection,
        service: Arc<dyn Service>,
    ) -> Result<Self, SetupError> {
        let entry = Entry { name, port, protection, service };
        self.shared.services.add(entry).map_err(SetupError::Service)?;
        Ok(self)
    }

    /// Keeps this many connections parked, at least one.
    #[must_use]
    pub fn with_parks(mut self, parks: u32) -> Self {
        self.parks = parks.max(1);
        self
    }

    /// Carries at most this many sessions at a time.
    #[must_use]
    pub fn with_max_sessions(mut self, max_sessions: u32) -> Self {
        self.max_sessions = max_sessions;
        self
    }

    /// Other times than [`Timing::default`].
    #[must_use]
    pub fn with_timing(mut self, timing: Timing) -> Self {
        self.shared.dialer.limit = timing.dial;
        self.shared.timing = timing;
        self
    }

    /// Dials from this local address.
    #[must_use]
    pub fn with_source(mut self, source: IpAddr) -> Self {
        self.shared.dialer.source = Some(source);
        self
    }

    /// Tells `observer` what happens.
    #[must_use]
    pub fn with_observer(mut self, observer: Observer) -> Self {
        self.shared.observer = Some(observer);
        self
    }

    /// Parks and serves until `shutdown` completes; then lets go of its parks at once, and of its sessions
    /// after [`Timing::shutdown_grace`]. Dropping this future cuts everything.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { parks, max_sessions, .. } = self;
        let shared = self.into_shared();
        let (phase, watched) = watch::channel(Phase::Serving);
        let mut keepers = JoinSet::new();
        for _ in 0..parks {
            keepers.spawn(keeper::keep(Arc::clone(&shared), watched.clone()));
        }
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(ended) = keepers.join_next() => {
                    error!(?ended, "a park's task ended by itself; starting another");
                    keepers.spawn(keeper::keep(Arc::clone(&shared), watched.clone()));
                }
            }
        }
        phase.send_replace(Phase::Closing);
        while keepers.join_next().await.is_some() {}
        let over = || shared.sessions.acquire_many(max_sessions);
        if timeout(shared.timing.shutdown_grace, over()).await.is_err() {
            let left = max_sessions as usize - shared.sessions.available_permits();
            info!(left, "sessions did not end in time and are cut");
            phase.send_replace(Phase::Cutting);
            if timeout(CUTTING, over()).await.is_err() {
                warn!("sessions did not let go of their sockets in time");
            }
        }
    }

    pub(crate) fn into_shared(mut self) -> Arc<Shared> {
        self.shared.sessions = Arc::new(Semaphore::new(self.max_sessions as usize));
        Arc::new(self.shared)
    }
}

/// How far an endpoint is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It keeps parks and takes sessions.
    Serving,
    /// It lets go of its parks; sessions go on.
    Closing,
    /// Sessions end too.
    Cutting,
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
    pub(crate) fn emit(&self, event: &Event) {
        if let Some(observer) = &self.observer {
            observer(event);
        }
    }
}

/// The proxies in order of preference, and which one was good last.
pub(crate) struct Proxies {
    list: Vec<Proxy>,
    last_good: AtomicUsize,
}

impl Proxies {
    fn new(addresses: &[String]) -> Self {
        let proxy =
            |address: &String| Proxy { address: address.as_str().into(), complaint: Mutex::default() };
        Self { list: addresses.iter().map(proxy).collect(), last_good: AtomicUsize::new(0) }
    }

    /// Each once, beginning with the one that was good last.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = &Proxy> {
        let first = self.last_good.load(Ordering::Relaxed);
        (0..self.list.len()).map(move |n| &self.list[(first + n) % self.list.len()])
    }

    /// The next dial begins here.
    pub(crate) fn good(&self, proxy: &Proxy) {
        proxy.forget_complaint();
        if let Some(index) = self.list.iter().position(|other| std::ptr::eq(other, proxy)) {
            self.last_good.store(index, Ordering::Relaxed);
        }
    }
}

/// One proxy.
pub(crate) struct Proxy {
    /// As configured.
    pub(crate) address: Arc<str>,
    complaint: Mutex<Option<String>>,
}

impl Proxy {
    /// Logs why the proxy could not be parked at, once for as long as the reason stays the same.
    pub(crate) fn complain(&self, reason: &str) {
        let mut last = self.complaint.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_deref() == Some(reason) {
            debug!("{reason}");
        } else {
            warn!("{reason}");
            *last = Some(reason.to_owned());
        }
    }

    fn forget_complaint(&self) {
        *self.complaint.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dialing_begins_with_the_proxy_that_was_good_last_and_comes_round_to_all() {
        let proxies = Proxies::new(&["a:1".into(), "b:1".into(), "c:1".into()]);
        let order = || proxies.in_order().map(|p| p.address.to_string()).collect::<Vec<_>>();
        assert_eq!(order(), ["a:1", "b:1", "c:1"]);
        proxies.good(&proxies.list[1]);
        assert_eq!(order(), ["b:1", "c:1", "a:1"]);
    }
}
