//! The daemon's start and its stop.

use std::cell::{Cell, RefCell};
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use zone_protocol::tls::TlsError;
use zone_service_manager::ServiceManager;
use zone_watchdog::{Heartbeat, Watchdog};

use crate::bootstrap::{BootstrapError, first_state};
use crate::config::{Config, OnStop};
use crate::confine::Confined;
use crate::connection_limit::ConnectionLimit;
use crate::daemon::Daemon;
use crate::firewall::Firewall;
use crate::keys::{self, KeyError, KeyMaker};
use crate::lifeline::Lifeline;
use crate::log::SetLevel;
use crate::metrics::Metrics;
use crate::offer::OfferSlot;
use crate::relay::{Ender, Starter, Supervisor};
use crate::server::ListenError;
use crate::state::clock::{Clock, Time, clock_warning};
use crate::state::{StateError, Store};
use crate::tasks::Tasks;
use crate::tls::{PortTicketKeys, TlsContext, versions};
use crate::{admin, server, upkeep, watchdog};

/// For a change under way to come to its end when the daemon is stopped.
const LAST_CHANGE_TIMEOUT: Duration = Duration::from_secs(20);

/// Why the daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The durable state can't be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The certificates in the durable state can't be shown.
    #[error("the stored state is of no use: {0}; start over with `zone-proxy reset`")]
    Tls(#[from] TlsError),
    /// Port 17488 can't be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The runtime directory, or what belongs into it, can't be made.
    #[error("can't use {path}: {source}")]
    Runtime {
        /// The directory or the file in it.
        path: PathBuf,
        /// The file system's answer.
        source: io::Error,
    },
    /// The keys of a proxy that belongs to no zone can't be made.
    #[error("keys can't be made: {0}")]
    Keys(#[from] BootstrapError),
}

impl From<rcgen::Error> for StartError {
    fn from(error: rcgen::Error) -> Self {
        Self::Keys(KeyError::from(error).into())
    }
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
        confined: Confined,
    ) -> Result<Rc<Self>, StartError> {
        let store = Store::open(&config.state_dir)?;
        let time = Time::new(clock, store.clock()?);
        if let Some(back) = time.set_back_by() {
            tracing::warn!("{}", clock_warning(back));
        }
        let loaded = store.load()?;
        let state = match &loaded {
            Some(state) => state.clone(),
            // Nobody is kept waiting yet, and no thread has to be started for it.
            None => first_state(keys::bootstrap(time.wall())?, &config, &time)?,
        };
        let tickets = PortTicketKeys::generate().map_err(BootstrapError::from)?;
        let tls = TlsContext::new(&state, &tickets.control, versions(config.tls.tls13), 0)?;
        if loaded.is_none() {
            store.replace(&state)?.commit();
        }
        make_runtime_dir(&config.runtime_dir)?;
        // The admin socket first: whoever sees 17488 open can ask there.
        let admin = admin::listen(&config.runtime_dir)
            .map_err(|source| StartError::Runtime { path: admin::socket(&config.runtime_dir), source })?;
        let listeners = server::listen(&config.control.listen)?;

        let metrics = Rc::new(Metrics::new());
        let (writer, reader) = match lifeline {
            Some(Lifeline { reader, writer }) => (Some(writer), Some(reader)),
            None => (None, None),
        };
        let tasks = Rc::<Tasks>::default();
        let ender = Ender::new(&config.relay);
        let runtime_dir = config.runtime_dir.clone();
        let supervisor =
            Supervisor::new(starter, ender, runtime_dir, Rc::clone(&metrics), Rc::clone(&tasks), reader);
        let daemon = Rc::new(Self {
            time,
            store,
            tls: watch::Sender::new(Rc::new(tls)),
            tickets: RefCell::new(tickets),
            offer: OfferSlot::default(),
            keys: KeyMaker::default(),
            change_lock: Arc::default(),
            supervisor,
            metrics,
            connection_limit: ConnectionLimit::default(),
            handshake_turns: zone_accept::HandshakeTurns::new(1),
            log_budget: zone_log_budget::LogBudget::default(),
            firewall: Firewall::new(&config.firewall),
            config: RefCell::new(Rc::new(config)),
            config_file: config_file.to_owned(),
            state: RefCell::new(Rc::new(state)),
            state_trouble: RefCell::default(),
            epoch: Cell::default(),
            set_level,
            confined,
            watchdog: Watchdog::new(),
            tasks,
            _lifeline: writer,
        });
        // A full disk keeps nobody from being served.
        daemon.store_clock();
        daemon.show_gauges();
        // Relays are known before anybody can ask for them; connections wait in the backlog meanwhile.
        daemon.supervisor.begin(daemon.wanted(&daemon.state())).await;
        daemon.stand_for_process("admin socket", |own, heartbeat| admin::serve(own, admin, heartbeat));
        for listener in listeners {
            daemon.stand_for_process("17488", |own, heartbeat| server::accept(own, listener, heartbeat));
        }
        daemon.stand_for_process("clock and tickets", upkeep::clock_and_tickets);
        daemon.stand_for_process("firewall", upkeep::firewall);
        tracing::info!(state = daemon.state().kind(), "zone-proxy {} runs", env!("CARGO_PKG_VERSION"));
        Ok(daemon)
    }

    /// Runs a loop without which this process is of no use. It answers the watchdog.
    fn stand_for_process<F: Future<Output = ()> + 'static>(
        self: &Rc<Self>,
        name: &'static str,
        task: impl FnOnce(Rc<Self>, Heartbeat) -> F,
    ) {
        self.tasks.spawn(task(Rc::clone(self), self.watchdog.register(name)));
    }

    /// Tells the service manager how this process goes, from now on.
    pub fn report_to(self: &Rc<Self>, manager: &Rc<ServiceManager>) {
        self.tasks.spawn(watchdog::report(Rc::clone(self), Rc::clone(manager)));
    }

    /// Waits for one of those loops to panic, and says how it ended: the process must end too, so that a fresh one takes
    /// its place.
    pub async fn task_ended(&self) -> String {
        self.tasks.ended().await
    }

    /// Ends the daemon as `relay.on_stop` has it. A change under way comes to its end first. Relays with a
    /// lifeline find out by themselves whether the service is stopped or started again.
    pub async fn stop(self: &Rc<Self>) {
        let changing = tokio::time::timeout(LAST_CHANGE_TIMEOUT, self.change_lock.lock()).await;
        if changing.is_err() {
            tracing::warn!("a change is still under way, and the daemon stops all the same");
        }
        let on_stop = if self.supervisor.has_lifeline() { OnStop::Keep } else { self.config().relay.on_stop };
        match on_stop {
            OnStop::Stop => {
                if let Err(error) = self.supervisor.release().await {
                    tracing::error!(%error, "the daemon stops, and relays go on");
                }
            }
            OnStop::Drain => self.supervisor.drain_all().await,
            OnStop::Keep => {}
        }
        self.store_clock();
        let _ = std::fs::remove_file(admin::socket(&self.config().runtime_dir));
        tracing::info!(relays = ?on_stop, "the daemon has stopped");
    }
}

fn make_runtime_dir(path: &Path) -> Result<(), StartError> {
    let make = || {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o700))
    };
    make().map_err(|source| StartError::Runtime { path: path.to_owned(), source })
}
