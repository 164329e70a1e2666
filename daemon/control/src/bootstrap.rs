//! The first state: a proxy that belongs to no zone has keys under self-signed certificates, and a token that pins them.

use zone_protocol::tls::TlsError;
use zone_settings::seconds;

use crate::config::Config;
use crate::keys::{self, KeyError, KeyMaker};
use crate::state::clock::Time;
use crate::state::{self, IssuedToken, State};
use crate::tls::NoRandomness;

/// Why no first state can be made.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The keys or their certificates can't be made.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The certificates can't be read back.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The token has no secret.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// Fresh keys and a fresh token.
pub(crate) async fn first_state(
    keys: &KeyMaker,
    config: &Config,
    time: &Time,
) -> Result<State, BootstrapError> {
    let now = time.wall();
    let identity = keys.make(move || keys::bootstrap(now)).await?;
    let pin = state::pin(&identity)?;
    let token = IssuedToken::issue(pin, seconds(config.timeouts.token), time).ok_or(NoRandomness)?;
    Ok(State { identity, control_identity: None, membership: None, token: Some(token) })
}
