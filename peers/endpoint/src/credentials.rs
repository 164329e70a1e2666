//! The certificates and the key that a configuration names, and the TLS that comes of them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ClientConfig, ServerConfig};
use zone_protocol::identity::{Identity, Label, Role};
use zone_protocol::tls::TlsError;
use zone_protocol::tls::certificate::{Leaf, chain_from_pem};
use zone_protocol::tls::config::{client, end_to_end_server};
use zone_protocol::tls::policy::Versions;
use zone_protocol::tls::verifier::{Admission, Expectation};
use zone_protocol::trust::{Anchors, Trust, fingerprint};

use crate::config::Config;

/// Why certificates or keys can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file can't be read.
    #[error("{}: {source}", .path.display())]
    Read {
        /// The file that can't be read.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file holds something else than it should.
    #[error("{}: {source}", .path.display())]
    Content {
        /// The file that holds something else.
        path: PathBuf,
        /// What is wrong with it.
        source: TlsError,
    },
    /// The certificate is somebody else's.
    #[error("{}: issued for {found}, but this is {wanted}", .path.display())]
    Identity {
        /// The file that holds the certificate.
        path: PathBuf,
        /// The identity in the certificate.
        found: Identity,
        /// The identity that should be in it, by `id` and `zone`.
        wanted: Identity,
    },
}

/// PEM texts, checked to be this endpoint's.
pub struct Credentials {
    zone: Label,
    certificate: PathBuf,
    chain: String,
    key: String,
    proxy_anchors: (PathBuf, String),
    module_server_anchors: (PathBuf, String),
    leaf: Leaf,
}

impl Credentials {
    /// Reads the files that a configuration names.
    pub fn read(config: &Config) -> Result<Self, CredentialsError> {
        let read = |path: &Path| {
            std::fs::read_to_string(path)
                .map_err(|source| CredentialsError::Read { path: path.to_owned(), source })
        };
        let path = &config.certificate;
        let chain = read(path)?;
        let leaf = chain_from_pem(&chain, "certificate")
            .and_then(|chain| Leaf::read(&chain[0]))
            .map_err(|source| CredentialsError::Content { path: path.clone(), source })?;
        let wanted = Identity { zone: config.zone.clone(), role: Role::Endpoint, name: config.id.clone() };
        if leaf.identity != wanted {
            return Err(CredentialsError::Identity { path: path.clone(), found: leaf.identity, wanted });
        }
        Ok(Self {
            zone: config.zone.clone(),
            certificate: path.clone(),
            chain,
            key: read(&config.key)?,
            proxy_anchors: (config.proxy_anchors.clone(), read(&config.proxy_anchors)?),
            module_server_anchors: (
                config.module_server_anchors.clone(),
                read(&config.module_server_anchors)?,
            ),
            leaf,
        })
    }

    /// A digest of all texts, to tell whether they have changed.
    pub(crate) fn digest(&self) -> String {
        let texts = [&self.chain, &self.key, &self.proxy_anchors.1, &self.module_server_anchors.1];
        let each: String = texts.iter().map(|text| fingerprint(text.as_bytes())).collect();
        fingerprint(each.as_bytes())
    }

    /// The endpoint's own certificate.
    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    /// For dialing: the other side must be a proxy of the zone.
    pub fn client(&self) -> Result<Arc<ClientConfig>, CredentialsError> {
        let (path, anchors) = &self.proxy_anchors;
        let versions = Versions::Tls12;
        let anchors = std::slice::from_ref(anchors);
        let proxy = Expectation::new(self.zone.clone(), Role::ZoneProxy, None, anchors, versions)
            .map_err(content(path))?;
        client(proxy, Some((&self.chain, &self.key)), versions).map_err(content(&self.certificate))
    }

    /// For sessions: the other end must be a Module Server of the zone.
    pub fn end_to_end_server(&self) -> Result<Arc<ServerConfig>, CredentialsError> {
        let (path, anchors) = &self.module_server_anchors;
        let anchors = Anchors { endpoint: Vec::new(), module_server: vec![anchors.clone()] };
        let trust = Trust::of(1, anchors, Vec::new());
        let zone = self.zone.clone();
        let admission = Admission::new(zone, Role::ModuleServer, &trust, true, Versions::EndToEnd)
            .map_err(content(path))?;
        end_to_end_server(&self.chain, &self.key, admission).map_err(content(&self.certificate))
    }
}

fn content(path: &Path) -> impl FnOnce(TlsError) -> CredentialsError {
    move |source| CredentialsError::Content { path: path.to_owned(), source }
}
