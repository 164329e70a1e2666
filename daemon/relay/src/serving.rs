//! A relay that control has configured: its sockets, its rules and all that is connected.

use std::fs::File;
use std::io;
use std::net::TcpListener as StdListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::Shutdown;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use zone_channel::{Configure, ListenerInfo, OnStop, Policy};
use zone_protocol::provisioning::RelayCounts;

use crate::accept_loop::accept_loop;
use crate::context::Context;
use crate::expiry;
use crate::lifeline::Lifeline;
use crate::memory;
use crate::rendezvous::Rendezvous;
use crate::rules::{Port, Rules};
use zone_watchdog::Watchdog;

/// For connections that were told to end.
const TERMINATION_TIMEOUT: Duration = Duration::from_secs(2);

/// What control asked for and was not done.
#[derive(Debug, thiserror::Error)]
#[error("{details}")]
pub(crate) struct StepError {
    /// Which part of it failed.
    pub(crate) step: &'static str,
    /// One line for a person.
    pub(crate) details: String,
}

impl StepError {
    /// A failure of a step.
    pub(crate) fn new(step: &'static str, details: impl Into<String>) -> Self {
        Self { step, details: details.into() }
    }
}

/// What a configured relay holds.
#[derive(Debug)]
pub(crate) struct Serving {
    /// Counts the relays that one control has started.
    pub(crate) generation: u64,
    /// The state of the proxy that it serves, by control's name for it.
    pub(crate) name: String,
    /// The listening sockets' roles and addresses, in the order of `listeners`.
    pub(crate) infos: Vec<ListenerInfo>,
    /// The listening sockets, as they are handed to the next control.
    pub(crate) listeners: Vec<StdListener>,
    /// The next control comes here.
    pub(crate) rendezvous: Rendezvous,
    /// The service manager's, where it has one for this relay.
    pub(crate) lifeline: Option<Lifeline>,
    /// What the end of the lifeline means.
    pub(crate) on_stop: OnStop,
    /// Where it is written down what becomes of sessions while there is no control, until the log takes it.
    pub(crate) notes: Option<File>,
    /// Whether another relay serves these ports until it is told to drain.
    pub(crate) takes_over: bool,
    /// What the connections share.
    pub(crate) context: Arc<Context>,
}

impl Serving {
    /// As control says. `started_by` is the user who started this relay, which control must be.
    pub(crate) fn new(
        configure: Configure,
        mut descriptors: Vec<OwnedFd>,
        started_by: u32,
    ) -> Result<Self, StepError> {
        let error = |details: String| StepError::new("configure", details);
        let further = 1 + usize::from(configure.lifeline) + usize::from(configure.notes);
        if descriptors.len() != configure.listeners.len() + further {
            return Err(error(format!(
                "{} descriptors for {} listeners",
                descriptors.len(),
                configure.listeners.len()
            )));
        }
        if configure.control_uid != started_by {
            return Err(error(format!(
                "control says that it is user {}, and user {started_by} started this relay",
                configure.control_uid
            )));
        }
        let notes = descriptors.pop_if(|_| configure.notes).map(File::from);
        let lifeline = descriptors.pop_if(|_| configure.lifeline).map(Lifeline::new);
        let lifeline = lifeline.transpose().map_err(|e| error(format!("the lifeline is no pipe: {e}")))?;
        let rules = Rules::new(&configure.policy)
            .map_err(|e| StepError::new("certificates and trust", e.to_string()))?;
        let rendezvous = descriptors.pop().ok_or_else(|| error("no rendezvous".to_owned()))?;
        let rendezvous = Rendezvous::new(rendezvous, configure.control_uid)
            .map_err(|e| error(format!("the rendezvous is no Unix listener: {e}")))?;
        Ok(Self {
            generation: configure.generation,
            name: configure.state,
            infos: configure.listeners,
            listeners: descriptors.into_iter().map(StdListener::from).collect(),
            rendezvous,
            lifeline,
            on_stop: configure.policy.on_stop,
            notes,
            takes_over: configure.takes_over,
            context: Context::new(rules, Rules::pairing(&configure.policy)),
        })
    }

    /// Begins to accept connections, in these tasks, which the watchdog looks after: callers, and endpoints at once where no
    /// other relay has parks of them.
    pub(crate) fn accept(&self, tasks: &mut JoinSet<()>, watchdog: &Arc<Watchdog>) -> Result<(), StepError> {
        if !self.takes_over {
            self.context.endpoints_let_in.reach();
        }
        for (info, listener) in self.infos.iter().zip(&self.listeners) {
            let Some(port) = Port::of(info.role) else {
                return Err(StepError::new("accept", format!("{} is no port of a relay", info.role)));
            };
            let listener = nonblocking(listener)
                .map_err(|e| StepError::new("accept", format!("{}: {e}", info.address)))?;
            let heartbeat = watchdog.register("accept loop");
            tasks.spawn(accept_loop(Arc::clone(&self.context), port, listener, heartbeat));
        }
        let (switchboard, heartbeat) =
            (Arc::clone(&self.context.switchboard), watchdog.register("switchboard"));
        tasks.spawn(async move { switchboard.run(heartbeat).await });
        tasks.spawn(memory::run(Arc::clone(&self.context), watchdog.register("freed memory")));
        tasks.spawn(expiry::run(Arc::clone(&self.context), watchdog.register("certificate ends")));
        Ok(())
    }

    /// Goes by another policy from now on, unless it can't be used.
    pub(crate) fn set_policy(&mut self, policy: &Policy) -> Result<(), StepError> {
        let rules = Rules::new(policy).map_err(|e| StepError::new("policy", e.to_string()))?;
        self.on_stop = policy.on_stop;
        self.context.set_rules(rules, Rules::pairing(policy));
        Ok(())
    }

    /// Lets callers in no more, and gives those that are under way the time that they need, within bounds.
    pub(crate) async fn turn_callers_away(&self) {
        self.context.turn_callers_away().await;
    }

    /// Accepts nobody any more, and lets go of parks; sessions stay.
    pub(crate) fn drain(&mut self) {
        self.context.drain();
        self.listeners.clear();
        self.infos.clear();
    }

    /// Waits until a draining relay has nothing left to carry, or its time is up.
    pub(crate) async fn drained(&self, deadline: Instant) {
        let connections = &self.context.connections;
        if timeout_at(deadline, connections.gone()).await.is_err() {
            tracing::warn!("the drain deadline passed: the sessions that are left end now");
            self.end_all().await;
        }
        tracing::info!(generation = self.generation, "this relay has drained");
    }

    /// Ends all connections.
    pub(crate) async fn stop(&self) {
        self.context.drain();
        self.end_all().await;
    }

    async fn end_all(&self) {
        self.context.connections.end_all();
        // Their tasks report and log their ends; none of them waits for a peer.
        let _ = timeout(TERMINATION_TIMEOUT, self.context.connections.gone()).await;
    }

    /// Ends the listening for every process that holds the sockets.
    pub(crate) fn close_ports(&self) {
        for listener in &self.listeners {
            // It fails where another relay did so already.
            let _ = rustix::net::shutdown(listener, Shutdown::Both);
        }
    }

    /// How much of everything there is.
    pub(crate) fn counts(&self) -> RelayCounts {
        let (counts, connected) = self.context.switchboard.counts();
        RelayCounts {
            endpoints: connected as u64,
            parks: counts.parks.parks() as u64,
            waiting: counts.waiting as u64,
            sessions: counts.parks.sessions as u64,
            module_server_connections: self.context.connections.count(Port::ModuleServer) as u64,
            buffered_bytes: u64::try_from(self.context.metrics.buffered.get()).unwrap_or(0),
        }
    }
}

fn nonblocking(listener: &StdListener) -> io::Result<TcpListener> {
    let own = listener.try_clone()?;
    own.set_nonblocking(true)?;
    TcpListener::from_std(own)
}
