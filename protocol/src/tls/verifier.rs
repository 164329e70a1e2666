//! Verifiers that look at the role, the zone and the deny-list *inside* the handshake.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::TlsError;
use super::certificate::{Leaf, anchors_from_pem, spki};
use super::policy::Versions;
use super::refusal::Refusal;
use crate::identity::{Identity, Label, Role};
use crate::token;
use crate::trust::{Denied, Trust};

/// A deny-list made quick to ask.
#[derive(Debug, Clone, Default)]
pub struct DenyList {
    certificates: HashSet<(String, String)>,
    identities: HashMap<Identity, i64>,
}

impl DenyList {
    /// From the entries of a trust document.
    pub fn new(entries: &[Denied]) -> Self {
        let mut list = Self::default();
        for entry in entries {
            match entry {
                Denied::Certificate { issuer, serial } => {
                    list.certificates.insert((issuer.to_ascii_lowercase(), serial.to_ascii_lowercase()));
                }
                Denied::Identity { identity, not_before } => {
                    let time = list.identities.entry(identity.clone()).or_insert(i64::MIN);
                    *time = (*time).max(not_before.unix_timestamp());
                }
            }
        }
        list
    }

    /// Whether this certificate is denied.
    pub fn denies(&self, leaf: &Leaf) -> bool {
        self.identities.get(&leaf.identity).is_some_and(|time| leaf.not_before < *time)
            || (!self.certificates.is_empty()
                && self.certificates.contains(&(
                    super::certificate::hex(&leaf.issuer),
                    super::certificate::hex(&leaf.serial),
                )))
    }
}

/// Who may connect to one port: a role of a zone, by that role's anchors, unless denied.
#[derive(Debug)]
pub struct Admission {
    zone: Label,
    role: Role,
    deny: DenyList,
    by_role: Vec<(Role, Arc<dyn ClientCertVerifier>)>,
    provider: Arc<CryptoProvider>,
    mandatory: bool,
}

impl Admission {
    /// Admission of `role` under a trust document. The other role's anchors, where there are any, serve to tell
    /// a wrong role from a stranger. With `mandatory` off, clients without a certificate are
    /// let through and the caller decides what they may ask for.
    pub fn new(
        zone: Label,
        role: Role,
        trust: &Trust,
        mandatory: bool,
        versions: Versions,
    ) -> Result<Arc<Self>, TlsError> {
        let provider = versions.provider();
        let mut by_role = Vec::new();
        for (of, pems) in
            [(Role::Endpoint, &trust.anchors.endpoint), (Role::ModuleServer, &trust.anchors.module_server)]
        {
            let store = anchors_from_pem(pems, &format!("trust anchors for {of}"))?;
            if store.is_empty() && of == role {
                let why = "at least one is needed".into();
                return Err(TlsError::Pem { what: format!("trust anchors for {of}"), why });
            }
            if store.is_empty() {
                continue;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider))
                    .build()
                    .map_err(|e| TlsError::Policy(e.to_string()))?;
            by_role.push((of, verifier));
        }
        by_role.sort_by_key(|(of, _)| *of != role);
        Ok(Arc::new(Self { zone, role, deny: DenyList::new(&trust.deny), by_role, provider, mandatory }))
    }

    /// Looks at a leaf again after the handshake. A resumed one never ran the verifier, so role, zone, time
    /// and deny-list are asked here, always.
    pub fn authorise(&self, der: &[u8], now: OffsetDateTime) -> Result<Leaf, Refusal> {
        let leaf = Leaf::read(der).map_err(|e| Refusal::Unreadable(e.to_string()))?;
        self.still_admits(&leaf, now)?;
        Ok(leaf)
    }

    /// The same for a leaf that was read before: after a change of the rules.
    pub fn still_admits(&self, leaf: &Leaf, now: OffsetDateTime) -> Result<(), Refusal> {
        self.check(leaf)?;
        check_time(leaf, now.unix_timestamp())
    }

    fn check(&self, leaf: &Leaf) -> Result<(), Refusal> {
        let identity = leaf.identity.clone();
        if identity.zone != self.zone {
            return Err(Refusal::WrongZone { identity, zone: self.zone.clone() });
        }
        if identity.role != self.role {
            return Err(Refusal::WrongRole { identity, wanted: self.role });
        }
        if self.deny.denies(leaf) {
            return Err(Refusal::Revoked(identity));
        }
        Ok(())
    }

    /// Finds the words for a chain that this role's anchors don't vouch for.
    fn diagnose(
        &self,
        leaf: Leaf,
        chain: (&CertificateDer<'_>, &[CertificateDer<'_>]),
        now: UnixTime,
        error: &Error,
    ) -> Refusal {
        let unknown = matches!(
            error,
            Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)
        );
        if !unknown {
            let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
            return check_time(&leaf, seconds)
                .err()
                .unwrap_or_else(|| Refusal::Path { identity: leaf.identity, why: error.to_string() });
        }
        for (vouched, verifier) in self.by_role.iter().filter(|(role, _)| *role != self.role) {
            if verifier.verify_client_cert(chain.0, chain.1, now).is_ok() {
                return if leaf.identity.role == *vouched {
                    Refusal::WrongRole { identity: leaf.identity, wanted: self.role }
                } else {
                    Refusal::WrongAuthority { claimed: leaf.identity, vouched: *vouched }
                };
            }
        }
        Refusal::UnknownAuthority(leaf.identity)
    }
}

impl ClientCertVerifier for Admission {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    /// None: naming our authorities to strangers would tell them whose proxy this is.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let leaf = Leaf::read(end_entity).map_err(|e| Refusal::Unreadable(e.to_string()).into_rustls())?;
        // The first is the port's own role, see `new`.
        let verified = match self.by_role.first() {
            Some((_, own)) => own.verify_client_cert(end_entity, intermediates, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        };
        if let Err(error) = verified {
            return Err(self.diagnose(leaf, (end_entity, intermediates), now, &error).into_rustls());
        }
        self.check(&leaf).map_err(Refusal::into_rustls)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whom a client expects on the other side. Addresses don't matter: the role and the name do.
#[derive(Debug)]
pub struct Expectation {
    zone: Label,
    role: Role,
    name: Option<Label>,
    anchors: RootCertStore,
    provider: Arc<CryptoProvider>,
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
        let anchors = anchors_from_pem(anchors, &format!("trust anchors for {role}"))?;
        Ok(Arc::new(Self { zone, role, name, anchors, provider: versions.provider() }))
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
        let leaf = Leaf::read(end_entity).map_err(|e| Refusal::Unreadable(e.to_string()).into_rustls())?;
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        if let Err(error) =
            verify_server_cert_signed_by_trust_anchor(&parsed, &self.anchors, intermediates, now, algorithms)
        {
            let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
            check_time(&leaf, seconds).map_err(Refusal::into_rustls)?;
            return Err(match error {
                Error::InvalidCertificate(
                    CertificateError::UnknownIssuer | CertificateError::BadSignature,
                ) => Refusal::UnknownAuthority(leaf.identity),
                other => Refusal::Path { identity: leaf.identity, why: other.to_string() },
            }
            .into_rustls());
        }
        let identity = leaf.identity;
        let refusal = if identity.zone != self.zone {
            Refusal::WrongZone { identity, zone: self.zone.clone() }
        } else if identity.role != self.role {
            Refusal::WrongRole { identity, wanted: self.role }
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

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Trust by a token's pin: the proxy sends `[leaf, the other leaf]`, and both keys must be those of the token.
#[derive(Debug)]
pub struct Pinned {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    /// The proxy that issued the token with this pin.
    pub fn new(pin: [u8; 32]) -> Arc<Self> {
        Arc::new(Self { pin, provider: Versions::Tls12.provider() })
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
        let own = spki(end_entity).map_err(unreadable)?;
        for other in intermediates {
            let other = spki(other).map_err(unreadable)?;
            // Which of the two is the RSA one depends on the suite; the pin has it first.
            if token::pin(&own, &other) == self.pin || token::pin(&other, &own) == self.pin {
                return Ok(ServerCertVerified::assertion());
            }
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn check_time(leaf: &Leaf, now: i64) -> Result<(), Refusal> {
    if (leaf.not_before..=leaf.not_after).contains(&now) {
        return Ok(());
    }
    Err(Refusal::NotNow {
        identity: leaf.identity.clone(),
        not_before: rfc3339(leaf.not_before),
        not_after: rfc3339(leaf.not_after),
        now: rfc3339(now),
    })
}

fn rfc3339(seconds: i64) -> String {
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| seconds.to_string())
}
