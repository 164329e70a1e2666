//! The three authorities of a zone and what they sign. Each vouches for one role only.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;
use zone_protocol::identity::{Identity, Label, Role};
use zone_protocol::tls::certificate::{KeyKind, Leaf, chain_from_pem, facts, hex};

use crate::error::{Error, Result};
use crate::rfc3339::rfc3339;

/// How far certificates are back-dated, so that a party whose clock is somewhat behind accepts them.
pub const BACKDATING: Duration = Duration::hours(1);
/// How long a leaf is good.
pub const LEAF_LIFETIME: Duration = Duration::days(365);
/// How long an authority is good.
const AUTHORITY_LIFETIME: Duration = Duration::days(3652);

/// From when until when a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// Its first second (notBefore).
    pub not_before: OffsetDateTime,
    /// Its last second (notAfter).
    pub not_after: OffsetDateTime,
}

impl Validity {
    /// What leaves get that are issued at `now`: back-dated by [`BACKDATING`], good for [`LEAF_LIFETIME`].
    pub fn at(now: OffsetDateTime) -> Self {
        Self { not_before: now - BACKDATING, not_after: now + LEAF_LIFETIME }
    }
}

/// A certificate and its private key, PEM.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate, PEM.
    pub certificate: String,
    /// Its private key, PKCS #8 in PEM.
    pub key: Zeroizing<String>,
}

impl Issued {
    /// The certificate's last second.
    pub fn not_after(&self) -> Result<OffsetDateTime> {
        Ok(facts(&first(&self.certificate)?, "certificate")?.not_after)
    }
}

/// A host that a certificate names beside its SPIFFE identity; curl and its like refuse one without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostName {
    /// A host by its address.
    Address(IpAddr),
    /// A host by its DNS name.
    Dns(String),
}

impl HostName {
    /// An address where `text` is one, otherwise a DNS name.
    pub fn new(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Dns(text.to_owned()), Self::Address)
    }

    fn to_san(&self) -> Result<SanType, rcgen::Error> {
        Ok(match self {
            Self::Address(address) => SanType::IpAddress(*address),
            Self::Dns(name) => SanType::DnsName(name.as_str().try_into()?),
        })
    }
}

/// An authority's certificate and key, ready to sign.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    what: String,
    not_after: OffsetDateTime,
}

impl Authority {
    /// A new authority for one role of a zone: certificate and key.
    pub(crate) fn create(zone: &Label, role: Role, now: OffsetDateTime) -> Result<Issued> {
        let what = format!("authority for {role}");
        let wrong = |e: rcgen::Error| Error::Signing { what: what.clone(), why: e.to_string() };
        let key = KeyPair::generate().map_err(wrong)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, zone.as_str());
        // Deny-lists and proxies tell issuers apart by name, so each authority of a role has its own.
        let serial = serial()?;
        let short = hex(serial.as_ref().get(..4).unwrap_or_default());
        let name = format!("{role} authority {}-{short}", now.year());
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(serial);
        params.not_before = now - BACKDATING;
        params.not_after = now + AUTHORITY_LIFETIME;
        let certificate = params.self_signed(&key).map_err(wrong)?;
        Ok(Issued { certificate: certificate.pem(), key: Zeroizing::new(key.serialize_pem()) })
    }

    /// From what [`Authority::create`] made. `key` must be the certificate's.
    pub(crate) fn from_pem(certificate: &str, key: &str, what: &str) -> Result<Self> {
        let wrong = |e: rcgen::Error| Error::Signing { what: what.to_owned(), why: e.to_string() };
        if !is_key_of(key, certificate)? {
            let why = "it is not the key of the authority's certificate".into();
            return Err(Error::Signing { what: what.to_owned(), why });
        }
        let key = KeyPair::from_pem(key).map_err(wrong)?;
        let not_after = facts(&first(certificate)?, what)?.not_after;
        let issuer = Issuer::from_ca_cert_pem(certificate, key).map_err(wrong)?;
        Ok(Self { issuer, what: what.to_owned(), not_after })
    }

    /// A leaf with a new P-256 key.
    pub(crate) fn issue(
        &self,
        identity: &Identity,
        hosts: &[HostName],
        validity: Validity,
    ) -> Result<Issued> {
        let key = KeyPair::generate()
            .map_err(|e| Error::Signing { what: identity.to_string(), why: e.to_string() })?;
        let certificate = self.sign(&key, identity, hosts, validity)?;
        Ok(Issued { certificate, key: Zeroizing::new(key.serialize_pem()) })
    }

    /// A leaf for the key of a signing request. Whatever else the request asks for is not looked at.
    pub(crate) fn sign_request(
        &self,
        request: &str,
        kind: KeyKind,
        identity: &Identity,
        hosts: &[HostName],
        validity: Validity,
    ) -> Result<String> {
        let wrong = |why: String| Error::Signing { what: format!("signing request of {identity}"), why };
        let request = CertificateSigningRequestParams::from_pem(request).map_err(|e| wrong(e.to_string()))?;
        let certificate = self.sign(&request.public_key, identity, hosts, validity)?;
        let leaf = first(&certificate)?;
        let found = facts(&leaf, "certificate")?.key;
        if found != kind {
            return Err(wrong(format!("it holds a key of kind {found:?}, not {kind:?}")));
        }
        Ok(certificate)
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        identity: &Identity,
        hosts: &[HostName],
        validity: Validity,
    ) -> Result<String> {
        let wrong = |e: rcgen::Error| Error::Signing { what: identity.to_string(), why: e.to_string() };
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, identity.zone.as_str());
        params.distinguished_name.push(DnType::CommonName, identity.name.as_str());
        let uri = identity.to_string();
        params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().map_err(wrong)?)];
        for host in hosts {
            let san = host.to_san().map_err(wrong)?;
            if !params.subject_alt_names.contains(&san) {
                params.subject_alt_names.push(san);
            }
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match identity.role {
            Role::ZoneProxy | Role::ZoneControl => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Role::ModuleServer => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Role::Endpoint => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            role => {
                let why = format!("role {role} is of a version to come");
                return Err(Error::Signing { what: identity.to_string(), why });
            }
        };
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial()?);
        params.not_before = validity.not_before;
        // Nobody accepts it beyond its authority's end, so it should not say otherwise.
        params.not_after = validity.not_after.min(self.not_after);
        if self.not_after <= validity.not_before.max(OffsetDateTime::now_utc()) {
            return Err(Error::AuthorityEnded { what: self.what.clone(), at: rfc3339(self.not_after) });
        }
        Ok(params.signed_by(key, &self.issuer).map_err(wrong)?.pem())
    }
}

/// One line of `issued.jsonl`: what a certificate says, and when it was signed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AuditEntry {
    /// When it was signed, by our clock.
    #[serde(with = "time::serde::rfc3339")]
    pub issued_at: OffsetDateTime,
    /// The party that it was signed for.
    pub identity: Identity,
    /// SHA-256 over the issuer's distinguished name; with the serial what a deny-list entry needs.
    pub issuer: String,
    /// The serial number, hex.
    pub serial: String,
    /// Its first second.
    #[serde(with = "time::serde::rfc3339")]
    pub not_before: OffsetDateTime,
    /// Its last second.
    #[serde(with = "time::serde::rfc3339")]
    pub not_after: OffsetDateTime,
}

impl AuditEntry {
    /// Of a leaf, PEM.
    pub(crate) fn of(certificate: &str, issued_at: OffsetDateTime) -> Result<Self> {
        let der = first(certificate)?;
        let (leaf, facts) = (Leaf::read(&der)?, facts(&der, "certificate")?);
        Ok(Self {
            issued_at,
            identity: leaf.identity,
            issuer: hex(&leaf.issuer),
            serial: hex(&leaf.serial),
            not_before: facts.not_before,
            not_after: facts.not_after,
        })
    }
}

/// Whether a key (PEM) is that of the first certificate of a PEM text.
pub(crate) fn is_key_of(key: &str, certificate: &str) -> Result<bool> {
    let spki = facts(&first(certificate)?, "authority")?.spki;
    Ok(KeyPair::from_pem(key).is_ok_and(|key| key.subject_public_key_info() == spki))
}

/// The first certificate of a PEM text, DER.
pub(crate) fn first(pem: &str) -> Result<Vec<u8>> {
    let chain = chain_from_pem(pem, "certificate")?;
    Ok(chain.first().map(|der| der.to_vec()).unwrap_or_default())
}

/// 127 random bits (RFC 5280 section 4.1.2.2: positive, at most 20 bytes). rcgen's own would be a hash of the
/// key, the same for every certificate of it.
fn serial() -> Result<SerialNumber> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|e| Error::Signing { what: "serial number".into(), why: e.to_string() })?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}
