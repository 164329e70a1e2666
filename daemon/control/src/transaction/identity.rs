//! New keys and certificates for a member of its zone.

use std::rc::Rc;

use zone_protocol::problem::Problem;
use zone_protocol::provisioning::{NewIdentity, Provisioned};

use super::offer::Purpose;
use super::{Actor, Change, change, validate};
use crate::daemon::Daemon;
use crate::server::problems;
use crate::state::State;

impl Daemon {
    /// Completes an offer of new keys. Sessions go on; new connections see the new certificates.
    pub async fn set_identity(
        self: &Rc<Self>,
        new: NewIdentity,
        actor: Actor,
    ) -> Result<Provisioned, Problem> {
        change(self, "identity", actor, async move |daemon| {
            let before = daemon.state();
            let membership = before.membership.as_ref().ok_or_else(problems::not_provisioned)?;
            let offer = daemon.offer_of(&new.offer)?;
            if offer.purpose != Purpose::Identity {
                return Err(problems::offer_unknown(&new.offer));
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
            daemon.offer.take();
            let provisioned = daemon.provisioned().ok_or_else(problems::not_provisioned)?;
            Ok((provisioned, change))
        })
        .await
    }
}
