//! A new token, asked for on the proxy's own host.

use std::rc::Rc;

use zone_protocol::problem::Problem;
use zone_settings::seconds;

use super::{Actor, Change, Failure, Step, change};
use crate::daemon::Daemon;
use crate::state::{IssuedToken, State};

impl Daemon {
    /// Replaces the outstanding token, if any. A provisioned proxy goes on serving, and can be provisioned anew
    /// by whoever holds the token, until it is used or expires.
    pub async fn new_token(self: &Rc<Self>, actor: Actor) -> Result<(), Problem> {
        change(self, "token", actor, async move |daemon| -> Result<_, Failure> {
            let before = daemon.state();
            let pin = before.pin().map_err(|error| Failure::new(Step::Validate, error))?;
            let good_for = seconds(daemon.config().timeouts.token);
            let token = IssuedToken::issue(pin, good_for, &daemon.time)
                .ok_or_else(|| Failure::new(Step::Validate, "the system has no randomness to give"))?;
            let next = State { token: Some(token), ..State::clone(&before) };
            daemon.store.replace(&next)?.commit();
            daemon.offer.take();
            let change = Change::between(&before, &next);
            daemon.enter(next, None);
            Ok(((), change))
        })
        .await
    }
}
