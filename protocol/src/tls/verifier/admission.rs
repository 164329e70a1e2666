//! Who may connect to a port: what a server's side asks of a client's certificate.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DistinguishedName, Error};
use time::OffsetDateTime;

use super::deny_list::DenyList;
use super::signatures::{SignatureVerifier, check_signatures_by};
use super::validity;
use crate::identity::{Label, Role};
use crate::tls::certificate::{Issued, Leaf, anchors_from_pem, one_of_each_subject};
use crate::tls::error::TlsError;
use crate::tls::policy::Versions;
use crate::tls::refusal::Refusal;
use crate::trust::Trust;

/// Who may connect to one port: a role of a zone, by that role's anchors, unless denied.
#[derive(Debug)]
pub struct Admission {
    zone: Label,
    role: Role,
    deny: DenyList,
    by_role: Vec<(Role, Arc<dyn ClientCertVerifier>)>,
    signatures: SignatureVerifier,
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
        let signatures = SignatureVerifier::new(&provider);
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
        Ok(Arc::new(Self { zone, role, deny: DenyList::new(&trust.deny), by_role, signatures, mandatory }))
    }

    /// Looks at a chain again after the handshake. A resumed one never ran the verifier, so role, zone, time
    /// and deny-list are asked here, always.
    pub fn authorise(&self, chain: &[CertificateDer<'_>], now: OffsetDateTime) -> Result<Leaf, Refusal> {
        let Some((leaf, others)) = chain.split_first() else {
            return Err(Refusal::Unreadable("no certificate was shown".into()));
        };
        let leaf = Leaf::read_chain(leaf, others).map_err(|e| Refusal::Unreadable(e.to_string()))?;
        self.still_admits(&leaf, now)?;
        Ok(leaf)
    }

    /// The same for a leaf that was read before.
    pub fn still_admits(&self, leaf: &Leaf, now: OffsetDateTime) -> Result<(), Refusal> {
        self.allows(leaf)?;
        validity::check(leaf, now.unix_timestamp())
    }

    /// Looks at zone, role and deny-list, and not at the clock: for a connection that stands while the rules change. It
    /// was valid when it was judged, and a wall clock that was set since must not end it.
    pub fn allows(&self, leaf: &Leaf) -> Result<(), Refusal> {
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

    /// Whether the deny-list names this certificate, be it an authority's.
    pub fn denies(&self, certificate: &Issued) -> bool {
        self.deny.names(certificate)
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
            return validity::check(&leaf, validity::seconds(now))
                .err()
                .unwrap_or_else(|| Refusal::Path { identity: leaf.identity, why: error.to_string() });
        }
        // For the words alone, so one way up is tried and no others.
        let others = one_of_each_subject(chain.1);
        for (vouched, verifier) in self.by_role.iter().filter(|(role, _)| *role != self.role) {
            if verifier.verify_client_cert(chain.0, &others, now).is_ok() {
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
        let leaf = Leaf::read_chain(end_entity, intermediates)
            .map_err(|e| Refusal::Unreadable(e.to_string()).into_rustls())?;
        // The first is the port's own role, see `new`.
        let verified = match self.by_role.first() {
            Some((_, verifier)) => verifier.verify_client_cert(end_entity, intermediates, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        };
        if let Err(error) = verified {
            return Err(self.diagnose(leaf, (end_entity, intermediates), now, &error).into_rustls());
        }
        self.allows(&leaf).map_err(Refusal::into_rustls)?;
        Ok(ClientCertVerified::assertion())
    }

    check_signatures_by!(signatures);
}
