//! Leaving the zone: new bootstrap keys, a new token, no relay and no relay port.

use std::rc::Rc;

use zone_protocol::problem::Problem;

use super::{Actor, Change, Failure, Step, change};
use crate::daemon::Daemon;

impl Daemon {
    /// Leaves the zone. Sessions end, and both relay ports close before this returns.
    pub async fn unprovision(self: &Rc<Self>, actor: Actor) -> Result<(), Problem> {
        change(self, "unprovision", actor, async move |daemon| -> Result<_, Failure> {
            let before = daemon.state();
            let next = daemon.first_state().map_err(|why| Failure::new(Step::Validate, why))?;
            let tickets = Daemon::fresh_tickets().map_err(|why| Failure::new(Step::Validate, why))?;
            daemon.store.replace(&next)?.commit();
            daemon.offer.take();
            let change = Change::between(&before, &next);
            // Nothing that the firewall does keeps a proxy in its zone: what failed is tried again afterwards.
            let turn = daemon.firewall.turn().await;
            if let Err(error) = daemon.firewall.set(Vec::new()).await {
                tracing::error!(%error, "the firewall still lets the relay's ports through");
                daemon.firewall.poke();
            }
            daemon.supervisor.release().await;
            daemon.enter(next, Some(tickets));
            drop(turn);
            Ok(((), change))
        })
        .await
    }
}
