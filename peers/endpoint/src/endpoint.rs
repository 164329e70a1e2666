//! The endpoint itself: what it is made of, and its life from start to stop.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::sync::Semaphore;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tracing::{error, info, warn};
use zone_protocol::identity::Label;
use zone_protocol::tls::certificate::Leaf;

use crate::allowance::Allowance;
use crate::config::{Config, DEFAULT_MAX_SESSIONS, DEFAULT_PARKS, EndToEnd};
use crate::credentials::CredentialsError;
use crate::events::Observer;
use crate::life::Phase;
use crate::local::LocalTcp;
use crate::park::{self, Kept};
use crate::renewal::{CurrentTls, Renewal};
use crate::service::{Entry, Protection, Service};
use crate::shared::Shared;
use crate::timing::Timing;

/// Sessions that were cut have this long to close their sockets.
const ABORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two looks at the files of certificates where nothing else asks for one.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

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

/// The certificates of an endpoint that runs, as they are on disk.
#[derive(Clone)]
pub struct Certificates(Arc<CurrentTls>);

impl Certificates {
    /// Reads them again, and has parks made with them where they have changed. Sessions go on.
    pub fn look(&self) -> Renewal {
        self.0.look()
    }

    /// The endpoint's own certificate, where it comes from a file.
    pub fn leaf(&self) -> Option<Leaf> {
        self.0.leaf()
    }
}

/// An endpoint that can be run.
pub struct Endpoint {
    shared: Shared,
    parks: u32,
    max_sessions: u32,
}

impl Endpoint {
    /// What a configuration describes: services are local TCP targets. Certificates, key and anchors are read again
    /// while it runs, and used as soon as they have changed.
    pub fn from_config(config: &Config) -> Result<Self, SetupError> {
        let tls = CurrentTls::of_files(config)?;
        let mut endpoint = Self::with_tls(config.id.clone(), &config.proxies, tls)
            .with_parks(config.parks)
            .with_max_sessions(config.max_sessions)
            .with_timing(config.timing());
        for service in &config.service {
            let protection = match service.end_to_end {
                EndToEnd::Required => Protection::EndToEndByFiles,
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
        Self::with_tls(id, proxies, CurrentTls::fixed(tls))
    }

    fn with_tls(id: Label, proxies: &[String], tls: CurrentTls) -> Self {
        Self {
            shared: Shared::new(id, proxies, tls),
            parks: DEFAULT_PARKS,
            max_sessions: DEFAULT_MAX_SESSIONS,
        }
    }

    /// Its certificates, to ask for a look at their files while it runs.
    pub fn certificates(&self) -> Certificates {
        Certificates(Arc::clone(&self.shared.tls))
    }

    /// Lets sessions reach a service by its name and, for callers that know only numbers, by `port`.
    pub fn with_service(
        mut self,
        name: Label,
        port: Option<u16>,
        protection: Protection,
        service: Arc<dyn Service>,
    ) -> Result<Self, SetupError> {
        if matches!(protection, Protection::EndToEndByFiles) && !self.shared.tls.has_files() {
            let why =
                format!("service {name}: this endpoint has no files of certificates for TLS end to end");
            return Err(SetupError::Service(why));
        }
        let entry = Entry { name, port, protection, service };
        self.shared.services.add(entry).map_err(SetupError::Service)?;
        Ok(self)
    }

    /// Keeps this many connections parked, at least one.
    #[must_use]
    pub fn with_parks(mut self, parks: u32) -> Self {
        self.parks = parks.max(1);
        self.shared.allowance = Allowance::new(self.parks);
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
        let Self { parks: count, max_sessions, .. } = self;
        let shared = self.into_shared();
        let mut life = shared.life.subscribe();
        let mut parks = Parks { shared: Arc::clone(&shared), tasks: JoinSet::new(), places: HashMap::new() };
        let mut number = shared.tls.current().number;
        (0..count).for_each(|place| parks.maintain(place, number));
        let mut look = interval_at(Instant::now() + LOOK_INTERVAL, LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                // The sender lives as long as `shared`.
                Ok(renewed) = life.wait_for(|life| life.renewed > number) => {
                    number = renewed.renewed;
                    drop(renewed);
                    (0..count).for_each(|place| parks.maintain(place, number));
                }
                Some(ended) = parks.tasks.join_next_with_id() => parks.ended(ended, number),
                _ = look.tick() => {
                    shared.tls.look();
                }
            }
        }
        shared.life.send_modify(|life| life.phase = Phase::Draining);
        while parks.tasks.join_next().await.is_some() {}
        let ended = || shared.sessions.acquire_many(max_sessions);
        if timeout(shared.timing.shutdown_grace, ended()).await.is_err() {
            let left = max_sessions as usize - shared.sessions.available_permits();
            info!(left, "sessions did not end in time and are cut");
            shared.life.send_modify(|life| life.phase = Phase::Aborting);
            if timeout(ABORT_TIMEOUT, ended()).await.is_err() {
                warn!("sessions did not let go of their sockets in time");
            }
        }
    }

    fn into_shared(mut self) -> Arc<Shared> {
        self.shared.sessions = Arc::new(Semaphore::new(self.max_sessions as usize));
        Arc::new(self.shared)
    }
}

/// The tasks that maintain parks, with the place of each among them.
struct Parks {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    places: HashMap<Id, u32>,
}

impl Parks {
    /// Maintains the park of this place, with the certificates of this number.
    fn maintain(&mut self, place: u32, number: u64) {
        let task =
            park::maintain(Arc::clone(&self.shared), self.shared.life.subscribe(), Kept { place, number });
        self.places.insert(self.tasks.spawn(task).id(), place);
    }

    /// A task has ended as it should, or has broken off: then another one takes its place.
    fn ended(&mut self, ended: Result<(Id, ()), JoinError>, number: u64) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
        let place = self.places.remove(&id);
        if let (Err(failure), Some(place)) = (ended, place) {
            error!(%failure, "a park's task broke off and is started again");
            self.maintain(place, number);
        }
    }
}
