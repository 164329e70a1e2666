//! Leaving the zone: new bootstrap keys, a new token, no relay and no relay port.

use std::rc::Rc;

use zone_protocol::problem::Problem;

use super::{Actor, Change, Failure, Step, change};
use crate::daemon::Daemon;
use crate::state::State;

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
            daemon.firewall_closes(&before);
            daemon.supervisor.release().await;
            daemon.enter(next, Some(tickets));
            Ok(((), change))
        })
        .await
    }

    fn firewall_closes(&self, before: &State) {
        if let Some(membership) = &before.membership {
            let ports = &membership.document.ports;
            self.firewall.close(&[ports.endpoint, ports.module_server]);
        }
    }
}
