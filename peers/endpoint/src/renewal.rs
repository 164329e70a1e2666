//! The certificates that an endpoint shows and trusts, and taking up new ones that were put in their place on disk.
//!
//! The files are read again before each dial and before each session that is protected end to end, every minute, and when
//! the program asks for it (SIGHUP). Whoever replaces them writes one after the other: a set that is half-written, or whose
//! key is not that of its certificate, is not taken up, and the one of before stays in use until the set is whole.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::{ClientConfig, ServerConfig};
use tokio::sync::watch;
use tracing::{info, warn};
use zone_protocol::tls::certificate::Leaf;

use crate::config::Config;
use crate::credentials::{Credentials, CredentialsError};
use crate::life::Life;

/// What connections and sessions are made with.
#[derive(Clone)]
pub(crate) struct Tls {
    /// The client's side, to proxies: the certificate that is shown and the anchors that proxies are checked by.
    pub(crate) client: Arc<ClientConfig>,
    /// For sessions, where it comes from the files of a configuration.
    pub(crate) end_to_end: Option<Arc<ServerConfig>>,
    /// Grows with each set of files that is taken up.
    pub(crate) number: u64,
}

/// What an endpoint shows and trusts at the time.
pub(crate) struct CurrentTls {
    files: Option<Config>,
    life: watch::Sender<Life>,
    state: Mutex<State>,
}

struct State {
    tls: Tls,
    leaf: Option<Leaf>,
    /// A digest of the files as they were taken up.
    digest: String,
    /// Why the files are not taken up, as it was last said.
    warned: Option<String>,
}

/// What came of a look at the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// They are those in use.
    Unchanged,
    /// They were taken up.
    TakenUp,
    /// They can't be used, and those of before stay in use; the log says why.
    NotTakenUp,
}

impl CurrentTls {
    /// Of a program that brings its own: it stays as it is.
    pub(crate) fn fixed(client: Arc<ClientConfig>) -> Self {
        let tls = Tls { client, end_to_end: None, number: 0 };
        let state = State { tls, leaf: None, digest: String::new(), warned: None };
        Self { files: None, life: Life::begin(), state: Mutex::new(state) }
    }

    /// Of the files that a configuration names.
    pub(crate) fn of_files(config: &Config) -> Result<Self, CredentialsError> {
        let credentials = Credentials::read(config)?;
        let state = State {
            tls: tls(&credentials, 0)?,
            leaf: Some(credentials.leaf().clone()),
            digest: credentials.digest(),
            warned: None,
        };
        Ok(Self { files: Some(config.clone()), life: Life::begin(), state: Mutex::new(state) })
    }

    /// What the tasks of the endpoint go by: a set of files that is taken up is told there.
    pub(crate) fn life(&self) -> &watch::Sender<Life> {
        &self.life
    }

    /// Whether sessions can be protected by the files of a configuration.
    pub(crate) fn has_files(&self) -> bool {
        self.files.is_some()
    }

    /// The files that were taken up last and fit together; those on disk may be newer.
    pub(crate) fn current(&self) -> Tls {
        self.lock().tls.clone()
    }

    /// The endpoint's own certificate, where it comes from a file.
    pub(crate) fn leaf(&self) -> Option<Leaf> {
        self.lock().leaf.clone()
    }

    /// Reads the files again, and takes them up where they have changed and can be used.
    pub(crate) fn look(&self) -> Renewal {
        let Some(config) = &self.files else { return Renewal::Unchanged };
        let mut state = self.lock();
        let number = state.tls.number + 1;
        let taken = Credentials::read(config).and_then(|credentials| {
            let digest = credentials.digest();
            if digest == state.digest {
                return Ok(None);
            }
            Ok(Some((tls(&credentials, number)?, credentials.leaf().clone(), digest)))
        });
        match taken {
            Ok(None) => {
                state.warned = None;
                Renewal::Unchanged
            }
            Ok(Some((tls, leaf, digest))) => {
                info!(certificate = %config.certificate.display(), "new certificates were found on disk and are used from now on");
                *state = State { tls, leaf: Some(leaf), digest, warned: None };
                self.life.send_modify(|life| life.renewed = number);
                Renewal::TakenUp
            }
            Err(error) => {
                let reason = error.to_string();
                if state.warned.as_ref() != Some(&reason) {
                    warn!(
                        "the files on disk can't be used, those of before stay in use until they can: {reason}"
                    );
                    state.warned = Some(reason);
                }
                Renewal::NotTakenUp
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tls(credentials: &Credentials, number: u64) -> Result<Tls, CredentialsError> {
    let end_to_end = Some(credentials.end_to_end_server()?);
    Ok(Tls { client: credentials.client()?, end_to_end, number })
}
