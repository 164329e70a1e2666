//! A change of generation that nobody is to notice: how the relay that is replaced and the one that takes its place are brought
//! together.
//!
//! The new one lets callers in first. The old one serves those that are under way, and drains then: it lets its parks go, a few
//! at a time, and from that moment on endpoints are let in at the new one. A call that waits there for an endpoint has the old
//! one let that endpoint's parks go at once. So no call is lost between the two, and none waits longer than an endpoint takes to
//! dial again. The new one learns, too, which endpoints the old one knew, and how many sessions it still carries.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::sleep;
use zone_channel::{Query, Reply, ToRelay};

use super::channel::Relay;
use super::listener::Listener;
use super::supervise::Supervisor;

/// For a relay that drains to say what it carries.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks at how many sessions a relay that drains still carries.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// The most parts in which a relay lists its endpoints: one that goes on and on is not followed.
const MAX_PARTS: usize = 100;

impl Supervisor {
    /// Has a relay drain, and the one that serves let endpoints in once it does. Ports that nobody serves any more are closed.
    pub(super) fn drain(self: &Rc<Self>, relay: Option<Rc<Relay>>, closing: Vec<Listener>) {
        let supervisor = Rc::clone(self);
        let Some(relay) = relay else {
            self.surroundings.tasks.spawn(async move { supervisor.let_endpoints_in().await });
            return;
        };
        self.inner.borrow_mut().draining.push(Rc::clone(&relay));
        self.surroundings.tasks.spawn(async move {
            let drained = relay.drain().await;
            supervisor.let_endpoints_in().await;
            if let Err(error) = drained {
                let generation = relay.generation();
                tracing::warn!(generation, %error, "the replaced relay does not drain and is ended");
                relay.stop().await;
            }
            for listener in closing {
                listener.close();
            }
            supervisor.hand_over(&relay).await;
        });
    }

    /// Brings a relay that drains together with the one that serves, until it is gone.
    pub(super) async fn hand_over(&self, relay: &Relay) {
        if relay.hands_over() {
            tokio::select! {
                _ = relay.ended() => {}
                () = self.tell_known(relay) => {}
            }
            tokio::select! {
                _ = relay.ended() => {}
                () = self.release_wanted(relay) => {}
                () = self.count_sessions(relay) => {}
            }
        } else {
            tokio::select! {
                _ = relay.ended() => {}
                () = self.count_sessions(relay) => {}
            }
        }
        relay.carries.set(0);
        self.tell_elsewhere().await;
    }

    /// Has the relay that serves wait for the endpoints that were at this one, as if they had been there.
    async fn tell_known(&self, relay: &Relay) {
        let zone = relay.zone.borrow().clone();
        // Nobody of another zone may learn who was here.
        if self.inner().serving.as_ref().is_none_or(|serving| *serving.zone.borrow() != zone) {
            return;
        }
        let mut after = String::new();
        for _ in 0..MAX_PARTS {
            let asked = relay.ask(Query::Endpoints { after }, ANSWER_TIMEOUT).await;
            let Ok(Reply::Endpoints { endpoints, next }) = asked else { return };
            self.tell_serving(ToRelay::Expect { endpoints }).await;
            let Some(next) = next else { return };
            after = next;
        }
    }

    /// Has a relay let endpoints go as soon as calls wait for them at the one that serves.
    async fn release_wanted(&self, relay: &Relay) {
        let mut changes = self.changes();
        loop {
            let serving = self.inner().serving.clone();
            let released = async {
                match serving {
                    Some(serving) => release_all(relay, &serving).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The sender lives as long as this.
                _ = changes.changed() => {}
                () = released => std::future::pending().await,
            }
        }
    }

    /// Has the sessions of a relay count at the one that serves, for as long as they last.
    async fn count_sessions(&self, relay: &Relay) {
        loop {
            if let Ok(Reply::Counts(counts)) = relay.ask(Query::Counts, ANSWER_TIMEOUT).await {
                relay.carries.set(usize::try_from(counts.sessions).unwrap_or(usize::MAX));
                self.tell_elsewhere().await;
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    async fn tell_elsewhere(&self) {
        let sessions = {
            let inner = self.inner();
            inner.draining.iter().fold(0, |sum: usize, relay| sum.saturating_add(relay.carries.get()))
        };
        self.tell_serving(ToRelay::Elsewhere { sessions }).await;
    }

    /// One that is not told lets endpoints in by itself, a little later.
    async fn let_endpoints_in(&self) {
        self.tell_serving(ToRelay::AcceptEndpoints).await;
    }

    async fn tell_serving(&self, message: ToRelay) {
        let serving = self.inner().serving.clone();
        if let Some(serving) = serving
            && serving.hands_over()
        {
            // One that is gone need not know it.
            serving.tell(message).await;
        }
    }
}

/// Tells one relay all that the other one wants; ends when that can't be told any more.
async fn release_all(relay: &Relay, serving: &Relay) {
    let (mut wanted, mut told) = (serving.wanted(), 0);
    while let Ok(all) = wanted.wait_for(|all| all.len() > told).await {
        let endpoints = all[told..].to_vec();
        drop(all);
        told += endpoints.len();
        if !relay.tell(ToRelay::Release { endpoints }).await {
            return;
        }
    }
}
