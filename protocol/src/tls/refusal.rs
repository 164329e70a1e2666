//! Why a peer's certificate was refused, for the log of the one who refused it.
//!
//! rustls turns a verifier's error into an alert, and some alerts leave no room for the reason. A verifier
//! runs synchronously inside the poll that feeds it, on one thread: so it leaves the reason in a thread-local,
//! and whoever polls the handshake collects it there.

use std::cell::RefCell;

use rustls::CertificateError;

use crate::identity::{Identity, Label, Role};

thread_local! {
    static LAST: RefCell<Option<Refusal>> = const { RefCell::new(None) };
}

/// Runs one poll of a handshake and collects the refusal that it led to, if any.
pub fn capture<T>(poll: impl FnOnce() -> T) -> (T, Option<Refusal>) {
    LAST.take();
    let result = poll();
    (result, LAST.take())
}

/// Why a certificate is not accepted here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Good in this zone, but for something else.
    #[error("certificate of {identity}, but this port is for the role {wanted}")]
    WrongRole {
        /// The identity in the certificate.
        identity: Identity,
        /// The role that the port is for.
        wanted: Role,
    },
    /// The name is right, the authority is another role's.
    #[error(
        "certificate names {claimed}, but an authority for {vouched} signed it: nobody may vouch for another role"
    )]
    WrongAuthority {
        /// The identity in the certificate.
        claimed: Identity,
        /// The role that its authority may vouch for.
        vouched: Role,
    },
    /// The certificate names another zone.
    #[error("certificate of {identity}, but this is zone {zone}")]
    WrongZone {
        /// The identity in the certificate.
        identity: Identity,
        /// The zone that was expected.
        zone: Label,
    },
    /// Not the one who was called.
    #[error("certificate of {identity}, but {wanted} was expected")]
    WrongName {
        /// The identity in the certificate.
        identity: Identity,
        /// The name that was called.
        wanted: Label,
    },
    /// On the deny-list.
    #[error("certificate of {0} is revoked")]
    Revoked(Identity),
    /// Its time has not come, or is over.
    #[error("certificate of {identity} is valid from {not_before} to {not_after}, and now is {now}")]
    NotNow {
        /// The identity in the certificate.
        identity: Identity,
        /// Its first second, RFC 3339.
        not_before: String,
        /// Its last second, RFC 3339.
        not_after: String,
        /// The time of the check, RFC 3339.
        now: String,
    },
    /// Signed by nobody who is trusted for any role.
    #[error("certificate of {0}, signed by an authority that this zone does not know")]
    UnknownAuthority(Identity),
    /// It is the certificate of a proxy that belongs to no zone.
    #[error("certificate of a proxy that belongs to no zone")]
    Bootstrap,
    /// It can't be read as a certificate of this protocol.
    #[error("{0}")]
    Unreadable(String),
    /// Something else that the path validation found.
    #[error("certificate of {identity}: {why}")]
    Path {
        /// The identity in the certificate.
        identity: Identity,
        /// What the path validation found.
        why: String,
    },
}

impl Refusal {
    /// A short word for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::WrongRole { .. } => "wrong_role",
            Self::WrongAuthority { .. } => "wrong_authority",
            Self::WrongZone { .. } => "wrong_zone",
            Self::WrongName { .. } => "wrong_name",
            Self::Revoked(_) => "revoked",
            Self::NotNow { .. } => "not_now",
            Self::UnknownAuthority(_) => "unknown_authority",
            Self::Bootstrap => "bootstrap",
            Self::Unreadable(_) => "unreadable",
            Self::Path { .. } => "path",
        }
    }

    /// Leaves itself for [`capture`] and becomes what rustls turns into the closest alert.
    pub(super) fn into_rustls(self) -> rustls::Error {
        let error = match &self {
            Self::Revoked(_) => CertificateError::Revoked,
            Self::NotNow { .. } => CertificateError::Expired,
            Self::UnknownAuthority(_) => CertificateError::UnknownIssuer,
            Self::Bootstrap | Self::Unreadable(_) | Self::Path { .. } => CertificateError::BadEncoding,
            _ => CertificateError::ApplicationVerificationFailure,
        };
        LAST.set(Some(self));
        error.into()
    }
}

/// What an alert of the other side means for the one who reads it, where it is about a certificate or the
/// choice of version and suite.
pub fn explain_alert(error: &rustls::Error) -> Option<&'static str> {
    use rustls::AlertDescription as Alert;
    let rustls::Error::AlertReceived(alert) = error else { return None };
    Some(match alert {
        Alert::CertificateExpired => {
            "the other side says our certificate is not valid at this time by its clock: compare the clocks, or have a new certificate issued"
        }
        Alert::CertificateRevoked => "the other side says our certificate is revoked: have a new one issued",
        Alert::UnknownCA => {
            "the other side does not know the authority that signed our certificate: it belongs to another zone, or its trust was changed"
        }
        Alert::AccessDenied => {
            "the other side does not let our certificate in: it is for another role, zone or name than this port is for"
        }
        Alert::CertificateRequired => "the other side wants a certificate, and we sent none",
        Alert::BadCertificate | Alert::UnsupportedCertificate | Alert::CertificateUnknown => {
            "the other side can't accept our certificate; its log says why"
        }
        Alert::ProtocolVersion => "the other side speaks no TLS version that we allow",
        Alert::HandshakeFailure | Alert::InsufficientSecurity => {
            "no cipher suite in common, a missing extended master secret, or no certificate where one is wanted"
        }
        _ => return None,
    })
}
