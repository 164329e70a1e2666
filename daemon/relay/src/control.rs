//! What control tells the relay, and how long the relay goes on without it.
//!
//! A relay whose control has gone waits for the next one at its rendezvous. With a lifeline it waits for as long
//! as the service manager means to have a control, and does what `relay.on_stop` says when that ends. Without
//! one it drains after `timeouts.orphan`.

use std::io;
use std::net::TcpListener as StdListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::Shutdown;
use rustix::net::sockopt::socket_peercred;
use tokio::net::unix::pipe;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use zone_channel::{
    ChannelError, Configure, FromRelay, ListenerInfo, OnStop, Policy, Query, Receiver, RelayState, Reply,
    Sender, ToRelay,
};
use zone_protocol::provisioning::{ProcessStatus, RelayCounts};
use zone_service_manager::ServiceManager;

use crate::accept_loop::accept_loop;
use crate::admission::Context;
use crate::log::Records;
use crate::rules::{Port, Rules};
use crate::watchdog::{self, Watchdog};

/// How often progress is checked within the service manager's watchdog timeout.
const CHECKS_PER_WATCHDOG_TIMEOUT: u32 = 4;
/// How long connections that were told to end may take to do so.
const ENDING: Duration = Duration::from_secs(2);

/// TerminationReason the relay exits with an error.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// Standard input is not the channel.
    #[error(
        "standard input is not a channel to control: zone-relay is started by zone-proxy, not by hand ({0})"
    )]
    Channel(io::Error),
}

/// What a relay process knows of itself.
#[derive(Debug)]
pub struct Own {
    /// Which build it is, see [`zone_channel::build`].
    pub build: String,
    /// As the kernel showed it after privileges were given up.
    pub process: ProcessStatus,
    /// Who started it, if that was a service manager.
    pub manager: ServiceManager,
    /// What it logs.
    pub log: Records,
}

/// Runs until control says stop, or everything that was being carried has ended.
pub async fn run(channel: OwnedFd, own: Own) -> Result<(), RelayError> {
    // Who made the other end of the channel, or connected to the socket that it was accepted from.
    let started_by =
        socket_peercred(&channel).map_err(|errno| RelayError::Channel(errno.into()))?.uid.as_raw();
    let (sender, receiver) = zone_channel::pair(channel).map_err(RelayError::Channel)?;
    let manager = Arc::new(own.manager);
    let mut relay = Relay {
        state: RelayState::Fresh,
        started_by,
        build: own.build,
        process: own.process,
        manager: Arc::clone(&manager),
        watchdog: Watchdog::new(),
        log: own.log,
        serving: None,
        drain_by: None,
        tasks: JoinSet::new(),
    };
    if let Some(timeout) = manager.watchdog() {
        let watchdog = Arc::clone(&relay.watchdog);
        relay
            .tasks
            .spawn(watchdog::feed(watchdog, timeout / CHECKS_PER_WATCHDOG_TIMEOUT, move || manager.alive()));
    }
    let result = relay.live(sender, receiver).await;
    relay.manager.stopping();
    relay.log.finish().await;
    result
}

type Channel = (Sender<FromRelay>, Receiver<ToRelay>);

enum Next {
    Exit,
    WithoutControl,
    TakenUp(Channel),
}

struct Relay {
    state: RelayState,
    /// The user of the control that started this relay.
    started_by: u32,
    build: String,
    process: ProcessStatus,
    manager: Arc<ServiceManager>,
    watchdog: Arc<Watchdog>,
    log: Records,
    serving: Option<Serving>,
    drain_by: Option<Instant>,
    tasks: JoinSet<()>,
}

/// What a configured relay holds.
struct Serving {
    generation: u64,
    name: String,
    control_uid: u32,
    infos: Vec<ListenerInfo>,
    listeners: Vec<StdListener>,
    rendezvous: UnixListener,
    lifeline: Option<pipe::Receiver>,
    on_stop: OnStop,
    context: Arc<Context>,
}

impl Relay {
    /// Talks with one control after the other.
    async fn live(
        &mut self,
        sender: Sender<FromRelay>,
        receiver: Receiver<ToRelay>,
    ) -> Result<(), RelayError> {
        let mut channel = Some((sender, receiver));
        loop {
            let Some((sender, receiver)) = channel.take() else {
                match self.wait_for_control().await {
                    Some(taken_up) => channel = Some(taken_up),
                    None => return Ok(()),
                }
                continue;
            };
            let next = self.converse(&sender, receiver).await;
            if !matches!(next, Next::Exit) {
                self.log.close();
            }
            match next {
                Next::Exit => return Ok(()),
                Next::WithoutControl => {}
                Next::TakenUp(taken_up) => channel = Some(taken_up),
            }
        }
    }

    /// Talks with one control until the channel ends.
    async fn converse(&mut self, sender: &Sender<FromRelay>, mut receiver: Receiver<ToRelay>) -> Next {
        if let Err(error) = self.greet(sender).await {
            tracing::warn!("{error}");
            return self.without_control();
        }
        self.manager.ready();
        loop {
            let received = tokio::select! {
                received = receiver.receive() => received,
                taken_up = next_control(self.serving.as_ref()) => return Next::TakenUp(taken_up),
                () = finished(self.drain_by, self.serving.as_ref()) => return Next::Exit,
            };
            let answered = match received {
                Ok((ToRelay::Stop, _)) => {
                    tracing::info!("told to stop");
                    self.stop().await;
                    return Next::Exit;
                }
                Ok((message, descriptors)) => self.obey(sender, message, descriptors).await,
                Err(error) => Err(error),
            };
            match answered {
                Ok(()) => {}
                Err(ChannelError::Closed) => return self.without_control(),
                Err(error) => {
                    tracing::error!("{error}");
                    return self.without_control();
                }
            }
        }
    }

    /// Goes on alone, unless there is nothing to go on with.
    async fn wait_for_control(&mut self) -> Option<Channel> {
        let orphan = self.serving.as_ref()?.context.rules().timeouts.orphan;
        if self.state == RelayState::Serving {
            let until = if self.has_lifeline() { "until the service is stopped" } else { "for a while" };
            tracing::warn!(
                seconds = orphan.as_secs(),
                "control is gone: sessions go on {until}, and this relay drains unless a control takes it up in time"
            );
        }
        let patience = tokio::time::sleep(orphan);
        tokio::pin!(patience);
        loop {
            tokio::select! {
                taken_up = next_control(self.serving.as_ref()) => return Some(taken_up),
                () = finished(self.drain_by, self.serving.as_ref()) => return None,
                () = cut(self.serving.as_ref()) => {
                    let serving = self.serving.as_mut()?;
                    serving.lifeline = None;
                    let on_stop = serving.on_stop;
                    tracing::info!(?on_stop, "the service was stopped");
                    match on_stop {
                        OnStop::Stop => {
                            self.close_ports();
                            self.stop().await;
                            return None;
                        }
                        OnStop::Drain => self.drain(),
                        OnStop::Keep => patience.as_mut().reset(Instant::now() + orphan),
                    }
                }
                () = &mut patience, if self.state == RelayState::Serving && !self.has_lifeline() => {
                    tracing::warn!("no control came: draining");
                    self.drain();
                }
            }
        }
    }

    fn has_lifeline(&self) -> bool {
        self.serving.as_ref().is_some_and(|serving| serving.lifeline.is_some())
    }

    fn without_control(&self) -> Next {
        match self.state {
            // Nobody was let in yet: a new control starts over.
            RelayState::Fresh | RelayState::Ready => Next::Exit,
            RelayState::Serving | RelayState::Draining => Next::WithoutControl,
        }
    }

    async fn greet(&self, sender: &Sender<FromRelay>) -> Result<(), ChannelError> {
        let serving = self.serving.as_ref();
        let hello = FromRelay::Hello {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            build: self.build.clone(),
            process: Some(self.process.clone()),
            state: self.state,
            generation: serving.map_or(0, |s| s.generation),
            serves: serving.map(|s| s.name.clone()).unwrap_or_default(),
            listeners: serving.map(|s| s.infos.clone()).unwrap_or_default(),
        };
        let descriptors: Vec<_> =
            serving.map(|s| s.listeners.iter().map(AsFd::as_fd).collect()).unwrap_or_default();
        sender.send(&hello, &descriptors).await
    }

    async fn obey(
        &mut self,
        sender: &Sender<FromRelay>,
        message: ToRelay,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), ChannelError> {
        let log = match &message {
            ToRelay::Configure(configure) => Some(configure.policy.log),
            ToRelay::Policy(policy) => Some(policy.log),
            _ => None,
        };
        let result = match message {
            ToRelay::Configure(configure) => self.configure(*configure, descriptors),
            ToRelay::Activate => self.activate(),
            ToRelay::Policy(policy) => self.policy(&policy),
            ToRelay::Drain => {
                self.drain();
                Ok(())
            }
            ToRelay::Ask { id, query } => {
                return sender.send(&FromRelay::Reply { id, reply: self.reply(query) }, &[]).await;
            }
            ToRelay::Stop => Ok(()),
        };
        if let (Ok(()), Some(level)) = (&result, log) {
            self.log.follow(level, sender);
        }
        let answer = match result {
            Ok(()) => FromRelay::Done(self.state),
            Err((step, error)) => {
                tracing::error!(step, "{error}");
                FromRelay::Failed { step: step.to_owned(), error }
            }
        };
        sender.send(&answer, &[]).await
    }

    fn configure(
        &mut self,
        configure: Configure,
        mut descriptors: Vec<OwnedFd>,
    ) -> Result<(), (&'static str, String)> {
        if self.serving.is_some() {
            return Err(("configure", "this relay is configured already".into()));
        }
        if descriptors.len() != configure.listeners.len() + 1 + usize::from(configure.lifeline) {
            let error =
                format!("{} descriptors for {} listeners", descriptors.len(), configure.listeners.len());
            return Err(("configure", error));
        }
        if configure.control_uid != self.started_by {
            let error = format!(
                "control says that it is user {}, and user {} started this relay",
                configure.control_uid, self.started_by
            );
            return Err(("configure", error));
        }
        let lifeline = descriptors.pop_if(|_| configure.lifeline).map(pipe::Receiver::from_owned_fd);
        let lifeline =
            lifeline.transpose().map_err(|e| ("configure", format!("the lifeline is no pipe: {e}")))?;
        let rules = Rules::new(&configure.policy).map_err(|e| ("certificates and trust", e.to_string()))?;
        let rendezvous = descriptors
            .pop()
            .map(StdUnixListener::from)
            .ok_or(("configure", "no rendezvous".to_owned()))
            .and_then(|listener| {
                listener
                    .set_nonblocking(true)
                    .and_then(|()| UnixListener::from_std(listener))
                    .map_err(|e| ("configure", format!("the rendezvous is no Unix listener: {e}")))
            })?;
        self.serving = Some(Serving {
            generation: configure.generation,
            name: configure.state,
            control_uid: configure.control_uid,
            infos: configure.listeners,
            listeners: descriptors.into_iter().map(StdListener::from).collect(),
            rendezvous,
            lifeline,
            on_stop: configure.policy.on_stop,
            context: Context::new(rules, Rules::pairing(&configure.policy)),
        });
        self.state = RelayState::Ready;
        Ok(())
    }

    fn activate(&mut self) -> Result<(), (&'static str, String)> {
        let (RelayState::Ready, Some(serving)) = (self.state, &self.serving) else {
            return Err(("accept", format!("this relay is {:?}, not ready", self.state)));
        };
        for (info, listener) in serving.infos.iter().zip(&serving.listeners) {
            let Some(port) = Port::of(info.role) else {
                return Err(("accept", format!("{} is no port of a relay", info.role)));
            };
            let listener = listener
                .try_clone()
                .and_then(|own| own.set_nonblocking(true).map(|()| own))
                .and_then(TcpListener::from_std)
                .map_err(|e| ("accept", format!("{}: {e}", info.address)))?;
            let heartbeat = self.watchdog.register("accepting");
            self.tasks.spawn(accept_loop(Arc::clone(&serving.context), port, listener, heartbeat));
        }
        let (switchboard, heartbeat) =
            (Arc::clone(&serving.context.switchboard), self.watchdog.register("switchboard"));
        self.tasks.spawn(async move { switchboard.run(heartbeat).await });
        self.state = RelayState::Serving;
        self.manager.status(&format!("generation {} serves", serving.generation));
        tracing::info!(generation = serving.generation, listeners = serving.infos.len(), "accepting");
        Ok(())
    }

    fn policy(&mut self, policy: &Policy) -> Result<(), (&'static str, String)> {
        let serving = self.serving.as_mut().ok_or(("policy", "this relay is not configured".to_owned()))?;
        let rules = Rules::new(policy).map_err(|e| ("policy", e.to_string()))?;
        serving.on_stop = policy.on_stop;
        serving.context.set_rules(rules, Rules::pairing(policy));
        Ok(())
    }

    fn drain(&mut self) {
        let Some(serving) = &mut self.serving else { return };
        serving.context.drain();
        serving.listeners.clear();
        serving.infos.clear();
        self.state = RelayState::Draining;
        self.drain_by.get_or_insert(Instant::now() + serving.context.rules().timeouts.drain);
        self.manager.status(&format!("generation {} drains", serving.generation));
        tracing::info!(generation = serving.generation, "draining");
    }

    /// Ends the listening for every process that holds the sockets.
    fn close_ports(&self) {
        for listener in self.serving.iter().flat_map(|serving| &serving.listeners) {
            // It fails where another relay did so already.
            let _ = rustix::net::shutdown(listener, Shutdown::Both);
        }
    }

    async fn stop(&mut self) {
        let Some(serving) = &self.serving else { return };
        serving.context.drain();
        serving.context.connections.end_all();
        // Their tasks report and log their ends; none of them waits for a peer.
        let _ = timeout(ENDING, serving.context.connections.gone()).await;
    }

    fn reply(&self, query: Query) -> Reply {
        let counts = self.serving.as_ref().map(|serving| counts(&serving.context)).unwrap_or_default();
        match (query, &self.serving) {
            (Query::Counts, _) | (Query::Metrics, None) => Reply::Counts(counts),
            (Query::Metrics, Some(serving)) => Reply::Metrics(serving.context.metrics.text(&counts)),
        }
    }
}

fn counts(context: &Context) -> RelayCounts {
    let (counts, connected) = context.switchboard.counts();
    RelayCounts {
        endpoints: connected as u64,
        parks: counts.parks.parks() as u64,
        waiting: counts.waiting as u64,
        sessions: counts.parks.sessions as u64,
        module_server_connections: context.connections.count(Port::ModuleServer) as u64,
        buffered_bytes: u64::try_from(context.metrics.buffered.get()).unwrap_or(0),
    }
}

/// Waits for the end of file of the lifeline.
async fn cut(serving: Option<&Serving>) {
    let Some(lifeline) = serving.and_then(|serving| serving.lifeline.as_ref()) else {
        return std::future::pending().await;
    };
    let mut space = [0; 16];
    loop {
        let read = match lifeline.readable().await {
            Ok(()) => lifeline.try_read(&mut space),
            Err(error) => Err(error),
        };
        match read {
            // Nobody writes to it.
            Ok(1..) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return,
        }
    }
}

/// A control that connects at the rendezvous, if it may.
async fn next_control(serving: Option<&Serving>) -> Channel {
    let Some(serving) = serving else { return std::future::pending().await };
    loop {
        let accepted = serving.rendezvous.accept().await;
        let taken_up = accepted.and_then(|(stream, _)| {
            let uid = stream.peer_cred()?.uid();
            if uid != serving.control_uid && uid != 0 {
                return Err(io::Error::other(format!("user {uid} may not take this relay up")));
            }
            zone_channel::pair(stream.into_std()?.into())
        });
        match taken_up {
            Ok(channel) => {
                tracing::info!("taken up by a control");
                return channel;
            }
            Err(error) => {
                tracing::warn!("rendezvous: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Waits until a draining relay has nothing left to carry, or its time is up.
async fn finished(drain_by: Option<Instant>, serving: Option<&Serving>) {
    let (Some(drain_by), Some(serving)) = (drain_by, serving) else { return std::future::pending().await };
    if timeout_at(drain_by, serving.context.connections.gone()).await.is_err() {
        tracing::warn!("the drain deadline passed: the sessions that are left end now");
        serving.context.connections.end_all();
        let _ = timeout(ENDING, serving.context.connections.gone()).await;
    }
    tracing::info!(generation = serving.generation, "drained");
}
