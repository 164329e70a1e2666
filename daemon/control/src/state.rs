//! The durable state: who the proxy is, whom it trusts, and whether a token is outstanding.

pub mod clock;
mod error;
mod files;
mod store;
mod token;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use zone_channel::Identity;
use zone_protocol::provisioning::Provisioning;
use zone_protocol::tls::TlsError;
use zone_protocol::tls::certificate::{chain_from_pem, facts, spki};

pub use error::StateError;
pub use store::{Store, Switch};
pub use token::IssuedToken;

/// One state, whole. It is never changed in place: the next one replaces it.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// The keys that 17488 shows: bootstrap keys, or those of the zone.
    pub identity: Identity,
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

    /// The pin of the keys that are shown.
    pub fn pin(&self) -> Result<[u8; 32], TlsError> {
        pin(&self.identity)
    }

    /// When the first of a member's certificates runs out; bootstrap certificates don't count.
    pub fn certificate_expiry(&self) -> Option<OffsetDateTime> {
        self.membership.as_ref()?;
        [&self.identity.rsa.chain, &self.identity.ec.chain]
            .into_iter()
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
