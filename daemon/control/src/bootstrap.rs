//! The first state: a proxy that belongs to no zone has keys under self-signed certificates, and a token that pins them.

use zone_channel::Identity;
use zone_protocol::tls::TlsError;
use zone_settings::seconds;

use crate::config::Config;
use crate::keys::KeyError;
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

/// These keys, which [`keys::bootstrap`](crate::keys::bootstrap) makes, and a fresh token.
pub(crate) fn first_state(identity: Identity, config: &Config, time: &Time) -> Result<State, BootstrapError> {
    let pin = state::pin(&identity)?;
    let token = IssuedToken::issue(pin, seconds(config.timeouts.token), time).ok_or(NoRandomness)?;
    Ok(State { identity, control_identity: None, membership: None, token: Some(token) })
}
