//! TLS on port 17488: what it shows and whom it lets in, by the state that is in force.

use std::sync::Arc;

use rustls::ServerConfig;
use zone_channel::Identity;
use zone_protocol::identity::Role;
use zone_protocol::provisioning::PerPort;
use zone_protocol::tls::TlsError;
use zone_protocol::tls::config::{Leaves, server};
use zone_protocol::tls::policy::Versions;
use zone_protocol::tls::tickets::{PortTickets, TicketKeys};
use zone_protocol::tls::verifier::Admission;

use crate::state::State;

/// The name that is authenticated with 17488's tickets.
const TICKET_PORT: &str = "control";

/// What a handshake on 17488 goes by. A change of the state makes a new one.
#[derive(Debug)]
pub(crate) struct TlsContext {
    /// For new connections.
    pub(crate) config: Arc<ServerConfig>,
    /// Who may ask; `None` before provisioning.
    pub(crate) admission: Option<Arc<Admission>>,
    /// Grows with every change of the state: connections of an earlier one close after their answer.
    pub(crate) epoch: u64,
}

impl TlsContext {
    /// For a state.
    ///
    /// It shows the keys that no relay is given, where the state has some.
    /// While a token is outstanding both leaves are shown, so that its holder can check the pin, and nothing
    /// is resumed, so that every proof is bound to a handshake of its own.
    pub(crate) fn new(
        state: &State,
        tickets: &TicketKeys,
        versions: Versions,
        epoch: u64,
    ) -> Result<Self, TlsError> {
        let leaves = leaves(state.shown(), versions)?;
        let Some(membership) = &state.membership else {
            let config = server(leaves.showing_both(), None, None, versions)?;
            return Ok(Self { config, admission: None, epoch });
        };
        let by_token = state.token.is_some();
        let document = &membership.document;
        let admission =
            Admission::new(document.zone.clone(), Role::ModuleServer, &document.trust, !by_token, versions)?;
        let config = if by_token {
            server(leaves.showing_both(), Some(Arc::clone(&admission) as _), None, versions)?
        } else {
            let tickets = PortTickets::new(TICKET_PORT, tickets).map(|tickets| Arc::new(tickets) as _);
            server(leaves, Some(Arc::clone(&admission) as _), tickets, versions)?
        };
        Ok(Self { config, admission: Some(admission), epoch })
    }
}

/// Leaves that rustls can show.
pub(crate) fn leaves(identity: &Identity, versions: Versions) -> Result<Leaves, TlsError> {
    let Identity { rsa, ec } = identity;
    Leaves::from_pem((&rsa.chain, &rsa.key), (&ec.chain, &ec.key), &versions.provider())
}

/// The versions that the configuration allows.
pub(crate) fn versions(tls13: bool) -> Versions {
    if tls13 { Versions::Tls12And13 } else { Versions::Tls12 }
}

/// The system has no randomness to give, so that no key or token can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system has no randomness to give")]
pub struct NoRandomness;

/// The session ticket keys of every port, 17488's own and those of the relays.
#[derive(Debug, Clone)]
pub(crate) struct PortTicketKeys {
    /// For 17488.
    pub(crate) control: TicketKeys,
    /// For the relay ports.
    pub(crate) relay: PerPort<TicketKeys>,
}

impl PortTicketKeys {
    /// Fresh ones: no earlier ticket opens.
    pub(crate) fn generate() -> Result<Self, NoRandomness> {
        let key = || TicketKeys::generate().ok_or(NoRandomness);
        Ok(Self { control: key()?, relay: PerPort { endpoint: key()?, module_server: key()? } })
    }

    /// The next ones: tickets of the last rotation still open.
    pub(crate) fn rotated(&self) -> Result<Self, NoRandomness> {
        let next = |keys: &TicketKeys| keys.rotated().ok_or(NoRandomness);
        Ok(Self {
            control: next(&self.control)?,
            relay: PerPort {
                endpoint: next(&self.relay.endpoint)?,
                module_server: next(&self.relay.module_server)?,
            },
        })
    }
}
