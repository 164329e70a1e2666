//! What control tells the relay, and how long the relay goes on without it.
//!
//! A relay whose control has gone waits for the next one at its rendezvous. With a lifeline it waits for as long
//! as the service manager means to have a control, and does what `relay.on_stop` says when that ends. Without
//! one it drains after `timeouts.orphan`.

#[cfg(test)]
mod ending;

use std::future::pending;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::net::sockopt::socket_peercred;
use tokio::task::JoinSet;
use tokio::time::Instant;
use zone_channel::{
    ChannelError, Configure, FromRelay, HANDS_OVER, LISTS_SESSIONS, OnStop, Policy, Query, READS_RETIRED,
    Receiver, RelayState, Reply, Sender, TAKES_NOTES, ToRelay,
};
use zone_protocol::identity::Label;
use zone_protocol::provisioning::ProcessStatus;
use zone_service_manager::ServiceManager;
use zone_watchdog::{EXIT_TASK_ENDED, Heartbeat, Watchdog, task_ended};

use crate::hand_over;
use crate::lifeline::Lifeline;
use crate::log::Records;
use crate::rendezvous::Channel;
use crate::serving::{Serving, StepError};

/// How often progress is checked within the service manager's watchdog timeout.
const CHECKS_PER_WATCHDOG_TIMEOUT: u32 = 4;

/// Why the relay exits with an error.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// Standard input is not the channel.
    #[error(
        "standard input is not a channel to control: zone-relay is started by zone-proxy, not by hand ({0})"
    )]
    Channel(io::Error),
    /// A task that stands for the whole process is gone, so the process is of no more use: a fresh one is.
    #[error("a task that this process can't do without has ended: {0}")]
    TaskEnded(String),
}

impl RelayError {
    /// The exit status of a process that ends with it.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Channel(_) => 1,
            Self::TaskEnded(_) => EXIT_TASK_ENDED,
        }
    }
}

/// What a relay process brings along: who it is, and what it talks to apart from control.
#[derive(Debug)]
pub struct RelayProcess {
    /// Which build it is, see [`zone_channel::build`].
    pub build: String,
    /// Its privileges, as the kernel showed them after they were given up.
    pub privileges: ProcessStatus,
    /// Who started it, if that was a service manager.
    pub manager: ServiceManager,
    /// How many descriptors it may have; `None` where there is no limit, or none that is known.
    pub descriptors: Option<u64>,
    /// Where its records go: to standard error, and to control once there is a channel.
    pub log: Records,
}

/// Runs until control says stop, or everything that was being carried has ended.
pub async fn run(channel: OwnedFd, process: RelayProcess) -> Result<(), RelayError> {
    // Who made the other end of the channel, or connected to the socket that it was accepted from.
    let started_by =
        socket_peercred(&channel).map_err(|errno| RelayError::Channel(errno.into()))?.uid.as_raw();
    let (sender, receiver) = zone_channel::pair(channel).map_err(RelayError::Channel)?;
    let manager = Arc::new(process.manager);
    let mut relay = Relay {
        state: RelayState::Fresh,
        started_by,
        build: process.build,
        descriptors: process.descriptors,
        privileges: process.privileges,
        manager: Arc::clone(&manager),
        watchdog: Watchdog::new(),
        log: process.log,
        serving: None,
        drain_deadline: None,
        tells_wanted: false,
        tasks: JoinSet::new(),
    };
    if let Some(timeout) = manager.watchdog() {
        let watchdog = Arc::clone(&relay.watchdog);
        let interval = timeout / CHECKS_PER_WATCHDOG_TIMEOUT;
        relay.tasks.spawn(zone_watchdog::run(watchdog, interval, move || manager.alive()));
    }
    let heartbeat = relay.watchdog.register("talk with control");
    let result = relay.serve_controls(sender, receiver, heartbeat).await;
    if let Err(error) = &result {
        tracing::error!("{error}");
    }
    relay.manager.stopping();
    relay.log.finish().await;
    result
}

/// What follows the talk with one control.
enum Next {
    /// This relay ends.
    Exit,
    /// It goes on alone.
    WithoutControl,
    /// It can't go on, for a task is gone that it can't do without.
    TaskEnded(String),
    /// It talks with another control.
    TakenUp(Channel),
}

struct Relay {
    state: RelayState,
    /// The user of the control that started this relay.
    started_by: u32,
    build: String,
    descriptors: Option<u64>,
    privileges: ProcessStatus,
    manager: Arc<ServiceManager>,
    watchdog: Arc<Watchdog>,
    log: Records,
    serving: Option<Serving>,
    drain_deadline: Option<Instant>,
    /// Whether control understands [`FromRelay::Wanted`], as the one does that had this relay take another one's place.
    tells_wanted: bool,
    tasks: JoinSet<()>,
}

impl Relay {
    /// Talks with one control after the other.
    async fn serve_controls(
        &mut self,
        sender: Sender<FromRelay>,
        receiver: Receiver<ToRelay>,
        mut heartbeat: Heartbeat,
    ) -> Result<(), RelayError> {
        let mut channel = Some((sender, receiver));
        loop {
            let Some((sender, receiver)) = channel.take() else {
                match self.wait_for_control(&mut heartbeat).await {
                    Next::TakenUp(taken_up) => channel = Some(taken_up),
                    Next::TaskEnded(why) => return Err(RelayError::TaskEnded(why)),
                    Next::Exit | Next::WithoutControl => return Ok(()),
                }
                continue;
            };
            let next = self.serve_channel(&sender, receiver, &mut heartbeat).await;
            self.tells_wanted = false;
            if !matches!(next, Next::Exit) {
                self.log.close();
            }
            match next {
                Next::Exit => return Ok(()),
                Next::TaskEnded(why) => return Err(RelayError::TaskEnded(why)),
                Next::WithoutControl => {}
                Next::TakenUp(taken_up) => channel = Some(taken_up),
            }
        }
    }

    /// Talks with one control until the channel ends.
    async fn serve_channel(
        &mut self,
        sender: &Sender<FromRelay>,
        mut receiver: Receiver<ToRelay>,
        heartbeat: &mut Heartbeat,
    ) -> Next {
        if let Err(error) = heartbeat.during(self.say_hello(sender)).await {
            tracing::warn!("{error}");
            return self.without_control();
        }
        self.manager.ready();
        loop {
            let received = tokio::select! {
                received = receiver.receive() => received,
                taken_up = next_control(self.serving.as_ref()) => return Next::TakenUp(taken_up),
                () = drained(self.serving.as_ref(), self.drain_deadline) => return Next::Exit,
                why = task_ended(&mut self.tasks) => return Next::TaskEnded(why),
                () = heartbeat.answer() => continue,
                endpoints = wanted(self.serving.as_ref(), self.tells_wanted) => {
                    // A channel that has ended shows where it is read.
                    let _ = heartbeat.during(sender.send(&FromRelay::Wanted { endpoints }, &[])).await;
                    continue;
                }
            };
            let answered = match received {
                Ok((ToRelay::Stop, _)) => {
                    tracing::info!("control told this relay to stop");
                    heartbeat.during(self.stop()).await;
                    return Next::Exit;
                }
                Ok((message, descriptors)) => {
                    heartbeat.during(self.handle_message(sender, message, descriptors)).await
                }
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
    async fn wait_for_control(&mut self, heartbeat: &mut Heartbeat) -> Next {
        let Some(serving) = &self.serving else { return Next::Exit };
        let orphan = serving.context.rules().timeouts.orphan;
        if self.state == RelayState::Serving {
            let until =
                if self.lifeline().is_some() { "until the service is stopped" } else { "for a while" };
            tracing::warn!(
                seconds = orphan.as_secs(),
                "control is gone: sessions go on {until}, and this relay drains unless a control takes it up in time"
            );
        }
        let orphan_limit = tokio::time::sleep(orphan);
        tokio::pin!(orphan_limit);
        loop {
            tokio::select! {
                taken_up = next_control(self.serving.as_ref()) => return Next::TakenUp(taken_up),
                () = drained(self.serving.as_ref(), self.drain_deadline) => return Next::Exit,
                why = task_ended(&mut self.tasks) => return Next::TaskEnded(why),
                () = heartbeat.answer() => {}
                () = lifeline_ended(lifeline(self.serving.as_ref())) => {
                    let Some(serving) = &mut self.serving else { return Next::Exit };
                    serving.lifeline = None;
                    let on_stop = serving.on_stop;
                    tracing::info!(?on_stop, "the service was stopped");
                    match on_stop {
                        OnStop::Stop => {
                            serving.close_ports();
                            heartbeat.during(self.stop()).await;
                            return Next::Exit;
                        }
                        OnStop::Drain => heartbeat.during(self.drain()).await,
                        OnStop::Keep => orphan_limit.as_mut().reset(Instant::now() + orphan),
                    }
                }
                () = &mut orphan_limit, if self.state == RelayState::Serving && self.lifeline().is_none() => {
                    tracing::warn!("no control came: draining");
                    heartbeat.during(self.drain()).await;
                }
            }
        }
    }

    fn without_control(&self) -> Next {
        match self.state {
            // Nobody was let in yet: a new control starts over.
            RelayState::Fresh | RelayState::Ready => Next::Exit,
            RelayState::Serving | RelayState::Draining => Next::WithoutControl,
        }
    }

    async fn say_hello(&self, sender: &Sender<FromRelay>) -> Result<(), ChannelError> {
        let serving = self.serving.as_ref();
        let hello = FromRelay::Hello {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            build: self.build.clone(),
            process: Some(self.privileges.clone()),
            features: [LISTS_SESSIONS, TAKES_NOTES, READS_RETIRED, HANDS_OVER].map(str::to_owned).to_vec(),
            state: self.state,
            generation: serving.map_or(0, |s| s.generation),
            serves: serving.map(|s| s.name.clone()).unwrap_or_default(),
            listeners: serving.map(|s| s.infos.clone()).unwrap_or_default(),
        };
        let descriptors: Vec<_> =
            serving.map(|s| s.listeners.iter().map(AsFd::as_fd).collect()).unwrap_or_default();
        sender.send(&hello, &descriptors).await
    }

    async fn handle_message(
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
            ToRelay::Policy(policy) => self.set_policy(&policy),
            ToRelay::Drain => {
                self.drain().await;
                Ok(())
            }
            message @ (ToRelay::AcceptEndpoints
            | ToRelay::Release { .. }
            | ToRelay::Expect { .. }
            | ToRelay::Elsewhere { .. }) => {
                if let Some(serving) = &self.serving {
                    hand_over::follow(&serving.context, message);
                }
                return Ok(());
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
            Err(StepError { step, details }) => {
                tracing::error!(step, "{details}");
                FromRelay::Failed { step: step.to_owned(), error: details }
            }
        };
        sender.send(&answer, &[]).await
    }

    fn configure(&mut self, configure: Configure, descriptors: Vec<OwnedFd>) -> Result<(), StepError> {
        if self.serving.is_some() {
            return Err(StepError::new("configure", "this relay is configured already"));
        }
        let mut serving = Serving::new(configure, descriptors, self.started_by)?;
        if let Some(file) = serving.notes.take() {
            self.log.note_in(file);
        }
        serving.context.descriptors.limit_to(self.descriptors);
        self.tells_wanted = serving.takes_over;
        self.serving = Some(serving);
        self.state = RelayState::Ready;
        Ok(())
    }

    fn activate(&mut self) -> Result<(), StepError> {
        let (RelayState::Ready, Some(serving)) = (self.state, &self.serving) else {
            return Err(StepError::new("accept", format!("this relay is {:?}, not ready", self.state)));
        };
        serving.accept(&mut self.tasks, &self.watchdog)?;
        serving.context.descriptors.warn_if_few(&serving.context.rules().limits);
        self.state = RelayState::Serving;
        self.manager.status(&format!("generation {} serves", serving.generation));
        let (generation, listeners) = (serving.generation, serving.infos.len());
        tracing::info!(generation, listeners, "this relay accepts connections");
        Ok(())
    }

    fn set_policy(&mut self, policy: &Policy) -> Result<(), StepError> {
        let not_configured = || StepError::new("policy", "this relay is not configured");
        self.serving.as_mut().ok_or_else(not_configured)?.set_policy(policy)
    }

    async fn drain(&mut self) {
        let Some(serving) = &mut self.serving else { return };
        if self.state == RelayState::Serving {
            serving.turn_callers_away().await;
        }
        serving.drain();
        self.state = RelayState::Draining;
        self.drain_deadline.get_or_insert(Instant::now() + serving.context.rules().timeouts.drain);
        self.manager.status(&format!("generation {} drains", serving.generation));
        tracing::info!(generation = serving.generation, "this relay is draining");
    }

    async fn stop(&self) {
        if let Some(serving) = &self.serving {
            serving.stop().await;
        }
    }

    fn reply(&self, query: Query) -> Reply {
        let counts = self.serving.as_ref().map(Serving::counts).unwrap_or_default();
        match (query, &self.serving) {
            (Query::Sessions { after }, Some(serving)) => {
                let (sessions, next) = serving.context.sessions.after(after);
                Reply::Sessions { sessions, next }
            }
            (Query::Endpoints { after }, Some(serving)) => {
                hand_over::known(&serving.context.switchboard, &after)
            }
            (Query::Endpoints { .. }, None) => Reply::Endpoints { endpoints: Vec::new(), next: None },
            (Query::Sessions { .. }, None) => Reply::Sessions { sessions: Vec::new(), next: None },
            (Query::Counts, _) | (Query::Metrics, None) => Reply::Counts(counts),
            (Query::Metrics, Some(serving)) => Reply::Metrics(serving.context.metrics.text(&counts)),
        }
    }

    fn lifeline(&self) -> Option<&Lifeline> {
        lifeline(self.serving.as_ref())
    }
}

fn lifeline(serving: Option<&Serving>) -> Option<&Lifeline> {
    serving.and_then(|serving| serving.lifeline.as_ref())
}

/// Waits for a control at the rendezvous, where there is one.
async fn next_control(serving: Option<&Serving>) -> Channel {
    match serving {
        Some(serving) => serving.rendezvous.next_control().await,
        None => pending().await,
    }
}

/// Waits for endpoints that control is to be told of, where it is to be.
async fn wanted(serving: Option<&Serving>, tells: bool) -> Vec<Label> {
    match serving {
        Some(serving) if tells => {
            let endpoints = serving.context.switchboard.wanted.next().await;
            endpoints.iter().filter_map(|endpoint| endpoint.parse().ok()).collect()
        }
        _ => pending().await,
    }
}

/// Waits for the end of the lifeline, where there is one.
async fn lifeline_ended(lifeline: Option<&Lifeline>) {
    match lifeline {
        Some(lifeline) => lifeline.ended().await,
        None => pending().await,
    }
}

/// Waits for the end of the drain, where there is one.
async fn drained(serving: Option<&Serving>, deadline: Option<Instant>) {
    match (serving, deadline) {
        (Some(serving), Some(deadline)) => serving.drained(deadline).await,
        _ => pending().await,
    }
}
