//! Trust by a token, before there are certificates of the zone.

use std::sync::Arc;

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error};

use super::signatures::{SignatureVerifier, check_signatures_by};
use crate::tls::certificate::spki;
use crate::tls::error::TlsError;
use crate::tls::policy::Versions;
use crate::tls::refusal::Refusal;
use crate::token;

/// Trust by a token's pin: the proxy sends `[leaf, the other leaf]`, and both keys must be those of the token.
#[derive(Debug)]
pub struct Pinned {
    pin: [u8; 32],
    signatures: SignatureVerifier,
}

impl Pinned {
    /// The proxy that issued the token with this pin.
    pub fn new(pin: [u8; 32]) -> Arc<Self> {
        Arc::new(Self { pin, signatures: SignatureVerifier::new(&Versions::Tls12.provider()) })
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let unreadable = |e: TlsError| Refusal::Unreadable(e.to_string()).into_rustls();
        let shown = spki(end_entity).map_err(unreadable)?;
        for other in intermediates {
            let other = spki(other).map_err(unreadable)?;
            // Which of the two is the RSA one depends on the suite; the pin has it first.
            if token::pin(&shown, &other) == self.pin || token::pin(&other, &shown) == self.pin {
                return Ok(ServerCertVerified::assertion());
            }
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    check_signatures_by!(signatures);
}
