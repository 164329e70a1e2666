//! What control tells the relay, and how long the relay goes on without it.

use std::io;
use std::net::TcpListener as StdListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use zone_channel::{
    ChannelError, Configure, FromRelay, ListenerInfo, Policy, Query, Receiver, RelayState, Reply, Sender,
    ToRelay,
};
use zone_protocol::provisioning::RelayCounts;

use crate::listen::accept_loop;
use crate::rules::{Port, Rules};
use crate::serve::Shared;

/// How long connections that were told to end may take to do so.
const ENDING: Duration = Duration::from_secs(2);

/// Why the relay exits with an error.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// Standard input is not the channel.
    #[error(
        "standard input is not a channel to control: zone-relay is started by zone-proxy, not by hand ({0})"
    )]
    Channel(io::Error),
}

/// Runs until control says stop, or everything that was being carried has ended.
pub async fn run(channel: OwnedFd) -> Result<(), RelayError> {
    let (sender, receiver) = zone_channel::pair(channel).map_err(RelayError::Channel)?;
    let mut relay = Relay { state: RelayState::Fresh, serving: None, drain_by: None, tasks: JoinSet::new() };
    let mut channel = Some((sender, receiver));
    loop {
        let Some((sender, receiver)) = channel.take() else {
            match relay.wait_for_control().await {
                Some(taken_up) => channel = Some(taken_up),
                None => return Ok(()),
            }
            continue;
        };
        match relay.converse(&sender, receiver).await {
            Next::Exit => return Ok(()),
            Next::WithoutControl => {}
            Next::TakenUp(taken_up) => channel = Some(taken_up),
        }
    }
}

type Channel = (Sender<FromRelay>, Receiver<ToRelay>);

enum Next {
    Exit,
    WithoutControl,
    TakenUp(Channel),
}

struct Relay {
    state: RelayState,
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
    shared: Arc<Shared>,
}

impl Relay {
    /// Talks with one control until the channel ends.
    async fn converse(&mut self, sender: &Sender<FromRelay>, mut receiver: Receiver<ToRelay>) -> Next {
        if let Err(error) = self.greet(sender).await {
            tracing::warn!("{error}");
            return self.without_control();
        }
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

    /// Goes on alone, bounded in time, unless there is nothing to go on with.
    async fn wait_for_control(&mut self) -> Option<Channel> {
        let orphan = self.serving.as_ref()?.shared.rules().timeouts.orphan;
        if self.state == RelayState::Serving {
            tracing::warn!(
                seconds = orphan.as_secs(),
                "control is gone: sessions go on, and this relay drains unless a control takes it up in time"
            );
        }
        let patience = tokio::time::sleep(orphan);
        tokio::pin!(patience);
        loop {
            tokio::select! {
                taken_up = next_control(self.serving.as_ref()) => return Some(taken_up),
                () = finished(self.drain_by, self.serving.as_ref()) => return None,
                () = &mut patience, if self.state == RelayState::Serving => {
                    tracing::warn!("no control came: draining");
                    self.drain();
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

    async fn greet(&self, sender: &Sender<FromRelay>) -> Result<(), ChannelError> {
        let serving = self.serving.as_ref();
        let hello = FromRelay::Hello {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
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
        if descriptors.len() != configure.listeners.len() + 1 {
            let error =
                format!("{} descriptors for {} listeners", descriptors.len(), configure.listeners.len());
            return Err(("configure", error));
        }
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
            shared: Shared::new(rules, Rules::pairing(&configure.policy)),
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
            self.tasks.spawn(accept_loop(Arc::clone(&serving.shared), port, listener));
        }
        let switchboard = Arc::clone(&serving.shared.switchboard);
        self.tasks.spawn(async move { switchboard.run().await });
        self.state = RelayState::Serving;
        tracing::info!(generation = serving.generation, listeners = serving.infos.len(), "accepting");
        Ok(())
    }

    fn policy(&self, policy: &Policy) -> Result<(), (&'static str, String)> {
        let serving = self.serving.as_ref().ok_or(("policy", "this relay is not configured".to_owned()))?;
        let rules = Rules::new(policy).map_err(|e| ("policy", e.to_string()))?;
        serving.shared.set_rules(rules, Rules::pairing(policy));
        Ok(())
    }

    fn drain(&mut self) {
        let Some(serving) = &mut self.serving else { return };
        serving.shared.drain();
        serving.listeners.clear();
        serving.infos.clear();
        self.state = RelayState::Draining;
        self.drain_by.get_or_insert(Instant::now() + serving.shared.rules().timeouts.drain);
        tracing::info!(generation = serving.generation, "draining");
    }

    async fn stop(&mut self) {
        let Some(serving) = &self.serving else { return };
        serving.shared.drain();
        serving.shared.connections.end_all();
        // Their tasks report and log their ends; none of them waits for a peer.
        let _ = timeout(ENDING, serving.shared.connections.gone()).await;
    }

    fn reply(&self, query: Query) -> Reply {
        let counts = self.serving.as_ref().map(|serving| counts(&serving.shared)).unwrap_or_default();
        match (query, &self.serving) {
            (Query::Counts, _) | (Query::Metrics, None) => Reply::Counts(counts),
            (Query::Metrics, Some(serving)) => Reply::Metrics(serving.shared.metrics.text(&counts)),
        }
    }
}

fn counts(shared: &Shared) -> RelayCounts {
    let (counts, connected) = shared.switchboard.counts();
    RelayCounts {
        endpoints: connected as u64,
        parks: counts.parks.parks() as u64,
        waiting: counts.waiting as u64,
        sessions: counts.parks.sessions as u64,
        module_server_connections: shared.connections.count(Port::ModuleServer) as u64,
        buffered_bytes: u64::try_from(shared.metrics.buffered.get()).unwrap_or(0),
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
    if timeout_at(drain_by, serving.shared.connections.gone()).await.is_err() {
        tracing::warn!("the drain deadline passed: the sessions that are left end now");
        serving.shared.connections.end_all();
        let _ = timeout(ENDING, serving.shared.connections.gone()).await;
    }
    tracing::info!(generation = serving.generation, "drained");
}
