//! The daemon's data: everything that lives between start and stop, on one thread.
//!
//! Chapters above this one add to it: `transaction` the changes, `status` the reports, `run` its start and its stop.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{Mutex, watch};
use zone_accept::HandshakeTurns;
use zone_channel::Policy;
use zone_firewall_protocol::PortRule;
use zone_log_budget::LogBudget;
use zone_watchdog::Watchdog;

use crate::config::Config;
use crate::confine::Confined;
use crate::connection_limit::ConnectionLimit;
use crate::firewall::{self, Firewall};
use crate::keys::KeyMaker;
use crate::log::SetLevel;
use crate::metrics::Metrics;
use crate::offer::OfferSlot;
use crate::policy;
use crate::relay::{NotInForce, Supervisor, Wanted};
use crate::state::clock::Time;
use crate::state::{State, Store};
use crate::tasks::Tasks;
use crate::tls::{PortTicketKeys, TlsContext, versions};

/// All of control.
pub struct Daemon {
    pub(crate) time: Time,
    pub(crate) store: Store,
    pub(crate) tls: watch::Sender<Rc<TlsContext>>,
    pub(crate) tickets: RefCell<PortTicketKeys>,
    pub(crate) offer: OfferSlot,
    pub(crate) keys: KeyMaker,
    /// Locked by the one change that is under way.
    pub(crate) change_lock: Arc<Mutex<()>>,
    pub(crate) supervisor: Rc<Supervisor>,
    pub(crate) metrics: Rc<Metrics>,
    pub(crate) connection_limit: ConnectionLimit,
    /// Handshakes wait here for each other, and nobody else for them.
    pub(crate) handshake_turns: HandshakeTurns,
    /// Keeps what strangers make the log say readable.
    pub(crate) log_budget: LogBudget,
    pub(crate) firewall: Firewall,
    pub(crate) config: RefCell<Rc<Config>>,
    pub(crate) config_file: PathBuf,
    pub(crate) state: RefCell<Rc<State>>,
    /// Why the state directory took nothing the last time.
    pub(crate) state_trouble: RefCell<Option<String>>,
    /// Grows with every change of the state, see [`TlsContext::epoch`].
    pub(crate) epoch: Cell<u64>,
    pub(crate) set_level: SetLevel,
    /// What this process has given up.
    pub(crate) confined: Confined,
    /// Asks the loops of this process for signs of life.
    pub(crate) watchdog: Arc<Watchdog>,
    /// The tasks that stand for the whole process.
    pub(crate) tasks: Rc<Tasks>,
    /// The lifeline's writing end: it stays open as long as this process lives, and in the service manager's store.
    pub(crate) _lifeline: Option<OwnedFd>,
}

impl Daemon {
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

    /// What 17488 goes by now.
    pub(crate) fn tls(&self) -> Rc<TlsContext> {
        Rc::clone(&self.tls.borrow())
    }

    /// What the relays are to serve under a state; `None` before provisioning.
    pub(crate) fn wanted(&self, state: &State) -> Option<Wanted> {
        policy::wanted(&self.config(), state, &self.tickets.borrow())
    }

    /// What the relays go by under a state with these ticket keys; `None` before provisioning.
    pub(crate) fn policy(&self, state: &State, tickets: &PortTicketKeys) -> Option<Policy> {
        policy::policy(&self.config(), state, tickets)
    }

    /// The relay's open ports under a state; none before provisioning.
    pub(crate) fn port_rules(&self, state: &State) -> Vec<PortRule> {
        let membership = state.membership.as_ref();
        membership
            .map(|own| firewall::rules(&own.document, &self.config().balancer.networks))
            .unwrap_or_default()
    }

    /// Goes by a state that is in force on the disk. Connections of the one before close after their answer.
    pub(crate) fn enter(&self, state: State, tickets: Option<PortTicketKeys>) {
        self.state.replace(Rc::new(state));
        if let Some(tickets) = tickets {
            self.tickets.replace(tickets);
        }
        self.epoch.set(self.epoch.get() + 1);
        self.renew_tls();
        self.store_clock();
        self.show_gauges();
    }

    /// Makes 17488 go by the state, the ticket keys and the configuration as they are now.
    pub(crate) fn renew_tls(&self) {
        let tls13 = self.config().tls.tls13;
        let tickets = self.tickets.borrow();
        match TlsContext::new(&self.state(), &tickets.control, versions(tls13), self.epoch.get()) {
            Ok(tls) => {
                self.tls.send_replace(Rc::new(tls));
            }
            // The state was validated when it was made.
            Err(error) => tracing::error!(%error, "17488 goes on with its earlier certificates"),
        }
    }

    /// Makes the relays go by the state, the ticket keys and the configuration as they are now, or ends those that don't.
    pub(crate) async fn push_policy(&self) -> Result<(), NotInForce> {
        let policy = self.policy(&self.state(), &self.tickets.borrow());
        match policy {
            Some(policy) => self.supervisor.set_policy(&Rc::new(policy)).await,
            None => Ok(()),
        }
    }

    /// Stores the highest wall clock. That it can't be is an admin's to know, and nobody else's trouble.
    pub(crate) fn store_clock(&self) {
        let failed = self.store.set_clock(self.time.advance()).err();
        let mut trouble = self.state_trouble.borrow_mut();
        if let Some(error) = failed.as_ref().filter(|_| trouble.is_none()) {
            tracing::error!(%error, "the highest wall clock can't be stored");
        }
        *trouble = failed.map(|error| error.to_string());
    }

    pub(crate) fn show_gauges(&self) {
        let state = self.state();
        self.metrics.provisioned.set(i64::from(state.membership.is_some()));
        let expiry = state.certificate_expiry().map_or(0, time::OffsetDateTime::unix_timestamp);
        self.metrics.certificate_expiry.set(expiry);
    }
}
