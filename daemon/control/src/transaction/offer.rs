//! Opening an offer, and finding the one that a change completes.

use std::rc::Rc;
use std::sync::Arc;

use tokio::task::spawn_blocking;
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
    /// Makes keys and offers them to be signed. `features` are what the client has named: only who knows of the identity
    /// of 17488 is offered keys for it.
    pub(crate) async fn open_offer(
        &self,
        purpose: Purpose,
        features: &Features,
    ) -> Result<Offer, ChangeError> {
        let keys_failed = |error: rcgen::Error| ChangeError::Keys(error.to_string());
        let good_for = seconds(self.config().timeouts.offer);
        let host = host::name();
        let own = features.has(CONTROL_IDENTITY);
        // An RSA key takes long, and this thread serves everybody. One offer at a time: the later one replaces the earlier.
        let making = Arc::clone(&self.offer.making).lock_owned().await;
        let made = spawn_blocking(move || {
            let keys = OfferedKeys::generate()?;
            let control_keys = own.then(OfferedKeys::generate).transpose()?;
            // It is held until the thread is done, also where the client has gone meanwhile.
            Ok::<_, rcgen::Error>((keys, control_keys, making))
        });
        let (keys, control_keys, _making) =
            made.await.map_err(|error| ChangeError::Keys(error.to_string()))?.map_err(keys_failed)?;
        let signing_requests = keys.signing_requests(&host).map_err(keys_failed)?;
        let control_signing_requests = control_keys
            .as_ref()
            .map(|keys| keys.signing_requests(&host))
            .transpose()
            .map_err(keys_failed)?;
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

    /// The open offer, if this is it.
    pub(super) fn offer_of(&self, id: &str) -> Result<Rc<OpenOffer>, ChangeError> {
        let now = self.time.clock().since_boot();
        self.offer.find(id, now).ok_or_else(|| ChangeError::OfferUnknown(id.to_owned()))
    }
}
