//! Whom a client expects: what it asks of a server's certificate.

use std::sync::Arc;

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};

use super::signatures::{SignatureVerifier, check_signatures_by};
use super::validity;
use crate::identity::{Label, Role};
use crate::tls::certificate::{Leaf, anchors_from_pem, is_bootstrap};
use crate::tls::error::TlsError;
use crate::tls::policy::Versions;
use crate::tls::refusal::Refusal;

/// Whom a client expects on the other side. Addresses don't matter: the role and the name do.
#[derive(Debug)]
pub struct Expectation {
    zone: Label,
    roles: Vec<Role>,
    name: Option<Label>,
    anchors: RootCertStore,
    signatures: SignatureVerifier,
}

impl Expectation {
    /// A party of `role`, by name where one is given, vouched for by `anchors` (PEM).
    pub fn new(
        zone: Label,
        role: Role,
        name: Option<Label>,
        anchors: &[String],
        versions: Versions,
    ) -> Result<Arc<Self>, TlsError> {
        Self::one_of(zone, &[role], name, anchors, versions)
    }

    /// The same for a party of any of these roles, of which a refusal names the first. `anchors` vouch for all of them.
    pub fn one_of(
        zone: Label,
        roles: &[Role],
        name: Option<Label>,
        anchors: &[String],
        versions: Versions,
    ) -> Result<Arc<Self>, TlsError> {
        let what = roles.first().map_or_else(String::new, |role| format!(" for {role}"));
        let anchors = anchors_from_pem(anchors, &format!("trust anchors{what}"))?;
        let signatures = SignatureVerifier::new(&versions.provider());
        Ok(Arc::new(Self { zone, roles: roles.to_vec(), name, anchors, signatures }))
    }
}

impl ServerCertVerifier for Expectation {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let unfit = |error: TlsError| {
            let shown = if is_bootstrap(end_entity) {
                Refusal::Bootstrap
            } else {
                Refusal::Unreadable(error.to_string())
            };
            shown.into_rustls()
        };
        let leaf = Leaf::read_chain(end_entity, intermediates).map_err(unfit)?;
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.signatures.algorithms();
        if let Err(error) =
            verify_server_cert_signed_by_trust_anchor(&parsed, &self.anchors, intermediates, now, algorithms)
        {
            validity::check(&leaf, validity::seconds(now)).map_err(Refusal::into_rustls)?;
            return Err(match error {
                Error::InvalidCertificate(
                    CertificateError::UnknownIssuer | CertificateError::BadSignature,
                ) if leaf.identity.zone == self.zone => Refusal::UnknownAuthority(leaf.identity),
                // That another zone's authority is not known here goes without saying.
                Error::InvalidCertificate(
                    CertificateError::UnknownIssuer | CertificateError::BadSignature,
                ) => Refusal::WrongZone { identity: leaf.identity, zone: self.zone.clone() },
                other => Refusal::Path { identity: leaf.identity, why: other.to_string() },
            }
            .into_rustls());
        }
        let identity = leaf.identity;
        let refusal = if identity.zone != self.zone {
            Refusal::WrongZone { identity, zone: self.zone.clone() }
        } else if let Some(wanted) = self.roles.first()
            && !self.roles.contains(&identity.role)
        {
            Refusal::WrongRole { identity, wanted: *wanted }
        } else {
            match &self.name {
                Some(wanted) if *wanted != identity.name => {
                    Refusal::WrongName { identity, wanted: wanted.clone() }
                }
                _ => return Ok(ServerCertVerified::assertion()),
            }
        };
        Err(refusal.into_rustls())
    }

    check_signatures_by!(signatures);
}
