//! What 17488 shows and whom it lets in, by the state that is in force.

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
const PORT: &str = "control";

/// The TLS side of 17488.
#[derive(Debug)]
pub struct Face {
    /// For new connections.
    pub config: Arc<ServerConfig>,
    /// Who may ask; `None` before provisioning.
    pub admission: Option<Arc<Admission>>,
    /// Grows with every change of the state: connections of an earlier one close after their answer.
    pub epoch: u64,
}

impl Face {
    /// For a state.
    ///
    /// While a token is outstanding both leaves are shown, so that its holder can check the pin, and nothing
    /// is resumed, so that every proof is bound to a handshake of its own.
    pub fn new(
        state: &State,
        tickets: &TicketKeys,
        versions: Versions,
        epoch: u64,
    ) -> Result<Self, TlsError> {
        let leaves = leaves(&state.identity, versions)?;
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
            let tickets = PortTickets::new(PORT, tickets).map(|tickets| Arc::new(tickets) as _);
            server(leaves, Some(Arc::clone(&admission) as _), tickets, versions)?
        };
        Ok(Self { config, admission: Some(admission), epoch })
    }
}

/// Leaves that rustls can show.
pub fn leaves(identity: &Identity, versions: Versions) -> Result<Leaves, TlsError> {
    let Identity { rsa, ec } = identity;
    Leaves::from_pem((&rsa.chain, &rsa.key), (&ec.chain, &ec.key), &versions.provider())
}

/// The versions that the configuration allows.
pub fn versions(tls13: bool) -> Versions {
    if tls13 { Versions::Tls12And13 } else { Versions::Tls12 }
}

/// The session ticket keys of every port, 17488's own and those of the relays.
#[derive(Debug, Clone)]
pub struct Tickets {
    /// For 17488.
    pub control: TicketKeys,
    /// For the relay ports.
    pub relay: PerPort<TicketKeys>,
}

impl Tickets {
    /// Fresh ones: no earlier ticket opens. `None` where the system has no randomness to give.
    pub fn generate() -> Option<Self> {
        Some(Self {
            control: TicketKeys::generate()?,
            relay: PerPort { endpoint: TicketKeys::generate()?, module_server: TicketKeys::generate()? },
        })
    }

    /// The next ones: tickets of the last rotation still open.
    pub fn rotated(&self) -> Option<Self> {
        Some(Self {
            control: self.control.rotated()?,
            relay: PerPort {
                endpoint: self.relay.endpoint.rotated()?,
                module_server: self.relay.module_server.rotated()?,
            },
        })
    }
}
