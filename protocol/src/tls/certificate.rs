//! Reading certificates and keys: chains from PEM, and who a leaf says its owner is.

use std::collections::HashSet;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use x509_parser::der_parser::{Oid, oid};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::error::TlsError;
use crate::identity::Identity;
use crate::trust::fingerprint;

/// How many certificates a peer may show behind its leaf. A zone's authorities sign leaves themselves; this leaves room for
/// a hierarchy of one's own, and bounds what a stranger can have a verifier try.
pub const MAX_INTERMEDIATES: usize = 4;
/// The longest chain that a peer may show, in bytes of DER, the leaf included.
pub const MAX_CHAIN_BYTES: usize = 16 * 1024;
/// The common name in the certificates of a proxy that belongs to no zone. Nobody trusts them by it: a token pins their keys.
pub const BOOTSTRAP_NAME: &str = "zone-proxy bootstrap";
/// The shortest RSA key of a party, in bits.
const MIN_RSA_BITS: usize = 2048;

/// What a leaf certificate says of its owner: all that a connection keeps of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// From the one URI in its subject alternative names.
    pub identity: Identity,
    /// SHA-256 over the issuer's distinguished name (DER).
    pub issuer: [u8; 32],
    /// Serial number, big-endian, no leading zeros.
    pub serial: Box<[u8]>,
    /// Its first second, since 1970.
    pub not_before: i64,
    /// Its last second, since 1970.
    pub not_after: i64,
    /// The other certificates that were shown with it: whoever vouches for it, but for the anchor, is among them.
    pub shown_with: Box<[Issued]>,
}

/// A certificate by its issuer and serial number, as a deny-list names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// SHA-256 over the issuer's distinguished name (DER).
    pub issuer: NameHash,
    /// Serial number, big-endian, no leading zeros.
    pub serial: Box<[u8]>,
}

impl Issued {
    fn of(certificate: &X509Certificate<'_>) -> Self {
        let serial = certificate.raw_serial();
        let zeros = serial.iter().take_while(|b| **b == 0).count();
        Self { issuer: Sha256::digest(certificate.issuer().as_raw()).into(), serial: serial[zeros..].into() }
    }
}

impl Leaf {
    /// Reads a leaf. It must hold exactly one SPIFFE URI and a key of a kind that parties may have, and be no authority.
    pub fn read(der: &[u8]) -> Result<Self, TlsError> {
        let certificate = parse(der, "certificate")?;
        let wrong = |why: String| TlsError::Unfit { what: "certificate".into(), why };
        if certificate.is_ca() {
            return Err(wrong("it is an authority's; a party needs one of its own".into()));
        }
        match key_kind(&certificate) {
            KeyKind::P256 | KeyKind::P384 | KeyKind::Rsa(MIN_RSA_BITS..) => {}
            KeyKind::Rsa(bits) => {
                return Err(wrong(format!("its RSA key has {bits} bits; {MIN_RSA_BITS} are the least")));
            }
            KeyKind::Other => {
                let why = "its key is neither ECDSA on P-256 or P-384 nor RSA; issue one with such a key";
                return Err(wrong(why.into()));
            }
        }
        let names = certificate
            .subject_alternative_name()
            .map_err(|e| wrong(e.to_string()))?
            .map(|extension| extension.value.general_names.as_slice())
            .unwrap_or_default();
        let mut uris = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        let (Some(uri), None) = (uris.next(), uris.next()) else {
            return Err(wrong("it must hold exactly one URI name, spiffe://<zone>/<role>/<name>".into()));
        };
        let Issued { issuer, serial } = Issued::of(&certificate);
        Ok(Self {
            identity: uri.parse().map_err(|e: crate::identity::IdentityError| wrong(e.to_string()))?,
            issuer,
            serial,
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            shown_with: Box::default(),
        })
    }

    /// Reads a leaf with what was shown behind it, which may be no more than a verifier can try soon, and no authority that
    /// may sign no certificates (RFC 5280, section 4.2.1.3).
    pub fn read_chain(leaf: &[u8], intermediates: &[CertificateDer<'_>]) -> Result<Self, TlsError> {
        check_size(leaf, intermediates)?;
        let others = intermediates.iter().map(|der| {
            let certificate = parse(der, "intermediate certificate")?;
            let usage = certificate.key_usage();
            let signs = usage.is_ok_and(|usage| usage.is_none_or(|usage| usage.value.key_cert_sign()));
            if certificate.is_ca() && !signs {
                let why = "it is an authority's that may not sign certificates (keyCertSign)".into();
                return Err(TlsError::Unfit { what: "intermediate certificate".into(), why });
            }
            Ok(Issued::of(&certificate))
        });
        Ok(Self { shown_with: others.collect::<Result<_, TlsError>>()?, ..Self::read(leaf)? })
    }
}

/// Whether a certificate is one that a proxy shows while it belongs to no zone: a hint for people, which anybody can give.
pub fn is_bootstrap(der: &[u8]) -> bool {
    parse(der, "certificate").is_ok_and(|certificate| {
        let mut names = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        certificate.subject().as_raw() == certificate.issuer().as_raw()
            && names.any(|name| name == BOOTSTRAP_NAME)
    })
}

fn check_size(leaf: &[u8], intermediates: &[CertificateDer<'_>]) -> Result<(), TlsError> {
    let wrong = |why: String| Err(TlsError::Unfit { what: "certificate chain".into(), why });
    let count = intermediates.len();
    if count > MAX_INTERMEDIATES {
        return wrong(format!("{count} certificates behind the leaf; {MAX_INTERMEDIATES} are the most"));
    }
    let bytes = leaf.len() + intermediates.iter().map(|der| der.len()).sum::<usize>();
    if bytes > MAX_CHAIN_BYTES {
        return wrong(format!("it has {bytes} bytes; {MAX_CHAIN_BYTES} are the most"));
    }
    Ok(())
}

/// Of certificates with the same subject the first one alone, so that there is one way up a chain and no more.
pub(super) fn one_of_each_subject<'a>(chain: &[CertificateDer<'a>]) -> Vec<CertificateDer<'a>> {
    let mut seen = HashSet::new();
    let first = |der: &&CertificateDer<'a>| {
        parse(der, "certificate")
            .is_ok_and(|certificate| seen.insert(certificate.subject().as_raw().to_vec()))
    };
    chain.iter().filter(first).cloned().collect()
}

/// A distinguished name, as SHA-256 over its DER.
pub type NameHash = [u8; 32];

/// The issuers of every certificate in a chain. Whoever vouches for the chain is among them, whatever else a peer
/// put into it.
pub fn issuers(chain: &[CertificateDer<'_>]) -> Result<Box<[NameHash]>, TlsError> {
    chain.iter().map(|der| Ok(Sha256::digest(parse(der, "certificate")?.issuer().as_raw()).into())).collect()
}

/// An authority's certificate, by what certificates, deny-lists and trust documents name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// The common name of its subject, for people; empty where it has none.
    pub name: String,
    /// Its subject: what certificates name as their issuer.
    pub subject: NameHash,
    /// Itself, as a deny-list names it.
    pub certificate: Issued,
    /// SHA-256 over it (DER) in lower-case hex, as a trust document retires it.
    pub fingerprint: String,
}

impl Anchor {
    /// Reads an authority's certificate.
    pub fn read(der: &[u8]) -> Result<Self, TlsError> {
        let certificate = parse(der, "trust anchor")?;
        let name = certificate.subject().iter_common_name().find_map(|name| name.as_str().ok());
        Ok(Self {
            name: name.unwrap_or_default().to_owned(),
            subject: Sha256::digest(certificate.subject().as_raw()).into(),
            certificate: Issued::of(&certificate),
            fingerprint: fingerprint(der),
        })
    }
}

/// Those anchors (PEM) of `old` that are not in `new`. One that can't be read vouches for nobody, so it is passed over.
pub fn removed_anchors(old: &[String], new: &[String]) -> Vec<Anchor> {
    let certificates = |pems: &[String]| -> HashSet<CertificateDer<'static>> {
        pems.iter().filter_map(|pem| chain_from_pem(pem, "trust anchor").ok()).flatten().collect()
    };
    let (old, new) = (certificates(old), certificates(new));
    old.difference(&new).filter_map(|der| Anchor::read(der).ok()).collect()
}

/// The curve P-384 among the parameters of a key (RFC 5480, section 2.1.1.1).
const CURVE_P384: Oid<'static> = oid!(1.3.132.0.34);
/// The curve P-256 among the parameters of a key (RFC 5480, section 2.1.1.1): secp256k1 is as long.
const CURVE_P256: Oid<'static> = oid!(1.2.840.10045.3.1.7);

/// The kind of a public key, as far as the policy tells kinds apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA, with this many bits.
    Rsa(usize),
    /// ECDSA over P-256.
    P256,
    /// ECDSA over P-384.
    P384,
    /// A key of any other kind.
    Other,
}

/// What a certificate holds beside its owner's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The kind of its key.
    pub key: KeyKind,
    /// Its SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
    /// From when it is valid.
    pub not_before: OffsetDateTime,
    /// Until when it is valid.
    pub not_after: OffsetDateTime,
    /// Whether it is an authority's.
    pub authority: bool,
}

/// Reads what the proxy checks before it takes a certificate; `what` names it in errors.
pub fn facts(der: &[u8], what: &str) -> Result<Facts, TlsError> {
    let certificate = parse(der, what)?;
    let validity = certificate.validity();
    Ok(Facts {
        key: key_kind(&certificate),
        spki: certificate.public_key().raw.to_vec(),
        not_before: validity.not_before.to_datetime(),
        not_after: validity.not_after.to_datetime(),
        authority: certificate.is_ca(),
    })
}

fn key_kind(certificate: &X509Certificate<'_>) -> KeyKind {
    let spki = certificate.public_key();
    match spki.parsed() {
        Ok(PublicKey::RSA(rsa)) => KeyKind::Rsa(rsa.key_size()),
        Ok(PublicKey::EC(_)) => {
            match spki.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok()) {
                Some(curve) if curve == CURVE_P256 => KeyKind::P256,
                Some(curve) if curve == CURVE_P384 => KeyKind::P384,
                _ => KeyKind::Other,
            }
        }
        _ => KeyKind::Other,
    }
}

/// The SubjectPublicKeyInfo of a certificate, DER.
pub fn spki(der: &[u8]) -> Result<Vec<u8>, TlsError> {
    Ok(parse(der, "certificate")?.public_key().raw.to_vec())
}

fn parse<'a>(der: &'a [u8], what: &str) -> Result<X509Certificate<'a>, TlsError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(TlsError::Certificate { what: what.into(), why: "bytes follow the certificate".into() }),
        Err(error) => Err(TlsError::Certificate { what: what.into(), why: error.to_string() }),
    }
}

/// The certificates of a PEM text, at least one.
pub fn chain_from_pem(pem: &str, what: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Pem { what: what.into(), why: error.to_string() })?;
    if chain.is_empty() {
        return Err(TlsError::Pem { what: what.into(), why: "no certificate in it".into() });
    }
    Ok(chain)
}

/// The first private key of a PEM text.
pub fn key_from_pem(pem: &str, what: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| TlsError::Pem { what: what.into(), why: error.to_string() })
}

/// A chain with the key that fits its leaf.
pub fn certified_key(
    chain_pem: &str,
    key_pem: &str,
    what: &str,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = chain_from_pem(chain_pem, what)?;
    let key = key_from_pem(key_pem, what)?;
    CertifiedKey::from_der(chain, key, provider)
        .map(Arc::new)
        .map_err(|error| TlsError::Pem { what: what.into(), why: error.to_string() })
}

/// A store of trust anchors from PEM texts; each certificate must be an authority's.
pub fn anchors_from_pem(pems: &[String], what: &str) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for pem in pems {
        for der in chain_from_pem(pem, what)? {
            if !facts(&der, what)?.authority {
                let why = "a trust anchor must be an authority's certificate (CA:TRUE)".into();
                return Err(TlsError::Unfit { what: what.into(), why });
            }
            store.add(der).map_err(|e| TlsError::Certificate { what: what.into(), why: e.to_string() })?;
        }
    }
    Ok(store)
}

/// Lower-case hex, as issuer and serial stand in a deny-list.
pub fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
