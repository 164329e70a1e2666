//! New keys and certificates for a member of its zone.

use std::rc::Rc;

use zone_protocol::provisioning::{NewIdentity, Provisioned};

use super::change::{Actor, Change};
use super::error::ChangeError;
use super::validate;
use crate::daemon::Daemon;
use crate::offer::Purpose;
use crate::state::State;

impl Daemon {
    /// Completes an offer of new keys. Sessions go on; new connections see the new certificates.
    pub(crate) async fn set_identity(
        self: &Rc<Self>,
        new: NewIdentity,
        actor: Actor,
    ) -> Result<Provisioned, ChangeError> {
        self.change("identity", actor, async move |daemon| {
            let before = daemon.state();
            let membership = before.membership.as_ref().ok_or(ChangeError::NotProvisioned)?;
            let offer = daemon.offer_of(&new.offer)?;
            if offer.purpose != Purpose::Identity {
                return Err(ChangeError::OfferUnknown(new.offer));
            }
            let identity = offer.keys.with(new.certificates);
            let (rsa, ec) = offer.keys.public_keys();
            let document = &membership.document;
            validate::identity(
                &identity,
                Some((&rsa, &ec)),
                (&document.zone, &document.name),
                daemon.time.wall(),
            )?;
            // A token pins the keys that were shown when it was issued: with them it goes.
            let next = State { identity, token: None, ..State::clone(&before) };
            let change = Change::between(&before, &next);
            daemon.put_in_force(next).await?;
            daemon.offer.close();
            let provisioned = daemon.provisioned().ok_or(ChangeError::NotProvisioned)?;
            Ok((provisioned, change))
        })
        .await
    }
}
