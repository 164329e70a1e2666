//! The daemon: everything that lives between start and stop, on one thread.

use std::cell::{Cell, RefCell};
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::task::spawn_local;
use tokio::time::{Instant, interval_at};
use zone_channel::Policy;
use zone_firewall_protocol::PortRule;
use zone_protocol::tls::TlsError;
use zone_settings::seconds;

use crate::config::{Config, ConfigErrors, OnStop};
use crate::firewall::{self, Firewall};
use crate::log::SetLevel;
use crate::metrics::Metrics;
use crate::relay::{Starter, Supervisor};
use crate::server::face::{Face, Tickets, versions};
use crate::server::gate::Gate;
use crate::service::Lifeline;
use crate::state::clock::{Clock, Time};
use crate::state::{IssuedToken, State, StateError, Store};
use crate::transaction::OpenOffer;
use crate::{admin, keys, server, status};

/// Between two stores of the highest wall clock.
const STORE_CLOCK: Duration = Duration::from_secs(60 * 60);
/// Between two rotations of ticket keys: half a ticket's life.
const ROTATE_TICKETS: Duration = Duration::from_secs(12 * 60 * 60);
/// For a change under way to come to its end when the daemon is stopped.
const LAST_CHANGE: Duration = Duration::from_secs(20);
const NO_RANDOMNESS: &str = "the system has no randomness to give";

/// Why the daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The durable state.
    #[error(transparent)]
    State(#[from] StateError),
    /// The certificates in it.
    #[error("the stored state is of no use: {0}; start over with `zone-proxy reset`")]
    Tls(#[from] TlsError),
    /// Port 17488.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The runtime directory or what is in it.
    #[error("can't use {path}: {source}")]
    Runtime {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Keys.
    #[error("keys can't be made: {0}")]
    Keys(String),
}

/// All of control. Chapters add to it: `transaction` the changes, `status` the reports.
pub struct Daemon {
    pub(crate) time: Time,
    pub(crate) store: Store,
    pub(crate) face: watch::Sender<Rc<Face>>,
    pub(crate) tickets: RefCell<Tickets>,
    pub(crate) offer: RefCell<Option<Rc<OpenOffer>>>,
    /// Held by the one change that is under way.
    pub(crate) turn: Arc<Mutex<()>>,
    pub(crate) supervisor: Rc<Supervisor>,
    pub(crate) metrics: Rc<Metrics>,
    pub(crate) gate: Gate,
    pub(crate) firewall: Firewall,
    /// The writing end: it stays open as long as this process lives, and in the service manager's store.
    _lifeline: Option<OwnedFd>,
    config: RefCell<Rc<Config>>,
    config_file: PathBuf,
    state: RefCell<Rc<State>>,
    epoch: Cell<u64>,
    set_level: SetLevel,
}

impl Daemon {
    /// Reads the durable state, or makes the first one; opens 17488 and the admin socket; takes up or starts a
    /// relay if the proxy is provisioned. Must run inside a `LocalSet` of a current-thread runtime.
    pub async fn start(
        config: Config,
        config_file: &Path,
        clock: Rc<dyn Clock>,
        starter: Rc<dyn Starter>,
        lifeline: Option<Lifeline>,
        set_level: SetLevel,
    ) -> Result<Rc<Self>, StartError> {
        let store = Store::open(&config.state_dir)?;
        let time = Time::new(clock, store.clock()?);
        store.set_clock(time.advance())?;
        if let Some(back) = time.set_back_by() {
            tracing::warn!("{}", status::clock_warning(back));
        }
        let loaded = store.load()?;
        let state = match &loaded {
            Some(state) => state.clone(),
            None => first_state(&config, &time).map_err(StartError::Keys)?,
        };
        let tickets = Self::fresh_tickets().map_err(|why| StartError::Keys(why.to_owned()))?;
        let face = Face::new(&state, &tickets.control, versions(config.tls.tls13), 0)?;
        if loaded.is_none() {
            store.replace(&state)?.commit();
        }
        make_runtime_dir(&config.runtime_dir)?;
        // The admin socket first: whoever sees 17488 open can ask there.
        let admin = admin::listen(&config.runtime_dir)?;
        let listeners = server::listen(&config.control.listen)?;

        let metrics = Rc::new(Metrics::new());
        let (keeper, reader) = match lifeline {
            Some(Lifeline { reader, writer }) => (Some(writer), Some(reader)),
            None => (None, None),
        };
        let supervisor = Supervisor::new(starter, config.runtime_dir.clone(), Rc::clone(&metrics), reader);
        let daemon = Rc::new(Self {
            time,
            store,
            face: watch::Sender::new(Rc::new(face)),
            tickets: RefCell::new(tickets),
            offer: RefCell::default(),
            turn: Arc::default(),
            supervisor,
            metrics,
            gate: Gate::default(),
            firewall: Firewall::new(&config.firewall),
            _lifeline: keeper,
            config: RefCell::new(Rc::new(config)),
            config_file: config_file.to_owned(),
            state: RefCell::new(Rc::new(state)),
            epoch: Cell::default(),
            set_level,
        });
        daemon.show_gauges();
        // Relays are known before anybody can ask for them; connections wait in the backlog meanwhile.
        daemon.supervisor.begin(daemon.wanted(&daemon.state())).await;
        spawn_local(admin::serve(Rc::clone(&daemon), admin));
        for listener in listeners {
            spawn_local(server::accept(Rc::clone(&daemon), listener));
        }
        spawn_local(Rc::clone(&daemon).keep_time());
        spawn_local(Rc::clone(&daemon).keep_firewall());
        tracing::info!(state = daemon.state().kind(), "zone-proxy {} runs", env!("CARGO_PKG_VERSION"));
        Ok(daemon)
    }

    /// Ends the daemon as `relay.on_stop` has it. A change under way comes to its end first. Relays with a
    /// lifeline find out by themselves whether the service is stopped or started again.
    pub async fn stop(self: &Rc<Self>) {
        let turn = tokio::time::timeout(LAST_CHANGE, self.turn.lock()).await;
        if turn.is_err() {
            tracing::warn!("a change is still under way, and the daemon stops all the same");
        }
        let on_stop = if self.supervisor.has_lifeline() { OnStop::Keep } else { self.config().relay.on_stop };
        match on_stop {
            OnStop::Stop => self.supervisor.release().await,
            OnStop::Drain => self.supervisor.drain_all().await,
            OnStop::Keep => {}
        }
        self.store_clock();
        let _ = std::fs::remove_file(admin::socket(&self.config().runtime_dir));
        tracing::info!(relays = ?on_stop, "stopped");
    }

    /// Reads the configuration file again (SIGHUP, `zone-proxy reload`). An invalid one changes nothing.
    pub async fn reload(self: &Rc<Self>) -> Result<(), ConfigErrors> {
        let old = self.config();
        let new = match Config::read(&self.config_file) {
            Ok(new) => new,
            Err(errors) => {
                let error = errors.lines().join("; ");
                tracing::error!(error, "the configuration is invalid, and everything stays as it was");
                return Err(errors);
            }
        };
        let restart = old.needs_restart(&new);
        if !restart.is_empty() {
            tracing::warn!(keys = restart.join(", "), "these keys take a restart");
        }
        let _turn = self.turn.lock().await;
        let live = old.taking_live(new);
        (self.set_level)(live.log.level);
        let same_tls = old.tls == live.tls;
        self.config.replace(Rc::new(live));
        if !same_tls {
            self.show(self.epoch.get());
        }
        self.push_policy().await;
        self.firewall.poke();
        tracing::info!("the configuration was read again");
        Ok(())
    }

    /// The configuration as it is now.
    pub fn config(&self) -> Rc<Config> {
        Rc::clone(&self.config.borrow())
    }

    /// The state in force.
    pub fn state(&self) -> Rc<State> {
        Rc::clone(&self.state.borrow())
    }

    /// What has been counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The state of a proxy that belongs to no zone.
    pub(crate) fn first_state(&self) -> Result<State, String> {
        first_state(&self.config(), &self.time)
    }

    /// Ticket keys under which no earlier ticket opens.
    pub(crate) fn fresh_tickets() -> Result<Tickets, &'static str> {
        Tickets::generate().ok_or(NO_RANDOMNESS)
    }

    /// Goes by a state that is in force on the disk. Connections of the one before close after their answer.
    pub(crate) fn enter(&self, state: State, tickets: Option<Tickets>) {
        self.state.replace(Rc::new(state));
        if let Some(tickets) = tickets {
            self.tickets.replace(tickets);
        }
        self.epoch.set(self.epoch.get() + 1);
        self.show(self.epoch.get());
        self.store_clock();
        self.show_gauges();
    }

    /// What relays go by under a state; `None` before provisioning.
    pub(crate) fn policy(config: &Config, state: &State, tickets: &Tickets) -> Option<Policy> {
        let document = &state.membership.as_ref()?.document;
        Some(Policy {
            zone: document.zone.clone(),
            name: document.name.clone(),
            identity: state.identity.clone(),
            trust: document.trust.clone(),
            tickets: tickets.relay.clone(),
            tls13: config.tls.tls13,
            allowed_networks: document.allowed_networks.clone(),
            balancers: config.balancer.networks.clone(),
            limits: config.limits_with(&document.limits),
            timeouts: config.timeouts.clone(),
            log: Some(config.log.level),
            on_stop: config.relay.on_stop,
        })
    }

    /// The relay's open ports under a state; none before provisioning.
    pub(crate) fn port_rules(&self, state: &State) -> Vec<PortRule> {
        let membership = state.membership.as_ref();
        membership
            .map(|own| firewall::rules(&own.document, &self.config().balancer.networks))
            .unwrap_or_default()
    }

    async fn push_policy(self: &Rc<Self>) {
        let policy = Self::policy(&self.config(), &self.state(), &self.tickets.borrow());
        if let Some(policy) = policy
            && let Err(error) = self.supervisor.set_policy(&Rc::new(policy)).await
        {
            tracing::error!(%error, "the relay does not take its policy");
        }
    }

    fn show(&self, epoch: u64) {
        let tls13 = self.config().tls.tls13;
        match Face::new(&self.state(), &self.tickets.borrow().control, versions(tls13), epoch) {
            Ok(face) => {
                self.face.send_replace(Rc::new(face));
            }
            // The state was validated when it was made.
            Err(error) => tracing::error!(%error, "17488 goes on with its earlier certificates"),
        }
    }

    fn show_gauges(&self) {
        let state = self.state();
        self.metrics.provisioned.set(i64::from(state.membership.is_some()));
        let expiry = status::certificate_expiry(&state).map_or(0, time::OffsetDateTime::unix_timestamp);
        self.metrics.certificate_expiry.set(expiry);
    }

    fn store_clock(&self) {
        if let Err(error) = self.store.set_clock(self.time.advance()) {
            tracing::error!(%error, "the highest wall clock can't be stored");
        }
    }

    async fn keep_time(self: Rc<Self>) {
        let now = Instant::now();
        let mut store = interval_at(now + STORE_CLOCK, STORE_CLOCK);
        let mut rotate = interval_at(now + ROTATE_TICKETS, ROTATE_TICKETS);
        loop {
            tokio::select! {
                _ = store.tick() => {
                    self.store_clock();
                    if let Some(back) = self.time.set_back_by() {
                        tracing::warn!("{}", status::clock_warning(back));
                    }
                }
                _ = rotate.tick() => self.rotate_tickets().await,
            }
        }
    }

    /// Sees to it that the firewall is as the state has it: at the start, and whenever that did not succeed or the
    /// configuration changed. The broker opens a port only where something listens, so relays come first.
    async fn keep_firewall(self: Rc<Self>) {
        if !self.firewall.is_managed() {
            return;
        }
        let mut news = self.supervisor.news();
        let mut said = None;
        loop {
            let failed = match self.settle_firewall().await {
                Ok(()) => {
                    said = None;
                    false
                }
                Err(error) => {
                    let error = error.to_string();
                    if said.as_ref() != Some(&error) {
                        tracing::error!(
                            error,
                            "the firewall is not as it should be; the broker is asked again"
                        );
                    }
                    said = Some(error);
                    true
                }
            };
            let again = self.firewall.back_off(failed);
            tokio::select! {
                () = tokio::time::sleep(again), if failed => {}
                changed = news.changed() => if changed.is_err() { return },
                () = self.firewall.poked() => {}
            }
        }
    }

    async fn settle_firewall(&self) -> Result<(), firewall::FirewallError> {
        let _turn = self.firewall.turn().await;
        let rules = self.port_rules(&self.state());
        if self.firewall.has(&rules) || !self.supervisor.serves() {
            return Ok(());
        }
        self.firewall.set(rules).await
    }

    async fn rotate_tickets(self: &Rc<Self>) {
        let _turn = self.turn.lock().await;
        let rotated = self.tickets.borrow().rotated();
        let Some(rotated) = rotated else {
            tracing::error!("ticket keys stay as they are: {NO_RANDOMNESS}");
            return;
        };
        self.tickets.replace(rotated);
        self.show(self.epoch.get());
        self.push_policy().await;
    }
}

pub(crate) fn first_state(config: &Config, time: &Time) -> Result<State, String> {
    let identity = keys::bootstrap(time.wall()).map_err(|error| error.to_string())?;
    let pin = crate::state::pin(&identity).map_err(|error| error.to_string())?;
    let good_for = seconds(config.timeouts.token);
    let token = IssuedToken::issue(pin, good_for, time).ok_or(NO_RANDOMNESS)?;
    Ok(State { identity, membership: None, token: Some(token) })
}

fn make_runtime_dir(path: &Path) -> Result<(), StartError> {
    let make = || {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o700))
    };
    make().map_err(|source| StartError::Runtime { path: path.to_owned(), source })
}
