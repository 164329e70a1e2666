//! The four cipher suites and nothing older, weaker or else.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use rustls::{CipherSuite, SupportedCipherSuite, SupportedProtocolVersion};

/// Which versions a connection may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Versions {
    /// TLS 1.2 alone: what every port speaks unless told otherwise.
    #[default]
    Tls12,
    /// TLS 1.2 and, by explicit opt-in, 1.3.
    Tls12And13,
    /// What runs end to end inside a session, where both sides are ours: 1.3 where both can.
    EndToEnd,
}

/// The four suites of R-21, in the order in which a server prefers them.
pub const SUITES: [SupportedCipherSuite; 4] = [
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
];

/// The suites that an ECDSA certificate serves.
pub(super) const ECDSA_SUITES: [CipherSuite; 2] = [
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
];

/// The TLS 1.3 suites of the opt-in; they serve either certificate.
pub(super) const TLS13_SUITES: [SupportedCipherSuite; 2] =
    [cipher_suite::TLS13_AES_256_GCM_SHA384, cipher_suite::TLS13_AES_128_GCM_SHA256];

const TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
const TLS12_AND_13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

impl Versions {
    /// For rustls' builders.
    pub fn protocol_versions(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Tls12 => TLS12,
            Self::Tls12And13 | Self::EndToEnd => TLS12_AND_13,
        }
    }

    /// aws-lc-rs with the suites of the policy and no other.
    pub fn provider(self) -> Arc<CryptoProvider> {
        let mut cipher_suites = SUITES.to_vec();
        if self != Self::Tls12 {
            cipher_suites.splice(0..0, TLS13_SUITES);
        }
        Arc::new(CryptoProvider { cipher_suites, ..default_provider() })
    }
}
