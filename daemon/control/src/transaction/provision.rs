//! The provisioning: validate, bind, relay, store state, firewall, accept.

use std::rc::Rc;

use zone_channel::ListenerInfo;
use zone_firewall_protocol::PortRule;
use zone_protocol::provisioning::{Provisioned, Provisioning};

use super::change::{Actor, Change};
use super::error::{ChangeError, Step, StepError};
use super::validate;
use crate::daemon::Daemon;
use crate::firewall::both;
use crate::offer::Purpose;
use crate::policy;
use crate::relay::{BindError, Listener, Relay};
use crate::state::State;
use crate::tls::PortTicketKeys;

impl Daemon {
    /// Completes an offer. Afterwards the proxy belongs to the zone, its token is burned and its ports accept;
    /// or nothing has changed.
    pub(crate) async fn provision(
        self: &Rc<Self>,
        id: String,
        document: Provisioning,
        actor: Actor,
    ) -> Result<Provisioned, ChangeError> {
        self.change("provision", actor, async move |daemon| {
            let offer = daemon.offer_of(&id)?;
            let Purpose::Provisioning(zone) = &offer.purpose else {
                return Err(ChangeError::OfferUnknown(id));
            };
            let before = daemon.state();
            let next = validate::provisioning(
                &daemon.config(),
                &before,
                (zone, &offer),
                document,
                daemon.time.wall(),
            )?;
            daemon.become_member(&before, next).await?;
            daemon.offer.close();
            let provisioned = daemon.provisioned().ok_or(ChangeError::NotProvisioned)?;
            Ok((provisioned, Change::between(&before, &daemon.state())))
        })
        .await
    }

    async fn become_member(self: &Rc<Self>, before: &State, next: State) -> Result<(), StepError> {
        let tickets = PortTicketKeys::generate()?;
        let Some(wanted) = policy::wanted(&self.config(), &next, &tickets) else {
            return Err(StepError::invalid("it makes no member of a zone"));
        };

        let listeners = self.bind(&wanted.ports)?;
        let fresh: Vec<_> = listeners.iter().filter(|own| !own.is_listening()).map(Listener::info).collect();
        let relay = self.supervisor.launch(&wanted.state, &listeners, &wanted.policy).await?;
        let switch = match self.store.replace(&next) {
            Ok(switch) => switch,
            Err(error) => {
                relay.stop().await;
                return Err(error.into());
            }
        };
        // Nobody else changes the firewall until this state is in force, or the old one is again.
        let asking = self.firewall.lock().await;
        let (old_rules, new_rules) = (self.port_rules(before), self.port_rules(&next));
        if let Err(failure) = self.open(&listeners, both(&old_rules, &new_rules), &relay).await {
            relay.stop().await;
            for listener in listeners.iter().filter(|own| fresh.contains(&own.info())) {
                listener.close();
            }
            self.close_again(failure.step, old_rules).await;
            return Err(match switch.undo() {
                Ok(()) => failure,
                Err(error) => {
                    tracing::error!(%error, "the new state can't be undone: the next start takes it up");
                    StepError { why: format!("{}; and it can't be undone: {error}", failure.why), ..failure }
                }
            });
        }
        switch.commit();
        self.enter(next, Some(tickets));
        self.supervisor.promote(&relay, wanted, listeners);
        if !self.firewall.has(&new_rules)
            && let Err(error) = self.firewall.set(new_rules).await
        {
            tracing::error!(%error, "the firewall still lets earlier ports through");
            self.firewall.request_check();
        }
        drop(asking);
        Ok(())
    }

    /// Has the firewall as it was before a provisioning that failed at this step.
    async fn close_again(&self, failed: Step, old_rules: Vec<PortRule>) {
        if failed < Step::Firewall {
            return;
        }
        if let Err(error) = self.firewall.set(old_rules).await {
            tracing::error!(%error, "the firewall may let ports through that are not served");
            self.firewall.request_check();
        }
    }

    fn bind(&self, ports: &[ListenerInfo]) -> Result<Vec<Listener>, StepError> {
        ports
            .iter()
            .map(|port| self.supervisor.held(*port).unwrap_or_else(|| Listener::bind(*port)))
            .collect::<Result<_, BindError>>()
            .map_err(|error| {
                StepError::new(Step::Bind, error).help(
                    "choose another port or address, or free it; a change between a wildcard and one address \
                     of the same port takes an un-provisioning",
                )
            })
    }

    /// The kernel completes handshakes before the firewall is asked, which opens no port that nobody listens on;
    /// the relay accepts last.
    async fn open(
        &self,
        listeners: &[Listener],
        rules: Vec<PortRule>,
        relay: &Relay,
    ) -> Result<(), StepError> {
        for listener in listeners {
            listener.listen().map_err(|error| StepError::new(Step::Bind, error))?;
        }
        self.firewall.set(rules).await?;
        relay.activate().await.map_err(|error| StepError::new(Step::Accept, error))
    }
}
