//! The provisioning: validate, bind, relay, store state, firewall, accept.

use std::net::SocketAddr;
use std::rc::Rc;

use zone_channel::{ListenerInfo, Policy};
use zone_firewall_protocol::PortRule;
use zone_protocol::identity::Role;
use zone_protocol::problem::Problem;
use zone_protocol::provisioning::{Provisioned, Provisioning};

use super::offer::Purpose;
use super::{Actor, Change, Failure, Step, change, validate};
use crate::daemon::Daemon;
use crate::firewall::both;
use crate::relay::{BindError, Listener, Relay, Wanted};
use crate::server::problems;
use crate::state::State;

impl Daemon {
    /// Completes an offer. Afterwards the proxy belongs to the zone, its token is burned and its ports accept;
    /// or nothing has changed.
    pub async fn provision(
        self: &Rc<Self>,
        id: String,
        document: Provisioning,
        actor: Actor,
    ) -> Result<Provisioned, Problem> {
        change(self, "provision", actor, async move |daemon| {
            let offer = daemon.offer_of(&id)?;
            let Purpose::Provisioning(zone) = &offer.purpose else {
                return Err(problems::offer_unknown(&id));
            };
            let before = daemon.state();
            let next = validate::provisioning(
                &daemon.config(),
                &before,
                (&id, zone, &offer.keys),
                document,
                daemon.time.wall(),
            )?;
            daemon.become_member(&before, next).await?;
            daemon.offer.take();
            let provisioned = daemon.provisioned().ok_or_else(problems::not_provisioned)?;
            Ok((provisioned, Change::between(&before, &daemon.state())))
        })
        .await
    }

    async fn become_member(self: &Rc<Self>, before: &State, next: State) -> Result<(), Failure> {
        let config = self.config();
        let tickets = Daemon::fresh_tickets().map_err(|why| Failure::new(Step::Validate, why))?;
        let Some(policy) = Daemon::policy(&config, &next, &tickets) else {
            return Err(Failure::invalid("it makes no member of a zone"));
        };
        let Some(membership) = &next.membership else {
            return Err(Failure::invalid("it makes no member of a zone"));
        };
        let (id, ports) = (membership.id.clone(), ports(&membership.document));

        let listeners = self.bind(&ports)?;
        let fresh: Vec<_> = listeners.iter().filter(|own| !own.is_listening()).map(Listener::info).collect();
        let relay = self.supervisor.launch(&id, &listeners, &policy).await?;
        let switch = match self.store.replace(&next) {
            Ok(switch) => switch,
            Err(error) => {
                relay.stop().await;
                return Err(error.into());
            }
        };
        // Nobody else changes the firewall until this state is in force, or the old one is again.
        let turn = self.firewall.turn().await;
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
                    Failure { why: format!("{}; and it can't be undone: {error}", failure.why), ..failure }
                }
            });
        }
        switch.commit();
        self.enter(next, Some(tickets));
        self.supervisor.promote(&relay, Wanted { state: id, ports, policy: Rc::new(policy) }, listeners);
        if !self.firewall.has(&new_rules)
            && let Err(error) = self.firewall.set(new_rules).await
        {
            tracing::error!(%error, "the firewall still lets earlier ports through");
            self.firewall.poke();
        }
        drop(turn);
        Ok(())
    }

    /// Has the firewall as it was before a provisioning that failed at this step.
    async fn close_again(&self, failed: Step, old_rules: Vec<PortRule>) {
        if failed < Step::Firewall {
            return;
        }
        if let Err(error) = self.firewall.set(old_rules).await {
            tracing::error!(%error, "the firewall may let ports through that are not served");
            self.firewall.poke();
        }
    }

    fn bind(&self, ports: &[ListenerInfo]) -> Result<Vec<Listener>, Failure> {
        ports
            .iter()
            .map(|port| self.supervisor.held(*port).unwrap_or_else(|| Listener::bind(*port)))
            .collect::<Result<_, BindError>>()
            .map_err(|error| {
                Failure::new(Step::Bind, error).help(
                    "choose another port or address, or free it; a change between a wildcard and one address \
                     of the same port takes an un-provisioning",
                )
            })
    }

    /// The kernel completes handshakes before the firewall is asked, which opens no port that nobody listens on;
    /// the relay accepts last.
    async fn open(&self, listeners: &[Listener], rules: Vec<PortRule>, relay: &Relay) -> Result<(), Failure> {
        for listener in listeners {
            listener.listen().map_err(|error| Failure::new(Step::Bind, error))?;
        }
        self.firewall.set(rules).await?;
        relay.activate().await.map_err(|error| Failure::new(Step::Accept, error))
    }

    /// What the relays are to serve under a state; `None` before provisioning.
    pub fn wanted(&self, state: &State) -> Option<Wanted> {
        let membership = state.membership.as_ref()?;
        let policy: Policy = Self::policy(&self.config(), state, &self.tickets.borrow())?;
        Some(Wanted {
            state: membership.id.clone(),
            ports: ports(&membership.document),
            policy: Rc::new(policy),
        })
    }
}

/// Every address of both relay ports.
fn ports(document: &Provisioning) -> Vec<ListenerInfo> {
    let of = |role: Role| {
        let addresses = document.listen.of(role).into_iter().flatten();
        let port = document.ports.of(role).copied().unwrap_or_default();
        addresses.map(move |ip| ListenerInfo { role, address: SocketAddr::new(*ip, port) })
    };
    of(Role::Endpoint).chain(of(Role::ModuleServer)).collect()
}
