//! A new token, asked for on the proxy's own host.

use std::rc::Rc;

use zone_settings::seconds;

use super::change::{Actor, Change};
use super::error::{ChangeError, StepError};
use crate::daemon::Daemon;
use crate::state::{IssuedToken, State};
use crate::tls::NoRandomness;

impl Daemon {
    /// Replaces the outstanding token, if any. A provisioned proxy goes on serving, and can be provisioned anew
    /// by whoever holds the token, until it is used or expires.
    pub async fn new_token(self: &Rc<Self>, actor: Actor) -> Result<(), ChangeError> {
        self.change("token", actor, async move |daemon| {
            let before = daemon.state();
            let pin = before.pin().map_err(StepError::invalid)?;
            let good_for = seconds(daemon.config().timeouts.token);
            let token =
                IssuedToken::issue(pin, good_for, &daemon.time).ok_or(StepError::from(NoRandomness))?;
            let next = State { token: Some(token), ..State::clone(&before) };
            daemon.store.replace(&next).map_err(StepError::from)?.commit();
            daemon.offer.close();
            let change = Change::between(&before, &next);
            daemon.enter(next, None);
            Ok(((), change))
        })
        .await
    }
}
