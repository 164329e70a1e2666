//! A change of generation that nobody is to notice: how the relay that is replaced and the one that takes its place are brought
//! together.
//!
//! The new one lets callers in first. The old one serves those that are under way, and drains then: it lets its parks go, a few
//! at a time, and from that moment on endpoints are let in at the new one. A call that waits there for an endpoint has the old
//! one let that endpoint's parks go at once. So no call is lost between the two, and none waits longer than an endpoint takes to
//! dial again.

use std::rc::Rc;

use zone_protocol::identity::Label;

use super::channel::Relay;
use super::listener::Listener;
use super::supervise::Supervisor;

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
            supervisor.release_wanted(&relay).await;
        });
    }

    /// Has a relay that drains let endpoints go as soon as calls wait for them at the one that serves, until it is gone.
    pub(super) async fn release_wanted(&self, relay: &Relay) {
        if !relay.hands_over() {
            return;
        }
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
                _ = relay.ended() => return,
                changed = changes.changed() => if changed.is_err() { return },
                () = released => return,
            }
        }
    }

    async fn let_endpoints_in(&self) {
        let serving = self.inner().serving.clone();
        if let Some(serving) = serving {
            serving.accept_endpoints().await;
        }
    }
}

/// Tells one relay all that the other one wants; ends when that can't be told any more.
async fn release_all(relay: &Relay, serving: &Relay) {
    let (mut wanted, mut told) = (serving.wanted(), 0);
    while let Ok(endpoints) = wanted.wait_for(|endpoints| endpoints.len() > told).await {
        let next: Vec<Label> = endpoints[told..].to_vec();
        drop(endpoints);
        told += next.len();
        if !relay.release(next).await {
            return;
        }
    }
}
