//! New keys and certificates for a member of its zone.

use std::rc::Rc;

use zone_protocol::identity::Role;
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
            let (document, now) = (&membership.document, daemon.time.wall());
            let member = (&document.zone, &document.name);
            let identity = validate::signed(&offer.keys, new.certificates, Role::ZoneProxy, member, now)?;
            let control_identity = match new.control_certificates {
                Some(certificates) => {
                    Some(validate::control_signed(offer.control_keys.as_ref(), certificates, member, now)?)
                }
                None => before.control_identity.clone(),
            };
            // A token pins the keys that were shown when it was issued: with them it goes.
            let next = State { identity, control_identity, token: None, ..State::clone(&before) };
            let change = Change::between(&before, &next);
            daemon.put_in_force(next).await?;
            daemon.offer.close();
            let provisioned = daemon.provisioned().ok_or(ChangeError::NotProvisioned)?;
            Ok((provisioned, change))
        })
        .await
    }
}
