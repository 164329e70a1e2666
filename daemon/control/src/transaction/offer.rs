//! Opening an offer, and finding the one that a change completes.

use std::rc::Rc;

use uuid::Uuid;
use zone_protocol::features::{CONTROL_IDENTITY, Features};
use zone_protocol::provisioning::{HostFacts, Offer};
use zone_settings::seconds;

use super::error::ChangeError;
use crate::daemon::Daemon;
use crate::host;
use crate::keys::OfferedKeys;
use crate::offer::{OpenOffer, Purpose};

impl Daemon {
    /// Makes keys and offers them to be signed, unless keys are being made for somebody else: busy then. `features` are what the client has named: only who knows of the identity
    /// of 17488 is offered keys for it.
    pub(crate) async fn open_offer(
        &self,
        purpose: Purpose,
        features: &Features,
    ) -> Result<Offer, ChangeError> {
        let good_for = seconds(self.config().timeouts.offer);
        let host = host::name();
        let own = features.has(CONTROL_IDENTITY);
        let name = host.clone();
        let made = self.keys.try_make(move || {
            let with_requests = || -> Result<_, rcgen::Error> {
                let keys = OfferedKeys::generate()?;
                let signing_requests = keys.signing_requests(&name)?;
                Ok((keys, signing_requests))
            };
            Ok((with_requests()?, own.then(with_requests).transpose()?))
        });
        let ((keys, signing_requests), control) = made.await?;
        let (control_keys, control_signing_requests) = control.unzip();
        let id = Uuid::new_v4().to_string();
        let clock = self.time.wall();
        let lapses = self.time.clock().since_boot() + good_for;
        self.offer.open(OpenOffer { id: id.clone(), purpose, keys, control_keys, lapses });
        let facts =
            HostFacts { host, version: env!("CARGO_PKG_VERSION").to_owned(), os: host::operating_system() };
        Ok(Offer {
            id,
            signing_requests,
            control_signing_requests,
            host: facts,
            clock,
            expires_at: clock + good_for,
            features: Features::own(),
        })
    }

    /// Whether this offer is open.
    pub(crate) fn has_offer(&self, id: &str) -> Result<(), ChangeError> {
        self.offer_of(id).map(drop)
    }

    /// The open offer, if this is it.
    pub(super) fn offer_of(&self, id: &str) -> Result<Rc<OpenOffer>, ChangeError> {
        let now = self.time.clock().since_boot();
        self.offer.find(id, now).ok_or_else(|| ChangeError::OfferUnknown(id.to_owned()))
    }
}
