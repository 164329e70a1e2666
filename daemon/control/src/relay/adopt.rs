//! Taking up relays that control has no channel to: those that outlived the control before this one, and one whose channel
//! has broken.
//!
//! Each has [`TAKE_UP_TIMEOUT`] to answer at its rendezvous. One that does is taken up whatever it did until then; one that
//! does not is killed, as far as control knows its process, and what it left is free.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use zone_channel::{ListenerInfo, RelayState};

use super::absent::{Absent, TAKE_UP_TIMEOUT};
use super::channel::{Fresh, Hello, Relay};
use super::error::RelayError;
use super::intake::Intake;
use super::life::{EXIT_TIMEOUT, KILL_INTERVAL};
use super::process::Process;
use super::sessions::Sessions;
use super::supervise::{Supervisor, Wanted, stop_all};
use super::{notes, remembered, rendezvous};

/// For the relays to answer before control starts to do without them.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// For a relay that was taken up to say which sessions are open.
const SESSIONS_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two attempts to take a relay up.
const TAKE_UP_INTERVAL: Duration = Duration::from_millis(200);

/// A relay found at its rendezvous.
struct Found {
    relay: Rc<Relay>,
    hello: Hello,
}

impl Supervisor {
    /// Starts with what an earlier control left: the relay that serves what is wanted goes on serving, those
    /// that drain go on draining, and the rest is ended. Where nothing serves afterwards, a relay is started.
    pub(crate) async fn begin(self: &Rc<Self>, wanted: Option<Wanted>) {
        self.inner.borrow_mut().wanted = wanted;
        for generation in remembered::all_below(self.runtime_dir()) {
            self.note_generation(generation);
            let sessions = Rc::new(Sessions::of(self.runtime_dir(), generation));
            let facts = remembered::read(self.runtime_dir(), generation);
            let process = match facts.map(Process::remembered).transpose() {
                Ok(found) => found.flatten().map(Rc::new),
                Err(error) => {
                    tracing::error!(generation, %error, "a relay's process can't be taken hold of");
                    None
                }
            };
            self.expect(generation, process, sessions, false);
        }
        let expected = self.inner().absent.clone();
        let all = async {
            for absent in expected {
                absent.is_settled().await;
            }
        };
        let _ = timeout(FIRST_ANSWER_TIMEOUT, all).await;
        let inner = self.inner();
        for absent in &inner.absent {
            tracing::warn!("{}", absent.warning());
        }
        match &inner.serving {
            None if inner.wanted.is_some() => self.ensure_one_serves(),
            Some(serving) => self.renew_if_older(serving, inner.revision),
            None => {}
        }
    }

    /// Waits for a relay that control has no channel to. One that is `ending` gets no time.
    pub(super) fn expect(
        self: &Rc<Self>,
        generation: u64,
        process: Option<Rc<Process>>,
        sessions: Rc<Sessions>,
        ending: bool,
    ) {
        let absent = Rc::new(Absent::new(generation, process, sessions));
        if ending {
            absent.give_up.notify_one();
        }
        self.inner.borrow_mut().absent.push(Rc::clone(&absent));
        let supervisor = Rc::clone(self);
        self.surroundings.tasks.spawn(async move {
            if let Some(found) = supervisor.await_answer(&absent).await {
                supervisor.take_up(found).await;
            } else {
                supervisor.take_in_notes(&absent);
                absent.sessions.lost();
                remembered::forget_when_logged(supervisor.runtime_dir(), absent.generation);
            }
            supervisor.inner.borrow_mut().absent.retain(|own| !Rc::ptr_eq(own, &absent));
            absent.settle();
        });
    }

    /// Takes in what a relay noted that is gone, and that this control never had a channel to.
    fn take_in_notes(&self, absent: &Absent) {
        let pid = absent.process.as_ref().map_or(0, |process| process.pid());
        let intake = Intake::new(pid, Rc::clone(&absent.sessions), Rc::clone(&self.metrics));
        if let Some(wanted) = &self.inner().wanted {
            intake.expect(wanted.policy.log, wanted.policy.limits.sessions);
        }
        notes::take_in(self.runtime_dir(), absent.generation, &intake);
    }

    /// Tries until the relay answers. `None` once it is gone.
    async fn await_answer(&self, absent: &Absent) -> Option<Found> {
        let (generation, deadline) = (absent.generation, absent.since + TAKE_UP_TIMEOUT);
        let ended = async {
            match &absent.process {
                Some(process) => process.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(ended);
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(TAKE_UP_INTERVAL);
            let attempt = async {
                let result = self.connect(absent, left).await;
                if !matches!(result, Ok(Some(_))) {
                    sleep(if absent.given_up.get() { KILL_INTERVAL } else { TAKE_UP_INTERVAL }).await;
                }
                result
            };
            let result = tokio::select! {
                biased;
                () = &mut ended => {
                    tracing::info!(generation, "a relay that was not taken up has ended");
                    return None;
                }
                () = absent.give_up.notified() => Err(RelayError::Ended("it is to end".to_owned())),
                result = attempt => result,
            };
            let given_up = match result {
                Ok(Some(found)) => return Some(found),
                // Nobody listens at the rendezvous: it is gone, unless its process says otherwise.
                Ok(None) if absent.process.is_none() => return None,
                Ok(None) => {
                    "it listens at its rendezvous no more".clone_into(&mut absent.why.borrow_mut());
                    false
                }
                Err(error) => {
                    let given_up = matches!(error, RelayError::Ended(_));
                    *absent.why.borrow_mut() = error.to_string();
                    given_up
                }
            };
            if given_up || Instant::now() >= deadline {
                self.make_end(absent).await;
            }
        }
    }

    async fn connect(&self, absent: &Absent, within: Duration) -> Result<Option<Found>, RelayError> {
        let generation = absent.generation;
        let path = rendezvous::path(self.runtime_dir(), generation);
        let Some(channel) = rendezvous::connect(&path)? else { return Ok(None) };
        let fresh = Fresh { channel, child: None, generation, sessions: Rc::clone(&absent.sessions) };
        let (relay, hello) = match Relay::after_hello(fresh, within, &self.surroundings).await {
            Ok(found) => found,
            // It closed the connection unanswered, which is no end of its process.
            Err(RelayError::Ended(why)) => {
                return Err(RelayError::Failed { step: "hello".into(), error: why });
            }
            Err(error) => return Err(error),
        };
        if let Some(process) = &absent.process
            && process.pid() != relay.pid()
        {
            tracing::error!(
                generation,
                pid = relay.pid(),
                "another process answers for a relay, and is killed"
            );
            relay.kill().await;
            return Err(RelayError::Failed { step: "hello".into(), error: "another process answers".into() });
        }
        Ok(Some(Found { relay, hello }))
    }

    /// Kills an absent relay. Its end is noticed by whoever waits for its answer.
    async fn make_end(&self, absent: &Absent) {
        let said = absent.given_up.replace(true);
        let generation = absent.generation;
        let Some(process) = &absent.process else {
            if !said {
                tracing::error!(
                    generation,
                    "a relay does not answer, and can't be ended: its process is not known"
                );
            }
            return;
        };
        let pid = process.pid();
        if !said {
            tracing::error!(
                generation,
                pid,
                why = *absent.why.borrow(),
                "a relay that is not taken up is killed"
            );
        }
        match self.surroundings.ender.end(process).await {
            Ok(()) => {
                if timeout(EXIT_TIMEOUT, process.ended()).await.is_err() && !said {
                    tracing::error!(generation, pid, "a relay that was killed goes on");
                }
            }
            Err(error) if !said => tracing::error!(generation, pid, %error, "a relay can't be ended"),
            Err(_) => {}
        }
    }

    async fn take_up(self: &Rc<Self>, Found { relay, hello }: Found) {
        self.watch(&relay);
        let (generation, pid) = (relay.generation(), relay.pid());
        let wanted = self.inner().wanted.clone();
        let taken = self.inner().serving.is_some();
        match (relay.state(), wanted) {
            (RelayState::Serving, Some(wanted)) if !taken && fits(&hello, &wanted) => {
                {
                    let mut inner = self.inner.borrow_mut();
                    // A start under way is too late.
                    inner.revision += 1;
                    inner.trouble = None;
                    let ports = |own: &super::listener::Listener| wanted.ports.contains(&own.info());
                    inner.listeners = hello.listeners.into_iter().filter(ports).collect();
                    inner.serving = Some(Rc::clone(&relay));
                }
                tracing::info!(generation, pid, "control took up the relay that serves");
                self.announce_change();
                self.send_policy(&relay, hello.lists_sessions).await;
            }
            (RelayState::Serving, Some(wanted)) => {
                tracing::info!(generation, pid, "a relay of an earlier provisioning drains");
                let (same, gone) = hello
                    .listeners
                    .into_iter()
                    .partition(|own| wanted.ports.iter().any(|port| *port == own.info()));
                {
                    let mut inner = self.inner.borrow_mut();
                    if inner.listeners.is_empty() {
                        inner.listeners = same;
                    }
                }
                self.drain(Some(Rc::clone(&relay)), gone);
                self.send_policy(&relay, hello.lists_sessions).await;
            }
            (RelayState::Draining, Some(_)) => {
                tracing::info!(generation, pid, "control took up a relay that drains");
                self.inner.borrow_mut().draining.push(Rc::clone(&relay));
                self.send_policy(&relay, hello.lists_sessions).await;
                let supervisor = Rc::clone(self);
                self.surroundings.tasks.spawn(async move { supervisor.hand_over(&relay).await });
            }
            (state, wanted) => {
                tracing::info!(generation, pid, ?state, "a relay without a purpose is ended");
                if wanted.is_none() {
                    hello.listeners.iter().for_each(super::listener::Listener::close);
                }
                // A relay that goes must have let its ports go before they are bound again.
                stop_all(vec![relay]).await;
            }
        }
    }

    /// Tells a relay that was taken up the rules of now, until nothing has changed meanwhile.
    async fn send_policy(&self, relay: &Rc<Relay>, lists_sessions: bool) {
        loop {
            let Some(Wanted { policy, .. }) = self.inner().wanted.clone() else { return };
            if let Err(error) = relay.set_policy(&policy).await {
                let generation = relay.generation();
                tracing::error!(generation, %error, "a relay that was taken up does not take the policy and is ended");
                relay.stop().await;
                return;
            }
            let now = self.inner().wanted.clone();
            if now.is_none_or(|now| Rc::ptr_eq(&now.policy, &policy)) {
                break;
            }
        }
        // From the policy on it sends its records: what began and ended before was noted, and is asked for.
        relay.take_in_notes(self.runtime_dir());
        if lists_sessions && let Err(error) = relay.reconcile_sessions(SESSIONS_TIMEOUT).await {
            let generation = relay.generation();
            tracing::warn!(generation, %error, "a relay that was taken up does not say which sessions are open");
        }
    }

    /// Generations begin above every one that was ever seen.
    fn note_generation(&self, generation: u64) {
        let mut inner = self.inner.borrow_mut();
        inner.generation = inner.generation.max(generation);
    }
}

fn fits(hello: &Hello, wanted: &Wanted) -> bool {
    let held =
        |port: &ListenerInfo| hello.listeners.iter().any(|own| own.info() == *port && own.is_listening());
    hello.serves == wanted.state && hello.complete && wanted.ports.iter().all(held)
}
