//! The proxy's own keys: bootstrap certificates, and signing requests for the zone's authority.

use rcgen::{
    CertificateParams, DnType, KeyPair as Key, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, PublicKeyData,
    RsaKeySize,
};
use time::{Duration, OffsetDateTime};
use zone_channel::{Identity, KeyPair};
use zone_protocol::provisioning::{Certificates, SigningRequests};

/// Of bootstrap certificates. Nobody trusts them by name: the token pins their keys.
const BOOTSTRAP_NAME: &str = "zone-proxy bootstrap";
const BOOTSTRAP_VALIDITY: Duration = Duration::days(3_653);
/// So that a peer whose clock is somewhat behind can look at them.
const BACK_DATED: Duration = Duration::hours(1);

/// Fresh keys under self-signed certificates, for a proxy that belongs to no zone.
pub(crate) fn bootstrap(now: OffsetDateTime) -> Result<Identity, rcgen::Error> {
    let keys = OfferedKeys::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, BOOTSTRAP_NAME);
    params.not_before = now - BACK_DATED;
    params.not_after = now + BOOTSTRAP_VALIDITY;
    let certificates =
        Certificates { rsa: params.self_signed(&keys.rsa)?.pem(), ec: params.self_signed(&keys.ec)?.pem() };
    Ok(keys.with(certificates))
}

/// The two keys of an offer, kept in memory until it is completed or lapses.
#[derive(Debug)]
pub(crate) struct OfferedKeys {
    rsa: Key,
    ec: Key,
}

impl OfferedKeys {
    /// An RSA 2048 and a P-256 key.
    pub(crate) fn generate() -> Result<Self, rcgen::Error> {
        Ok(Self {
            rsa: Key::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?,
            ec: Key::generate_for(&PKCS_ECDSA_P256_SHA256)?,
        })
    }

    /// Signing requests (PKCS #10) for both. Names are the authority's to give.
    pub(crate) fn signing_requests(&self, host: &str) -> Result<SigningRequests, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, host);
        Ok(SigningRequests {
            rsa: params.serialize_request(&self.rsa)?.pem()?,
            ec: params.serialize_request(&self.ec)?.pem()?,
        })
    }

    /// The SubjectPublicKeyInfo of the RSA and of the P-256 key, DER.
    pub(crate) fn public_keys(&self) -> (Vec<u8>, Vec<u8>) {
        (self.rsa.subject_public_key_info(), self.ec.subject_public_key_info())
    }

    /// With the certificates that an authority gave for them.
    pub(crate) fn with(&self, certificates: Certificates) -> Identity {
        Identity {
            rsa: KeyPair { chain: certificates.rsa, key: self.rsa.serialize_pem() },
            ec: KeyPair { chain: certificates.ec, key: self.ec.serialize_pem() },
        }
    }
}

#[cfg(test)]
mod tests {
    use zone_protocol::tls::certificate::{KeyKind, chain_from_pem, facts};

    use super::*;

    #[test]
    fn bootstrap_certificates_hold_an_rsa_2048_and_a_p256_key_and_are_good_at_once() {
        let now = OffsetDateTime::now_utc();
        let identity = bootstrap(now).unwrap();
        for (pair, kind) in [(&identity.rsa, KeyKind::Rsa(2048)), (&identity.ec, KeyKind::P256)] {
            let facts = facts(&chain_from_pem(&pair.chain, "leaf").unwrap()[0], "leaf").unwrap();
            assert_eq!(facts.key, kind);
            assert!(facts.not_before < now && !facts.authority);
        }
    }
}
