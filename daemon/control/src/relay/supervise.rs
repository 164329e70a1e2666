//! Which relays there are, and that one serves whenever the proxy is provisioned.

use std::cell::{Ref, RefCell};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use rustix::process::geteuid;
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_local};
use tokio::time::sleep;
use zone_channel::{Configure, ListenerInfo, Policy, Query, RelayState, Reply};
use zone_protocol::provisioning::{ProcessStatus, RelayCounts, RelayStatus};

use super::adopt::meet;
use super::channel::word;
use super::{HELLO, Listener, Relay, RelayError, Started, Starter};
use crate::metrics::{Kind, Metrics, OfRelay};

/// Between two attempts to bind ports that somebody else holds.
const BIND_AGAIN: Duration = Duration::from_secs(2);
/// Before the second of two restarts in a row; each further one waits twice as long.
const FIRST_DELAY: Duration = Duration::from_millis(200);
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// A relay that lived so long starts a new count.
const STEADY: Duration = Duration::from_secs(60);
/// For a relay's answer in `status` and metrics.
const ANSWER: Duration = Duration::from_secs(1);

/// What relays are to serve.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The provisioning, by its id.
    pub state: String,
    /// The ports.
    pub ports: Vec<ListenerInfo>,
    /// By which rules.
    pub policy: Rc<Policy>,
}

/// Starts, watches and replaces relays.
pub struct Supervisor {
    pub(super) starter: Rc<dyn Starter>,
    runtime_dir: PathBuf,
    metrics: Rc<Metrics>,
    /// What every relay gets to know a real stop by, see [`Configure::lifeline`].
    lifeline: Option<OwnedFd>,
    /// Grows whenever a relay begins or ceases to serve.
    news: watch::Sender<u64>,
    pub(super) inner: RefCell<Inner>,
}

#[derive(Default)]
pub(super) struct Inner {
    pub(super) generation: u64,
    pub(super) wanted: Option<Wanted>,
    /// Grows whenever what is wanted is replaced, so that a start under way knows that it is too late.
    pub(super) turn: u64,
    pub(super) listeners: Vec<Listener>,
    pub(super) serving: Option<Rc<Relay>>,
    pub(super) draining: Vec<Rc<Relay>>,
    crashes: u32,
    trouble: Option<String>,
}

impl Supervisor {
    /// No relay yet.
    pub fn new(
        starter: Rc<dyn Starter>,
        runtime_dir: PathBuf,
        metrics: Rc<Metrics>,
        lifeline: Option<OwnedFd>,
    ) -> Rc<Self> {
        let news = watch::Sender::new(0);
        Rc::new(Self { starter, runtime_dir, metrics, lifeline, news, inner: RefCell::default() })
    }

    /// Changes whenever a relay begins or ceases to serve.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Whether relays know of a real stop by themselves, and so need not be told.
    pub fn has_lifeline(&self) -> bool {
        self.lifeline.is_some()
    }

    /// Whether everything that should be served is.
    pub fn serves(&self) -> bool {
        self.inner.borrow().wanted.is_none() || self.ports().iter().all(|(_, listening)| *listening)
    }

    /// What relays were shown of themselves by the kernel, by process id.
    pub fn processes(&self) -> Vec<(u32, Option<ProcessStatus>)> {
        let inner = self.inner.borrow();
        let relays = inner.serving.iter().chain(&inner.draining);
        relays.map(|relay| (relay.pid, relay.process.clone())).collect()
    }

    /// Sees to it that a relay serves, unless one was adopted.
    pub(super) fn keep(self: &Rc<Self>) {
        let turn = self.inner.borrow().turn;
        spawn_local(Rc::clone(self).restart(turn, Duration::ZERO));
    }

    /// Starts a relay and makes it ready: it has everything and does not accept yet.
    pub async fn launch(
        self: &Rc<Self>,
        state: &str,
        listeners: &[Listener],
        policy: &Policy,
    ) -> Result<Rc<Relay>, RelayError> {
        let generation = self.next_generation();
        let descriptors = self.descriptors(generation, listeners)?;
        let Started { channel, child } = self
            .starter
            .start()
            .map_err(|error| RelayError::Start { program: self.starter.name(), error: error.to_string() })?;
        let (relay, _) = Relay::greet(channel, child, HELLO).await?;
        self.metrics.relay_starts.inc();
        let configure = Configure {
            generation,
            state: state.to_owned(),
            control_uid: geteuid().as_raw(),
            listeners: listeners.iter().map(Listener::info).collect(),
            lifeline: self.lifeline.is_some(),
            policy: policy.clone(),
        };
        let configured = relay.configure(configure, descriptors).await;
        self.watch(&relay);
        if let Err(error) = configured {
            relay.stop().await;
            return Err(error);
        }
        Ok(relay)
    }

    /// Puts an activated relay in the place of the one that serves, which drains.
    pub fn promote(self: &Rc<Self>, relay: &Rc<Relay>, wanted: Wanted, listeners: Vec<Listener>) {
        let (old, old_listeners) = {
            let mut inner = self.inner.borrow_mut();
            inner.turn += 1;
            inner.wanted = Some(wanted);
            inner.crashes = 0;
            inner.trouble = None;
            let old = inner.serving.replace(Rc::clone(relay));
            (old, std::mem::replace(&mut inner.listeners, listeners))
        };
        self.tell_news();
        if relay.has_ended() {
            self.lost(relay, "it ended at once");
        }
        let kept: Vec<_> = self.inner.borrow().listeners.iter().map(|own| own.info().address).collect();
        let gone = old_listeners.into_iter().filter(|own| !kept.contains(&own.info().address)).collect();
        self.drain(old, gone);
    }

    /// What the relays go by from now on. Those that drain are told too; one that can't be told is ended, for it
    /// would go on with sessions that are allowed no more.
    pub async fn set_policy(self: &Rc<Self>, policy: &Rc<Policy>) -> Result<(), RelayError> {
        let (serving, draining) = {
            let mut inner = self.inner.borrow_mut();
            let Some(wanted) = &mut inner.wanted else { return Ok(()) };
            wanted.policy = Rc::clone(policy);
            (inner.serving.clone(), inner.draining.clone())
        };
        for relay in draining {
            let policy = Rc::clone(policy);
            spawn_local(async move {
                if let Err(error) = relay.set_policy(&policy).await {
                    let generation = relay.generation();
                    tracing::warn!(generation, %error, "a draining relay does not take the policy and is ended");
                    relay.stop().await;
                }
            });
        }
        match serving {
            // One that ends now is replaced by one that has the new policy from its start.
            Some(serving) => match serving.set_policy(policy).await {
                Err(RelayError::Ended(_)) => Ok(()),
                result => result,
            },
            None => Ok(()),
        }
    }

    /// Ends every relay and closes every port.
    pub async fn release(self: &Rc<Self>) {
        let (relays, listeners) = {
            let mut inner = self.inner.borrow_mut();
            inner.turn += 1;
            inner.wanted = None;
            inner.trouble = None;
            let mut relays = std::mem::take(&mut inner.draining);
            relays.extend(inner.serving.take());
            (relays, std::mem::take(&mut inner.listeners))
        };
        for listener in &listeners {
            listener.close();
        }
        drop(listeners);
        stop_all(relays).await;
    }

    /// The relays drain, and nothing takes their place.
    pub async fn drain_all(self: &Rc<Self>) {
        let serving = {
            let mut inner = self.inner.borrow_mut();
            inner.turn += 1;
            inner.wanted = None;
            inner.serving.take()
        };
        if let Some(relay) = serving
            && let Err(error) = relay.drain().await
        {
            tracing::warn!(%error, "the relay does not drain and is ended");
            relay.stop().await;
        }
    }

    /// A socket that is bound to this address already, for another purpose or the same.
    pub fn held(&self, info: ListenerInfo) -> Option<Result<Listener, super::BindError>> {
        let inner = self.inner.borrow();
        let own = inner.listeners.iter().find(|own| own.info().address == info.address)?;
        Some(own.share(info))
    }

    /// The ports that are meant to be open, and whether somebody accepts there.
    pub fn ports(&self) -> Vec<(ListenerInfo, bool)> {
        let inner = self.inner.borrow();
        let served = inner.serving.as_ref().is_some_and(|relay| relay.state() == RelayState::Serving);
        let listens = |port: &ListenerInfo| {
            served && inner.listeners.iter().any(|own| own.info() == *port && own.is_listening())
        };
        let ports = inner.wanted.iter().flat_map(|wanted| &wanted.ports);
        ports.map(|port| (*port, listens(port))).collect()
    }

    /// Why no relay serves although one should.
    pub fn trouble(&self) -> Option<String> {
        self.inner.borrow().trouble.clone()
    }

    /// Every relay with what it carries, the newest first.
    pub async fn statuses(&self) -> Vec<RelayStatus> {
        let relays: Vec<_> = {
            let inner = self.inner.borrow();
            inner.serving.iter().chain(&inner.draining).cloned().collect()
        };
        let mut asking = JoinSet::new();
        for relay in relays {
            asking.spawn_local(async move {
                let counts = match relay.ask(Query::Counts, ANSWER).await {
                    Ok(Reply::Counts(counts)) => Some(counts),
                    _ => None,
                };
                let state = if counts.is_some() { word(relay.state()) } else { "silent" };
                RelayStatus {
                    generation: relay.generation(),
                    pid: relay.pid,
                    state: state.to_owned(),
                    counts,
                }
            });
        }
        let mut statuses = asking.join_all().await;
        statuses.sort_by_key(|status| std::cmp::Reverse(status.generation));
        self.metrics.carried.clear();
        for status in &statuses {
            if let Some(counts) = &status.counts {
                self.count(status.generation, counts);
            }
        }
        statuses
    }

    /// The metrics of the relay that serves.
    pub async fn metrics_text(&self) -> Option<String> {
        let serving = self.inner.borrow().serving.clone()?;
        match serving.ask(Query::Metrics, ANSWER).await {
            Ok(Reply::Metrics(text)) => Some(text),
            _ => None,
        }
    }

    /// Unlinks a relay's rendezvous when it ends, and replaces it if it was the one that served.
    pub(super) fn watch(self: &Rc<Self>, relay: &Rc<Relay>) {
        let (supervisor, relay) = (Rc::clone(self), Rc::clone(relay));
        spawn_local(async move {
            let reason = relay.ended().await;
            let path = rendezvous(&supervisor.runtime_dir, relay.generation());
            // A channel can break while its relay lives on, which nobody would know of any more.
            if let Ok(Some((stray, _))) = meet(&path).await {
                tracing::warn!(pid = stray.pid, "a relay lives on without its channel, and is ended");
                stray.stop().await;
            }
            let _ = fs::remove_file(path);
            supervisor.lost(&relay, &reason);
        });
    }

    pub(super) fn drain(self: &Rc<Self>, relay: Option<Rc<Relay>>, closing: Vec<Listener>) {
        let Some(relay) = relay else { return };
        self.inner.borrow_mut().draining.push(Rc::clone(&relay));
        spawn_local(async move {
            if let Err(error) = relay.drain().await {
                let generation = relay.generation();
                tracing::warn!(generation, %error, "the replaced relay does not drain and is ended");
                relay.stop().await;
            }
            for listener in closing {
                listener.close();
            }
        });
    }

    pub(super) fn runtime_dir(&self) -> &Path {
        &self.runtime_dir
    }

    pub(super) fn inner(&self) -> Ref<'_, Inner> {
        self.inner.borrow()
    }

    fn lost(self: &Rc<Self>, relay: &Rc<Relay>, reason: &str) {
        let (generation, pid) = (relay.generation(), relay.pid);
        let mut inner = self.inner.borrow_mut();
        inner.draining.retain(|own| !Rc::ptr_eq(own, relay));
        if !inner.serving.as_ref().is_some_and(|own| Rc::ptr_eq(own, relay)) {
            tracing::info!(generation, pid, reason, "a relay ended");
            return;
        }
        inner.serving = None;
        self.tell_news();
        if relay.since.elapsed() >= STEADY {
            inner.crashes = 0;
        }
        let delay = delay(inner.crashes);
        inner.crashes = inner.crashes.saturating_add(1);
        inner.trouble = Some(format!("the relay ended: {reason}"));
        self.metrics.relay_crashes.inc();
        tracing::error!(generation, pid, reason, again_in = ?delay, "the serving relay ended");
        spawn_local(Rc::clone(self).restart(inner.turn, delay));
    }

    async fn restart(self: Rc<Self>, turn: u64, mut wait: Duration) {
        loop {
            sleep(wait).await;
            let Some(wanted) = self.still_wanted(turn) else { return };
            if let Err(why) = self.bind_missing(&wanted.ports) {
                self.in_trouble(&why);
                wait = BIND_AGAIN;
                continue;
            }
            match self.serve(turn, &wanted).await {
                Ok(()) => return,
                Err(error) => {
                    self.in_trouble(&error.to_string());
                    let mut inner = self.inner.borrow_mut();
                    wait = delay(inner.crashes.max(1));
                    inner.crashes = inner.crashes.saturating_add(1);
                }
            }
        }
    }

    async fn serve(self: &Rc<Self>, turn: u64, wanted: &Wanted) -> Result<(), RelayError> {
        let relay = self.launch(&wanted.state, &self.listeners(), &wanted.policy).await?;
        let Some(now) = self.still_wanted(turn) else {
            relay.stop().await;
            return Ok(());
        };
        if !Rc::ptr_eq(&now.policy, &wanted.policy)
            && let Err(error) = relay.set_policy(&now.policy).await
        {
            relay.stop().await;
            return Err(error);
        }
        self.inner.borrow_mut().serving = Some(Rc::clone(&relay));
        if let Err(error) = relay.activate().await {
            self.in_trouble(&error.to_string());
            // Its end brings the next attempt.
            relay.stop().await;
            return Ok(());
        }
        self.inner.borrow_mut().trouble = None;
        self.tell_news();
        tracing::info!(generation = relay.generation(), pid = relay.pid, "a relay serves");
        Ok(())
    }

    /// The sockets of the ports that are meant to be open.
    pub(super) fn listeners(&self) -> Vec<Listener> {
        let inner = self.inner.borrow();
        inner.listeners.iter().filter_map(|own| own.share(own.info()).ok()).collect()
    }

    fn bind_missing(&self, ports: &[ListenerInfo]) -> Result<(), String> {
        for port in ports {
            let mut inner = self.inner.borrow_mut();
            if inner.listeners.iter().any(|own| own.info() == *port && own.is_listening()) {
                continue;
            }
            inner.listeners.retain(|own| own.info() != *port);
            let listener = Listener::bind(*port).map_err(|error| error.to_string())?;
            listener.listen().map_err(|error| error.to_string())?;
            inner.listeners.push(listener);
        }
        Ok(())
    }

    fn in_trouble(&self, why: &str) {
        let mut inner = self.inner.borrow_mut();
        if inner.trouble.as_deref() != Some(why) {
            tracing::error!(error = why, "no relay serves; it is tried again until one does");
            inner.trouble = Some(why.to_owned());
        }
    }

    pub(super) fn tell_news(&self) {
        self.news.send_modify(|number| *number += 1);
    }

    pub(super) fn still_wanted(&self, turn: u64) -> Option<Wanted> {
        let inner = self.inner.borrow();
        (inner.turn == turn).then(|| inner.wanted.clone()).flatten()
    }

    fn next_generation(&self) -> u64 {
        let mut inner = self.inner.borrow_mut();
        inner.generation += 1;
        inner.generation
    }

    fn descriptors(&self, generation: u64, listeners: &[Listener]) -> Result<Vec<OwnedFd>, RelayError> {
        let mut descriptors = listeners
            .iter()
            .map(Listener::descriptor)
            .collect::<io::Result<Vec<_>>>()
            .map_err(prepare("listeners"))?;
        let path = rendezvous(&self.runtime_dir, generation);
        let bind = || {
            let _ = fs::remove_file(&path);
            let listener = UnixListener::bind(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            listener.set_nonblocking(true)?;
            Ok(listener.into())
        };
        descriptors.push(bind().map_err(prepare("rendezvous"))?);
        if let Some(lifeline) = &self.lifeline {
            descriptors.push(lifeline.try_clone().map_err(prepare("lifeline"))?);
        }
        Ok(descriptors)
    }

    fn count(&self, generation: u64, counts: &RelayCounts) {
        for (kind, value) in [
            (Kind::Endpoints, counts.endpoints),
            (Kind::Parks, counts.parks),
            (Kind::Sessions, counts.sessions),
        ] {
            let gauge = self.metrics.carried.get_or_create_owned(&OfRelay { generation, kind });
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }
}

pub(super) async fn stop_all(relays: Vec<Rc<Relay>>) {
    let mut stopping = JoinSet::new();
    for relay in relays {
        stopping.spawn_local(async move { relay.stop().await });
    }
    stopping.join_all().await;
}

/// Where a restarted control finds the relay of a generation.
pub(super) fn rendezvous(runtime_dir: &Path, generation: u64) -> PathBuf {
    runtime_dir.join(format!("relay-{generation}.sock"))
}

fn delay(crashes: u32) -> Duration {
    match crashes {
        0 => Duration::ZERO,
        n => FIRST_DELAY.saturating_mul(1 << (n - 1).min(16)).min(LONGEST_DELAY),
    }
}

fn prepare(what: &'static str) -> impl Fn(io::Error) -> RelayError {
    move |error| RelayError::Prepare { what, error: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_at_once_and_later_ones_back_off_to_ten_seconds() {
        let delays: Vec<_> = (0..9).map(|crashes| delay(crashes).as_millis()).collect();
        assert_eq!(delays, [0, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        assert_eq!(delay(u32::MAX), LONGEST_DELAY);
    }
}
