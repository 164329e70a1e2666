//! Leaving the zone: new bootstrap keys, a new token, no relay and no relay port.

use std::rc::Rc;

use super::change::{Actor, Change};
use super::error::{ChangeError, StepError};
use crate::bootstrap::first_state;
use crate::daemon::Daemon;
use crate::keys;
use crate::tls::PortTicketKeys;

impl Daemon {
    /// Leaves the zone. Sessions end, and both relay ports close before this returns. A relay that does not end by
    /// itself is killed; whether or not it can be, the proxy is out of its zone.
    pub(crate) async fn unprovision(self: &Rc<Self>, actor: Actor) -> Result<(), ChangeError> {
        self.change("unprovision", actor, async move |daemon| {
            let before = daemon.state();
            let config = daemon.config();
            let now = daemon.time.wall();
            let identity = daemon.keys.make(move || keys::bootstrap(now)).await?;
            let next = first_state(identity, &config, &daemon.time).map_err(StepError::from)?;
            let tickets = PortTicketKeys::generate().map_err(StepError::from)?;
            daemon.store.replace(&next).map_err(StepError::from)?.commit();
            daemon.offer.close();
            let change = Change::between(&before, &next);
            daemon.enter(next, Some(tickets));
            // Nothing that the firewall does keeps a proxy in its zone: what failed is tried again afterwards.
            let asking = daemon.firewall.lock().await;
            if let Err(error) = daemon.firewall.set(Vec::new()).await {
                tracing::error!(%error, "the firewall still lets the relay's ports through");
                daemon.firewall.request_check();
            }
            let released = daemon.supervisor.release().await;
            drop(asking);
            released?;
            Ok(((), change))
        })
        .await
    }
}
