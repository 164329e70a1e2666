//! Which versions and suites there are.

use rustls::{CipherSuite, ProtocolVersion};

use crate::tls::policy::{SUITES, Versions};

const OURS: [CipherSuite; 4] = [
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
];

fn suites(versions: Versions) -> Vec<CipherSuite> {
    versions.provider().cipher_suites.iter().map(rustls::SupportedCipherSuite::suite).collect()
}

fn protocols(versions: Versions) -> Vec<ProtocolVersion> {
    versions.protocol_versions().iter().map(|version| version.version).collect()
}

#[test]
fn there_are_four_suites_for_tls_1_2_and_the_default_is_nothing_else() {
    assert_eq!(SUITES.map(|suite| suite.suite()), OURS);
    assert_eq!(Versions::default(), Versions::Tls12);
    assert_eq!(suites(Versions::Tls12), OURS);
    assert_eq!(protocols(Versions::Tls12), [ProtocolVersion::TLSv1_2]);
}

#[test]
fn tls_1_3_brings_two_suites_and_goes_first_where_it_is_opted_in_or_end_to_end() {
    for versions in [Versions::Tls12And13, Versions::EndToEnd] {
        let newer = [CipherSuite::TLS13_AES_256_GCM_SHA384, CipherSuite::TLS13_AES_128_GCM_SHA256];
        assert_eq!(suites(versions), [&newer[..], &OURS].concat());
        assert_eq!(protocols(versions), [ProtocolVersion::TLSv1_3, ProtocolVersion::TLSv1_2]);
    }
}
