//! rustls configurations, ready to use: for each port's server side and for each kind of client.

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, Tls12Resumption};
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig, SignatureScheme};

use super::certificate::certified_key;
use super::error::TlsError;
use super::policy::{ECDSA_SUITES, TLS13_SUITES, Versions};
use super::verifier::Admission;

/// A proxy's two certificates: the RSA suites need one, the ECDSA suites the other.
#[derive(Debug, Clone)]
pub struct Leaves {
    /// RSA 2048.
    pub rsa: Arc<CertifiedKey>,
    /// P-256.
    pub ec: Arc<CertifiedKey>,
}

impl Leaves {
    /// From chains and keys in PEM.
    pub fn from_pem(
        rsa: (&str, &str),
        ec: (&str, &str),
        provider: &CryptoProvider,
    ) -> Result<Self, TlsError> {
        Ok(Self {
            rsa: certified_key(rsa.0, rsa.1, "RSA certificate", provider)?,
            ec: certified_key(ec.0, ec.1, "P-256 certificate", provider)?,
        })
    }

    /// The same, each chain followed by the other's leaf, so that a client that holds a token sees both keys.
    #[must_use]
    pub fn showing_both(&self) -> Self {
        let extended = |own: &CertifiedKey, other: &CertifiedKey| {
            let mut shown = own.clone();
            shown.cert.extend(other.cert.first().cloned());
            Arc::new(shown)
        };
        Self { rsa: extended(&self.rsa, &self.ec), ec: extended(&self.ec, &self.rsa) }
    }
}

impl ResolvesServerCert for Leaves {
    /// P-256 for whoever can take it, because it costs much less. Suites are looked at as well as signature
    /// schemes: clients that offer RSA suites alone still list ECDSA schemes.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let suites = hello.cipher_suites();
        let ecdsa = hello.signature_schemes().contains(&SignatureScheme::ECDSA_NISTP256_SHA256)
            && suites.iter().any(|suite| {
                ECDSA_SUITES.contains(suite) || TLS13_SUITES.iter().any(|own| own.suite() == *suite)
            });
        Some(Arc::clone(if ecdsa { &self.ec } else { &self.rsa }))
    }
}

/// The server side of a port: its leaves, who may connect, and its tickets (none: nothing is resumed).
///
/// Without `admission` no client certificate is asked for.
pub fn server(
    leaves: Leaves,
    admission: Option<Arc<Admission>>,
    tickets: Option<Arc<dyn ProducesTickets>>,
    versions: Versions,
) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(versions.provider())
        .with_protocol_versions(versions.protocol_versions())?;
    let builder = match admission {
        Some(admission) => builder.with_client_cert_verifier(admission),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(leaves));
    config.require_ems = true;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = if tickets.is_some() { 2 } else { 0 };
    if let Some(tickets) = tickets {
        config.ticketer = tickets;
    }
    Ok(Arc::new(config))
}

/// The server side that an endpoint plays inside a session: one leaf, the other party a Module Server.
pub fn end_to_end_server(
    chain_pem: &str,
    key_pem: &str,
    admission: Arc<Admission>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let key = certified_key(chain_pem, key_pem, "endpoint certificate", &Versions::EndToEnd.provider())?;
    server(Leaves { rsa: Arc::clone(&key), ec: key }, Some(admission), None, Versions::EndToEnd)
}

/// The client side: whom it expects, and the certificate that it shows (PEM chain and key).
pub fn client(
    expectation: Arc<dyn ServerCertVerifier>,
    own: Option<(&str, &str)>,
    versions: Versions,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = versions.provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions.protocol_versions())?
        .dangerous()
        .with_custom_certificate_verifier(expectation);
    let mut config = match own {
        Some((chain, key)) => {
            let key = certified_key(chain, key, "client certificate", &provider)?;
            builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)))
        }
        None => builder.with_no_client_auth(),
    };
    config.require_ems = true;
    // The verifier knows parties by role and name; an address in the hello would tell strangers more.
    config.enable_sni = false;
    config.resumption =
        Resumption::in_memory_sessions(8).tls12_resumption(Tls12Resumption::SessionIdOrTickets);
    Ok(Arc::new(config))
}
