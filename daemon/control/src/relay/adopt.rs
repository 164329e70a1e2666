//! Taking up relays that outlived the control before this one.

use std::fs;
use std::rc::Rc;

use zone_channel::{ListenerInfo, RelayState};

use super::channel::{Hello, Relay};
use super::rendezvous;
use super::supervise::{Supervisor, Wanted, stop_all};

/// A relay found at its rendezvous.
struct Found {
    relay: Rc<Relay>,
    hello: Hello,
}

impl Supervisor {
    /// Starts with what an earlier control left: the relay that serves what is wanted goes on serving, those
    /// that drain go on draining, and the rest is ended. Where nothing serves afterwards, a relay is started.
    pub(crate) async fn begin(self: &Rc<Self>, wanted: Option<Wanted>) {
        let found = self.find().await;
        self.inner.borrow_mut().wanted = wanted;
        let mut purposeless = Vec::new();
        for found in found {
            self.watch(&found.relay);
            self.take_up(found, &mut purposeless).await;
        }
        // A relay that goes must have let its ports go before they are bound again.
        stop_all(purposeless).await;
        let inner = self.inner();
        match &inner.serving {
            None if inner.wanted.is_some() => self.ensure_one_serves(),
            Some(serving) => self.renew_if_older(serving, inner.revision),
            None => {}
        }
    }

    async fn take_up(self: &Rc<Self>, found: Found, purposeless: &mut Vec<Rc<Relay>>) {
        let Found { relay, hello } = found;
        let (generation, pid) = (relay.generation(), relay.pid);
        let wanted = self.inner().wanted.clone();
        let taken = self.inner().serving.is_some();
        match (relay.state(), wanted) {
            (RelayState::Serving, Some(wanted)) if !taken && fits(&hello, &wanted) => {
                {
                    let mut inner = self.inner.borrow_mut();
                    inner.listeners = hello.listeners;
                    inner.serving = Some(Rc::clone(&relay));
                }
                tracing::info!(generation, pid, "control took up the relay that serves");
                self.announce_change();
                self.send_policy(&relay, &wanted).await;
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
                self.drain(Some(relay), gone);
            }
            (RelayState::Draining, Some(wanted)) => {
                tracing::info!(generation, pid, "control took up a relay that drains");
                self.inner.borrow_mut().draining.push(Rc::clone(&relay));
                self.send_policy(&relay, &wanted).await;
            }
            (state, wanted) => {
                tracing::info!(generation, pid, ?state, "a relay without a purpose is ended");
                if wanted.is_none() {
                    hello.listeners.iter().for_each(super::listener::Listener::close);
                }
                purposeless.push(relay);
            }
        }
    }

    async fn send_policy(&self, relay: &Rc<Relay>, wanted: &Wanted) {
        if let Err(error) = relay.set_policy(&wanted.policy).await {
            let generation = relay.generation();
            tracing::error!(generation, %error, "a relay that was taken up does not take the policy and is ended");
            relay.stop().await;
        }
    }

    /// Every relay that answers at a rendezvous in the runtime directory, the newest first.
    async fn find(&self) -> Vec<Found> {
        let mut found = Vec::new();
        for (generation, path) in rendezvous::all_below(self.runtime_dir()) {
            self.note_generation(generation);
            match rendezvous::connect(&path).await {
                Ok(Some((relay, hello))) => {
                    self.note_generation(hello.generation);
                    found.push(Found { relay, hello });
                }
                Ok(None) => {
                    let _ = fs::remove_file(&path);
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a relay can't be taken up");
                }
            }
        }
        found.sort_by_key(|found| std::cmp::Reverse(found.hello.generation));
        found
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
