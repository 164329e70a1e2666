//! The provisioning: validate, bind, relay, store state, firewall, accept.

use std::net::SocketAddr;
use std::rc::Rc;

use zone_channel::{ListenerInfo, Policy};
use zone_protocol::identity::Role;
use zone_protocol::problem::Problem;
use zone_protocol::provisioning::{Provisioned, Provisioning};

use super::offer::Purpose;
use super::{Actor, Change, Failure, Step, change, validate};
use crate::daemon::Daemon;
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
        if let Err(failure) = self.open(&listeners, &relay).await {
            relay.stop().await;
            for listener in listeners.iter().filter(|own| fresh.contains(&own.info())) {
                listener.close();
            }
            self.firewall.close(&numbers(&fresh));
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
        let gone = ports_gone(before, &ports);
        self.firewall.close(&numbers(&gone));
        self.supervisor.promote(&relay, Wanted { state: id, ports, policy: Rc::new(policy) }, listeners);
        Ok(())
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

    async fn open(&self, listeners: &[Listener], relay: &Relay) -> Result<(), Failure> {
        let infos: Vec<_> = listeners.iter().map(Listener::info).collect();
        self.firewall.open(&numbers(&infos)).map_err(|why| Failure::new(Step::Firewall, why))?;
        for listener in listeners {
            listener.listen().map_err(|error| Failure::new(Step::Accept, error))?;
        }
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

fn ports_gone(before: &State, now: &[ListenerInfo]) -> Vec<ListenerInfo> {
    let before = before.membership.as_ref().map(|own| ports(&own.document)).unwrap_or_default();
    before.into_iter().filter(|port| !now.contains(port)).collect()
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

fn numbers(ports: &[ListenerInfo]) -> Vec<u16> {
    ports.iter().map(|port| port.address.port()).collect()
}
