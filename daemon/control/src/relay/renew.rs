//! An upgrade: a relay of the present build takes the place of one that an earlier package started.
//!
//! The new one gets the same listening sockets, accepts, and then the old one drains: it lets its parks go and
//! keeps its sessions to their end. A new one that fails leaves the old one accepting.

use std::rc::Rc;

use super::channel::Relay;
use super::error::RelayError;
use super::supervise::Supervisor;

impl Supervisor {
    /// Begins the replacement, where a relay that was taken up is of another build than would be started now.
    pub(super) fn renew_if_older(self: &Rc<Self>, serving: &Relay, revision: u64) {
        let Some(build) = self.starter.build() else { return };
        if build == serving.build {
            return;
        }
        let (generation, supervisor) = (serving.generation(), Rc::clone(self));
        tracing::info!(
            generation,
            from = serving.build,
            to = build,
            "the relay is of another build: it is replaced"
        );
        self.surroundings.tasks.spawn(async move {
            if let Err(error) = supervisor.renew(revision).await {
                tracing::error!(generation, %error, "the relay can't be replaced, and the earlier build goes on");
            }
        });
    }

    async fn renew(self: &Rc<Self>, revision: u64) -> Result<(), RelayError> {
        let Some(wanted) = self.still_wanted(revision) else { return Ok(()) };
        let listeners = self.listeners();
        let relay = self.launch(&wanted.state, &listeners, &wanted.policy).await?;
        if let Err(error) = relay.activate().await {
            relay.stop().await;
            return Err(error);
        }
        let mut policy = wanted.policy;
        // What changed while it began to accept is told until nothing has.
        loop {
            match self.still_wanted(revision) {
                Some(now) if Rc::ptr_eq(&now.policy, &policy) => {
                    self.promote(&relay, now, listeners);
                    return Ok(());
                }
                Some(now) => {
                    if let Err(error) = relay.set_policy(&now.policy).await {
                        relay.stop().await;
                        return Err(error);
                    }
                    policy = now.policy;
                }
                // Something newer took its place.
                None => {
                    self.drain(Some(relay), Vec::new());
                    return Ok(());
                }
            }
        }
    }
}
