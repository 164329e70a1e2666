//! Opening an offer, and finding the one that a change completes.

use std::rc::Rc;

use uuid::Uuid;
use zone_protocol::features::Features;
use zone_protocol::provisioning::{HostFacts, Offer};
use zone_settings::seconds;

use super::error::ChangeError;
use crate::daemon::Daemon;
use crate::host;
use crate::keys::OfferedKeys;
use crate::offer::{OpenOffer, Purpose};

impl Daemon {
    /// Makes keys and offers them to be signed.
    pub(crate) fn open_offer(&self, purpose: Purpose) -> Result<Offer, ChangeError> {
        let keys_failed = |error: rcgen::Error| ChangeError::Keys(error.to_string());
        let good_for = seconds(self.config().timeouts.offer);
        let host = host::name();
        let keys = OfferedKeys::generate().map_err(keys_failed)?;
        let signing_requests = keys.signing_requests(&host).map_err(keys_failed)?;
        let id = Uuid::new_v4().to_string();
        let clock = self.time.wall();
        let lapses = self.time.clock().since_boot() + good_for;
        self.offer.open(OpenOffer { id: id.clone(), purpose, keys, lapses });
        let facts =
            HostFacts { host, version: env!("CARGO_PKG_VERSION").to_owned(), os: host::operating_system() };
        Ok(Offer {
            id,
            signing_requests,
            host: facts,
            clock,
            expires_at: clock + good_for,
            features: Features::own(),
        })
    }

    /// The open offer, if this is it.
    pub(super) fn offer_of(&self, id: &str) -> Result<Rc<OpenOffer>, ChangeError> {
        let now = self.time.clock().since_boot();
        self.offer.find(id, now).ok_or_else(|| ChangeError::OfferUnknown(id.to_owned()))
    }
}
