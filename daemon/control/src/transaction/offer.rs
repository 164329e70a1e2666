//! Offers: keys that wait for their certificates.

use std::rc::Rc;
use std::time::Duration;

use uuid::Uuid;
use zone_protocol::identity::Label;
use zone_protocol::problem::Problem;
use zone_protocol::provisioning::{HostFacts, Offer};
use zone_settings::seconds;

use crate::daemon::Daemon;
use crate::keys::OfferedKeys;
use crate::server::problems;
use crate::status;

/// What an offer is to be completed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// A provisioning into this zone.
    Provisioning(Label),
    /// New certificates for a member of its zone.
    Identity,
}

/// The one offer that is open. A newer one replaces it.
#[derive(Debug)]
pub struct OpenOffer {
    /// Names it.
    pub id: String,
    /// What for.
    pub purpose: Purpose,
    /// Its keys; they leave memory only with the state that they become part of.
    pub keys: OfferedKeys,
    /// By the clock since boot.
    lapses: Duration,
}

impl Daemon {
    /// Makes keys and offers them to be signed.
    pub fn open_offer(&self, purpose: Purpose) -> Result<Offer, Problem> {
        let good_for = seconds(self.config().timeouts.offer);
        let host = status::host();
        let keys = OfferedKeys::generate().map_err(problems::internal)?;
        let signing_requests = keys.signing_requests(&host).map_err(problems::internal)?;
        let id = Uuid::new_v4().to_string();
        let clock = self.time.wall();
        let lapses = self.time.clock().since_boot() + good_for;
        self.offer.replace(Some(Rc::new(OpenOffer { id: id.clone(), purpose, keys, lapses })));
        let facts =
            HostFacts { host, version: env!("CARGO_PKG_VERSION").to_owned(), os: status::operating_system() };
        Ok(Offer { id, signing_requests, host: facts, clock, expires_at: clock + good_for })
    }

    /// The open offer, if this is it.
    pub(super) fn offer_of(&self, id: &str) -> Result<Rc<OpenOffer>, Problem> {
        let now = self.time.clock().since_boot();
        let mut open = self.offer.borrow_mut();
        if open.as_ref().is_some_and(|offer| offer.lapses <= now) {
            *open = None;
        }
        match &*open {
            Some(offer) if offer.id == id => Ok(Rc::clone(offer)),
            _ => Err(problems::offer_unknown(id)),
        }
    }
}
