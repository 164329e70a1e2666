//! The durable state: who the proxy is, whom it trusts, and whether a token is outstanding.

pub mod clock;
mod error;
mod files;
mod store;
mod token;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use zone_channel::Identity;
use zone_protocol::identity::{Identity as SpiffeId, Role};
use zone_protocol::provisioning::Provisioning;
use zone_protocol::tls::TlsError;
use zone_protocol::tls::certificate::{chain_from_pem, facts, spki};

pub use error::StateError;
pub use store::{Store, Switch};
pub use token::IssuedToken;

/// One state, whole. It is never changed in place: the next one replaces it.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// The keys that the relays show: bootstrap keys, or those of the zone. 17488 shows them where it has none of its own.
    pub identity: Identity,
    /// The keys that 17488 shows and no relay is given; `None` before provisioning, and where the Module Server that
    /// provisioned the proxy does not know of them.
    pub control_identity: Option<Identity>,
    /// What makes the proxy a member of a zone; `None` before provisioning.
    pub membership: Option<Membership>,
    /// The token that may be used now.
    pub token: Option<IssuedToken>,
}

/// A completed provisioning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// Of the offer that was completed.
    pub id: String,
    /// As it was sent, with the trust document in force and without certificates.
    pub document: Provisioning,
}

impl State {
    /// `unprovisioned` or `provisioned`, as status and logs have it.
    pub fn kind(&self) -> &'static str {
        if self.membership.is_some() { "provisioned" } else { "unprovisioned" }
    }

    /// The keys that 17488 shows.
    pub fn shown(&self) -> &Identity {
        self.control_identity.as_ref().unwrap_or(&self.identity)
    }

    /// Whom the keys that 17488 shows belong to; `None` before provisioning.
    pub fn shown_as(&self) -> Option<SpiffeId> {
        let Provisioning { zone, name, .. } = &self.membership.as_ref()?.document;
        let role = if self.control_identity.is_some() { Role::ZoneControl } else { Role::ZoneProxy };
        Some(SpiffeId { zone: zone.clone(), role, name: name.clone() })
    }

    /// The pin of the keys that 17488 shows.
    pub fn pin(&self) -> Result<[u8; 32], TlsError> {
        pin(self.shown())
    }

    /// When the first of a member's certificates runs out; bootstrap certificates don't count.
    pub fn certificate_expiry(&self) -> Option<OffsetDateTime> {
        self.membership.as_ref()?;
        [Some(&self.identity), self.control_identity.as_ref()]
            .into_iter()
            .flatten()
            .flat_map(|identity| [&identity.rsa.chain, &identity.ec.chain])
            .filter_map(|chain| {
                let chain = chain_from_pem(chain, "certificate").ok()?;
                Some(facts(chain.first()?, "certificate").ok()?.not_after)
            })
            .min()
    }

    /// The same without its token.
    #[must_use]
    pub fn without_token(&self) -> Self {
        Self { token: None, ..self.clone() }
    }
}

/// The pin of a pair of leaves, see [`zone_protocol::token::pin`].
pub fn pin(identity: &Identity) -> Result<[u8; 32], TlsError> {
    let key_of = |chain: &str, what: &str| -> Result<Vec<u8>, TlsError> {
        let chain = chain_from_pem(chain, what)?;
        chain.first().map_or_else(|| Ok(Vec::new()), |leaf| spki(leaf))
    };
    let rsa = key_of(&identity.rsa.chain, "RSA certificate")?;
    let ec = key_of(&identity.ec.chain, "P-256 certificate")?;
    Ok(zone_protocol::token::pin(&rsa, &ec))
}
