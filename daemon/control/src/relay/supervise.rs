//! Which relays there are, and that one serves whenever the proxy is provisioned.

use std::cell::{Ref, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use nix::unistd::geteuid;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use zone_channel::{Configure, ListenerInfo, Policy, RelayState};

use super::absent::Absent;
use super::channel::{COMMAND_TIMEOUT, Fresh, Relay, Surroundings};
use super::end::Ender;
use super::error::{NotInForce, RelayError};
use super::listener::{BindError, Listener};
use super::sessions::Sessions;
use super::start::{Started, Starter};
use super::watchdog::watch_over;
use super::{notes, remembered, rendezvous};
use crate::metrics::Metrics;
use crate::tasks::Tasks;

/// For a relay to say hello after its start, which a service manager may take a while for.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two attempts to bind ports that somebody else holds.
const BIND_DELAY: Duration = Duration::from_secs(2);
/// Before the second of two restarts in a row; each further one waits twice as long.
const FIRST_DELAY: Duration = Duration::from_millis(200);
/// Before each further restart at most.
const MAX_DELAY: Duration = Duration::from_secs(10);
/// A relay that lived so long starts a new count.
const STEADY_AFTER: Duration = Duration::from_secs(60);

/// What relays are to serve.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// The provisioning, by its id.
    pub(crate) state: String,
    /// The ports.
    pub(crate) ports: Vec<ListenerInfo>,
    /// The rules that they go by.
    pub(crate) policy: Rc<Policy>,
}

/// Starts, watches and replaces relays.
pub(crate) struct Supervisor {
    pub(super) starter: Rc<dyn Starter>,
    runtime_dir: PathBuf,
    pub(super) metrics: Rc<Metrics>,
    pub(super) surroundings: Surroundings,
    /// What every relay gets to know a real stop by, see [`Configure::lifeline`].
    lifeline: Option<OwnedFd>,
    /// Grows whenever a relay begins or ceases to serve.
    changes: watch::Sender<u64>,
    pub(super) inner: RefCell<Inner>,
}

#[derive(Default)]
pub(super) struct Inner {
    pub(super) generation: u64,
    pub(super) wanted: Option<Wanted>,
    /// Grows whenever what is wanted is replaced, so that a start under way knows that it is too late.
    pub(super) revision: u64,
    pub(super) listeners: Vec<Listener>,
    pub(super) serving: Option<Rc<Relay>>,
    pub(super) draining: Vec<Rc<Relay>>,
    /// Every relay whose process is there, whatever becomes of it.
    pub(super) all: Vec<Rc<Relay>>,
    /// Relays that control knows of and has no channel to.
    pub(super) absent: Vec<Rc<Absent>>,
    crashes: u32,
    pub(super) trouble: Option<String>,
}

impl Supervisor {
    /// No relay yet.
    pub(crate) fn new(
        starter: Rc<dyn Starter>,
        ender: Ender,
        runtime_dir: PathBuf,
        metrics: Rc<Metrics>,
        tasks: Rc<Tasks>,
        lifeline: Option<OwnedFd>,
    ) -> Rc<Self> {
        let changes = watch::Sender::new(0);
        let surroundings = Surroundings { ender: Rc::new(ender), metrics: Rc::clone(&metrics), tasks };
        Rc::new(Self {
            starter,
            runtime_dir,
            metrics,
            surroundings,
            lifeline,
            changes,
            inner: RefCell::default(),
        })
    }

    /// Changes whenever a relay begins or ceases to serve.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Whether relays know of a real stop by themselves, and so need not be told.
    pub(crate) fn has_lifeline(&self) -> bool {
        self.lifeline.is_some()
    }

    /// Whether everything that should be served is.
    pub(crate) fn serves(&self) -> bool {
        self.inner.borrow().wanted.is_none() || self.ports().iter().all(|(_, listening)| *listening)
    }

    /// Starts a relay that serves what is wanted, and another one until one does.
    pub(super) fn ensure_one_serves(self: &Rc<Self>) {
        let revision = self.inner.borrow().revision;
        self.surroundings.tasks.spawn(Rc::clone(self).restart(revision, Duration::ZERO));
    }

    /// Starts a relay and makes it ready: it has everything and does not accept yet.
    pub(crate) async fn launch(
        self: &Rc<Self>,
        state: &str,
        listeners: &[Listener],
        policy: &Policy,
    ) -> Result<Rc<Relay>, RelayError> {
        let generation = self.next_generation();
        let mut descriptors = self.descriptors(generation, listeners)?;
        let Started { channel, child } = self
            .starter
            .start()
            .map_err(|error| RelayError::Start { program: self.starter.name(), error: error.to_string() })?;
        let sessions = Rc::new(Sessions::of(&self.runtime_dir, generation));
        let fresh = Fresh { channel, child, generation, sessions };
        let (relay, hello) = Relay::after_hello(fresh, HELLO_TIMEOUT, &self.surroundings).await?;
        self.metrics.relay_starts.inc();
        self.watch(&relay);
        if relay.state() != RelayState::Fresh {
            relay.stop().await;
            let error = "it says that it was started before".to_owned();
            return Err(RelayError::Failed { step: "hello".to_owned(), error });
        }
        if hello.takes_notes {
            descriptors
                .push(notes::create(&self.runtime_dir, generation).map_err(prepare("file for notes"))?);
        }
        let configure = Configure {
            generation,
            state: state.to_owned(),
            control_uid: geteuid().as_raw(),
            listeners: listeners.iter().map(Listener::info).collect(),
            lifeline: self.lifeline.is_some(),
            notes: hello.takes_notes,
            takes_over: self.inner.borrow().serving.is_some(),
            policy: policy.clone(),
        };
        if let Err(error) = relay.configure(configure, descriptors).await {
            relay.stop().await;
            return Err(error);
        }
        Ok(relay)
    }

    /// Puts an activated relay in the place of the one that serves, which drains.
    pub(crate) fn promote(self: &Rc<Self>, relay: &Rc<Relay>, wanted: Wanted, listeners: Vec<Listener>) {
        let (old, old_listeners) = {
            let mut inner = self.inner.borrow_mut();
            inner.revision += 1;
            inner.wanted = Some(wanted);
            inner.crashes = 0;
            inner.trouble = None;
            let old = inner.serving.replace(Rc::clone(relay));
            (old, std::mem::replace(&mut inner.listeners, listeners))
        };
        self.announce_change();
        if relay.end().is_some() {
            self.on_end(relay, "it ended at once");
        }
        let kept: Vec<_> = self.inner.borrow().listeners.iter().map(|own| own.info().address).collect();
        let gone = old_listeners.into_iter().filter(|own| !kept.contains(&own.info().address)).collect();
        self.drain(old, gone);
    }

    /// What the relays go by from now on. One that does not take it in time is ended, for it would go on with what is
    /// allowed no more; the one that serves is replaced. When this returns, no relay goes by the rules of before, except
    /// those that it names.
    pub(crate) async fn set_policy(self: &Rc<Self>, policy: &Rc<Policy>) -> Result<(), NotInForce> {
        let (relays, absent) = {
            let mut inner = self.inner.borrow_mut();
            let Some(wanted) = &mut inner.wanted else { return Ok(()) };
            wanted.policy = Rc::clone(policy);
            (inner.all.clone(), inner.absent.clone())
        };
        let mut telling = JoinSet::new();
        // One that is about to serve has the new rules when it does.
        for relay in relays.into_iter().filter(|relay| relay.has_served()) {
            telling.spawn_local(bring_in_force(relay, Rc::clone(policy)));
        }
        for absent in absent {
            telling.spawn_local(async move { absent.settled(COMMAND_TIMEOUT).await });
        }
        in_force(telling.join_all().await)
    }

    /// Ends every relay and closes every port. Names the relays that can't be ended.
    pub(crate) async fn release(self: &Rc<Self>) -> Result<(), NotInForce> {
        let (relays, absent, listeners) = {
            let mut inner = self.inner.borrow_mut();
            inner.revision += 1;
            inner.wanted = None;
            inner.trouble = None;
            inner.draining.clear();
            inner.serving = None;
            (inner.all.clone(), inner.absent.clone(), std::mem::take(&mut inner.listeners))
        };
        for listener in &listeners {
            listener.close();
        }
        drop(listeners);
        let mut ending = JoinSet::new();
        for relay in relays {
            ending.spawn_local(async move { if relay.stop().await { None } else { Some(goes_on(&relay)) } });
        }
        for absent in absent {
            ending.spawn_local(async move { absent.settled(Duration::ZERO).await });
        }
        in_force(ending.join_all().await)
    }

    /// The relays drain, and nothing takes their place.
    pub(crate) async fn drain_all(self: &Rc<Self>) {
        let serving = {
            let mut inner = self.inner.borrow_mut();
            inner.revision += 1;
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
    pub(crate) fn held(&self, info: ListenerInfo) -> Option<Result<Listener, BindError>> {
        let inner = self.inner.borrow();
        let own = inner.listeners.iter().find(|own| own.info().address == info.address)?;
        Some(own.share(info))
    }

    /// Notes a relay, forgets it when its process is gone, and replaces it if it was the one that served. One that goes on
    /// without its channel is taken up again.
    pub(super) fn watch(self: &Rc<Self>, relay: &Rc<Relay>) {
        self.inner.borrow_mut().all.push(Rc::clone(relay));
        if let Err(error) = remembered::note(&self.runtime_dir, relay.generation(), relay.process.facts()) {
            let generation = relay.generation();
            tracing::warn!(generation, %error, "a relay's process can't be noted for the next control");
        }
        if !self.surroundings.ender.is_service_managers() {
            self.surroundings.tasks.spawn(watch_over(Rc::clone(relay)));
        }
        let (supervisor, relay) = (Rc::clone(self), Rc::clone(relay));
        self.surroundings.tasks.spawn(async move {
            let end = relay.ended().await;
            supervisor.inner.borrow_mut().all.retain(|own| !Rc::ptr_eq(own, &relay));
            if end.gone {
                relay.take_in_notes(&supervisor.runtime_dir);
                relay.sessions.lost();
                remembered::forget_when_logged(&supervisor.runtime_dir, relay.generation());
            } else {
                let (generation, pid) = (relay.generation(), relay.pid());
                tracing::warn!(generation, pid, why = &*end.how, "a relay goes on without its channel");
                let (process, sessions) = (Rc::clone(&relay.process), Rc::clone(&relay.sessions));
                supervisor.expect(generation, Some(process), sessions, relay.is_ending());
            }
            supervisor.on_end(&relay, &end.how);
        });
    }

    pub(super) fn runtime_dir(&self) -> &Path {
        &self.runtime_dir
    }

    pub(super) fn inner(&self) -> Ref<'_, Inner> {
        self.inner.borrow()
    }

    fn on_end(self: &Rc<Self>, relay: &Rc<Relay>, reason: &str) {
        let (generation, pid) = (relay.generation(), relay.pid());
        let mut inner = self.inner.borrow_mut();
        inner.draining.retain(|own| !Rc::ptr_eq(own, relay));
        if !inner.serving.as_ref().is_some_and(|own| Rc::ptr_eq(own, relay)) {
            tracing::info!(generation, pid, reason, "a relay ended");
            return;
        }
        inner.serving = None;
        self.announce_change();
        if relay.since.elapsed() >= STEADY_AFTER {
            inner.crashes = 0;
        }
        let delay = delay(inner.crashes);
        inner.crashes = inner.crashes.saturating_add(1);
        inner.trouble = Some(format!("the relay ended: {reason}"));
        self.metrics.relay_crashes.inc();
        tracing::error!(generation, pid, reason, again_in = ?delay, "the serving relay ended");
        self.surroundings.tasks.spawn(Rc::clone(self).restart(inner.revision, delay));
    }

    async fn restart(self: Rc<Self>, revision: u64, mut wait: Duration) {
        loop {
            sleep(wait).await;
            let Some(wanted) = self.still_wanted(revision) else { return };
            if let Err(why) = self.bind_missing(&wanted.ports) {
                self.report_trouble(&why);
                wait = BIND_DELAY;
                continue;
            }
            match self.serve(revision, &wanted).await {
                Ok(()) => return,
                Err(error) => {
                    self.report_trouble(&error.to_string());
                    let mut inner = self.inner.borrow_mut();
                    wait = delay(inner.crashes.max(1));
                    inner.crashes = inner.crashes.saturating_add(1);
                }
            }
        }
    }

    async fn serve(self: &Rc<Self>, revision: u64, wanted: &Wanted) -> Result<(), RelayError> {
        let relay = self.launch(&wanted.state, &self.listeners(), &wanted.policy).await?;
        let Some(now) = self.still_wanted(revision) else {
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
            self.report_trouble(&error.to_string());
            // Its end brings the next attempt.
            relay.stop().await;
            return Ok(());
        }
        self.inner.borrow_mut().trouble = None;
        self.announce_change();
        tracing::info!(generation = relay.generation(), pid = relay.pid(), "a relay serves");
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

    fn report_trouble(&self, why: &str) {
        let mut inner = self.inner.borrow_mut();
        if inner.trouble.as_deref() != Some(why) {
            tracing::error!(error = why, "no relay serves; it is tried again until one does");
            inner.trouble = Some(why.to_owned());
        }
    }

    pub(super) fn announce_change(&self) {
        self.changes.send_modify(|number| *number += 1);
    }

    pub(super) fn still_wanted(&self, revision: u64) -> Option<Wanted> {
        let inner = self.inner.borrow();
        (inner.revision == revision).then(|| inner.wanted.clone()).flatten()
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
        let rendezvous = rendezvous::bind(&self.runtime_dir, generation).map_err(prepare("rendezvous"))?;
        descriptors.push(rendezvous);
        if let Some(lifeline) = &self.lifeline {
            descriptors.push(lifeline.try_clone().map_err(prepare("lifeline"))?);
        }
        Ok(descriptors)
    }
}

/// Ends relays, all at the same time.
pub(super) async fn stop_all(relays: Vec<Rc<Relay>>) {
    let mut stopping = JoinSet::new();
    for relay in relays {
        stopping.spawn_local(async move { relay.stop().await });
    }
    stopping.join_all().await;
}

/// Has a relay go by a policy, or ends it. Says what is not in force otherwise.
async fn bring_in_force(relay: Rc<Relay>, policy: Rc<Policy>) -> Option<String> {
    let Err(error) = relay.set_policy(&policy).await else { return None };
    let (generation, pid) = (relay.generation(), relay.pid());
    if !matches!(error, RelayError::Ended(_)) {
        tracing::error!(generation, pid, %error, "a relay does not take its policy, and is ended");
    }
    let gone = match error {
        // It answers, and so can end its sessions in good order.
        RelayError::Failed { .. } | RelayError::OutOfStep { .. } => relay.stop().await,
        // Its channel has ended, which it may have brought about itself.
        _ => relay.kill().await,
    };
    (!gone).then(|| goes_on(&relay))
}

fn goes_on(relay: &Relay) -> String {
    format!("relay {} (process {}) was killed and goes on", relay.generation(), relay.pid())
}

fn in_force(not: Vec<Option<String>>) -> Result<(), NotInForce> {
    let not: Vec<_> = not.into_iter().flatten().collect();
    if not.is_empty() { Ok(()) } else { Err(NotInForce(not)) }
}

fn delay(crashes: u32) -> Duration {
    match crashes {
        0 => Duration::ZERO,
        n => FIRST_DELAY.saturating_mul(1 << (n - 1).min(16)).min(MAX_DELAY),
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
        assert_eq!(delay(u32::MAX), MAX_DELAY);
    }
}
