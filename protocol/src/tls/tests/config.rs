//! Both sides' configurations against each other: versions, suites, the choice between two leaves.

use std::sync::Arc;

use rcgen::KeyPair;
use rustls::CipherSuite as Suite;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, HandshakeKind, NamedGroup, ProtocolVersion, ServerConfig,
    SignatureScheme,
};

use super::handshake::Handshake;
use super::zone::{Zone, label, rsa_key};
use crate::identity::Role;
use crate::tls::certificate::{KeyKind, facts};
use crate::tls::config::{Leaves, client, end_to_end_server, server};
use crate::tls::policy::Versions;
use crate::tls::verifier::{Admission, Expectation, Pinned};
use crate::token::pin;

const PROXY: &str = "spiffe://plant-7/zone-proxy/p1";
const ENDPOINT: &str = "spiffe://plant-7/endpoint/host-7";
const MODULE_SERVER: &str = "spiffe://plant-7/module-server/inside";

const RSA: [Suite; 2] =
    [Suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, Suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256];
const ECDSA: [Suite; 2] =
    [Suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];
const TLS13: [Suite; 2] = [Suite::TLS13_AES_256_GCM_SHA384, Suite::TLS13_AES_128_GCM_SHA256];

pub(super) fn leaves(zone: &Zone) -> Leaves {
    let (rsa, ec) = (rsa_key(), KeyPair::generate().unwrap());
    let (rsa, ec) = (zone.proxies.party(PROXY, &rsa), zone.proxies.party(PROXY, &ec));
    Leaves::from_pem(rsa.pems(), ec.pems(), &Versions::Tls12.provider()).unwrap()
}

pub(super) fn proxy_expected(zone: &Zone, versions: Versions) -> Arc<Expectation> {
    Expectation::new(label("plant-7"), Role::ZoneProxy, None, &[zone.proxies.pem()], versions).unwrap()
}

/// A server that asks for no certificate.
fn open_server(zone: &Zone, versions: Versions) -> Arc<ServerConfig> {
    server(leaves(zone), None, None, versions).unwrap()
}

/// A verifier that takes no P-256 signatures where it is told so.
#[derive(Debug)]
struct Client {
    expectation: Arc<Expectation>,
    takes_p256: bool,
}

impl ServerCertVerifier for Client {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.expectation.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.expectation.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.expectation.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = self.expectation.supported_verify_schemes();
        schemes.retain(|scheme| self.takes_p256 || *scheme != SignatureScheme::ECDSA_NISTP256_SHA256);
        schemes
    }
}

/// A client that offers these suites alone, and the versions that go with them.
fn client_with(zone: &Zone, suites: &[Suite], takes_p256: bool) -> Arc<ClientConfig> {
    let mut provider = (*Versions::Tls12And13.provider()).clone();
    provider.cipher_suites.retain(|suite| suites.contains(&suite.suite()));
    let speaks = |version: ProtocolVersion| {
        provider.cipher_suites.iter().any(|suite| suite.version().version == version)
    };
    let all = Versions::Tls12And13.protocol_versions();
    let versions: Vec<_> = all.iter().copied().filter(|version| speaks(version.version)).collect();
    let verifier = Client { expectation: proxy_expected(zone, Versions::Tls12And13), takes_p256 };
    let config = ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Arc::new(config)
}

/// The kind of the key that the server shows, or the server's error.
fn shown(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Result<KeyKind, Error> {
    let handshake = Handshake::of(client, server);
    if !handshake.succeeded() {
        return Err(handshake.server.error.expect("the server's error"));
    }
    let chain = handshake.client.connection.peer_certificates().unwrap();
    Ok(facts(&chain[0], "leaf").unwrap().key)
}

#[test]
fn each_suite_connects_by_itself_with_the_leaf_that_it_needs() {
    let zone = Zone::new();
    let port = open_server(&zone, Versions::Tls12);
    for (suites, kind) in [(RSA, KeyKind::Rsa(2048)), (ECDSA, KeyKind::P256)] {
        for suite in suites {
            let client = client_with(&zone, &[suite], true);
            let handshake = Handshake::of(&client, &port);
            assert!(handshake.succeeded(), "{suite:?}");
            let connection = &handshake.server.connection;
            assert_eq!(connection.protocol_version(), Some(ProtocolVersion::TLSv1_2));
            assert_eq!(connection.negotiated_cipher_suite().unwrap().suite(), suite);
            assert_eq!(shown(&client, &port), Ok(kind), "{suite:?}");
        }
    }
}

#[test]
fn whoever_can_take_the_p256_leaf_gets_it_and_all_others_the_rsa_leaf() {
    let zone = Zone::new();
    let (older, newer) = (open_server(&zone, Versions::Tls12), open_server(&zone, Versions::Tls12And13));
    let mixed = [RSA, ECDSA].concat();
    for (port, suites, takes_p256, kind) in [
        (&older, &mixed[..], true, KeyKind::P256),
        (&older, &ECDSA, true, KeyKind::P256),
        (&older, &RSA, true, KeyKind::Rsa(2048)),
        // What curl offers with TLS 1.3 on and its suites for 1.2 narrowed down.
        (&older, &[TLS13, RSA].concat(), true, KeyKind::Rsa(2048)),
        (&older, &mixed, false, KeyKind::Rsa(2048)),
        (&newer, &mixed, true, KeyKind::P256),
        (&newer, &RSA, true, KeyKind::Rsa(2048)),
        (&newer, &TLS13, true, KeyKind::P256),
        (&newer, &TLS13, false, KeyKind::Rsa(2048)),
    ] {
        let found = shown(&client_with(&zone, suites, takes_p256), port);
        assert_eq!(found, Ok(kind), "{suites:?}, P-256 signatures: {takes_p256}");
    }
}

#[test]
fn a_client_with_tls_1_3_alone_is_refused_unless_the_port_is_opted_in() {
    let zone = Zone::new();
    let client = client_with(&zone, &TLS13, true);
    let refused = Handshake::of(&client, &open_server(&zone, Versions::Tls12));
    assert!(!refused.succeeded());
    for versions in [Versions::Tls12And13, Versions::EndToEnd] {
        let handshake = Handshake::of(&client, &open_server(&zone, versions));
        assert!(handshake.succeeded());
        assert_eq!(handshake.client.connection.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    }
}

#[test]
fn the_groups_of_the_protocol_are_offered_first() {
    let groups: Vec<_> = Versions::Tls12.provider().kx_groups.iter().map(|group| group.name()).collect();
    assert_eq!(groups[..3], [NamedGroup::X25519, NamedGroup::secp256r1, NamedGroup::secp384r1]);
}

#[test]
fn our_client_and_our_server_meet_with_certificates_on_both_sides() {
    let zone = Zone::new();
    let own = zone.endpoints.party(ENDPOINT, &KeyPair::generate().unwrap());
    for versions in [Versions::Tls12, Versions::Tls12And13] {
        let trust = zone.trust(Vec::new());
        let port = Admission::new(label("plant-7"), Role::Endpoint, &trust, true, versions).unwrap();
        let port = server(leaves(&zone), Some(port), None, versions).unwrap();
        let dialer = client(proxy_expected(&zone, versions), Some(own.pems()), versions).unwrap();
        let handshake = Handshake::of(&dialer, &port);
        assert!(handshake.succeeded(), "{:?}", handshake.server.error);
        assert_eq!(shown(&dialer, &port), Ok(KeyKind::P256));
        assert!(dialer.require_ems && port.require_ems, "the extended master secret");
        assert!(!dialer.enable_sni, "no name is told to strangers");
        let chain = handshake.server.connection.peer_certificates().unwrap();
        assert_eq!(super::zone::leaf(&chain[0]).identity.to_string(), ENDPOINT);
    }
}

#[test]
fn a_client_without_a_certificate_comes_in_only_where_none_is_mandatory() {
    let zone = Zone::new();
    let nobody = client(proxy_expected(&zone, Versions::Tls12), None, Versions::Tls12).unwrap();
    for mandatory in [true, false] {
        let trust = zone.trust(Vec::new());
        let port =
            Admission::new(label("plant-7"), Role::ModuleServer, &trust, mandatory, Versions::Tls12).unwrap();
        let port = server(leaves(&zone), Some(port), None, Versions::Tls12).unwrap();
        assert_eq!(Handshake::of(&nobody, &port).succeeded(), !mandatory);
    }
}

#[test]
fn end_to_end_an_endpoint_shows_its_one_leaf_to_module_servers_and_nobody_else() {
    let zone = Zone::new();
    let versions = Versions::EndToEnd;
    let trust = zone.trust(Vec::new());
    let admission = Admission::new(label("plant-7"), Role::ModuleServer, &trust, true, versions).unwrap();
    let own = zone.endpoints.party(ENDPOINT, &KeyPair::generate().unwrap());
    let endpoint = end_to_end_server(&own.chain, &own.key, admission).unwrap();
    let caller = |uri: &str, authority: &super::zone::Authority| {
        let party = authority.party(uri, &KeyPair::generate().unwrap());
        let anchors = [zone.endpoints.pem()];
        let name = Some(label("host-7"));
        let called = Expectation::new(label("plant-7"), Role::Endpoint, name, &anchors, versions).unwrap();
        Handshake::of(&client(called, Some(party.pems()), versions).unwrap(), &endpoint)
    };
    let good = caller(MODULE_SERVER, &zone.module_servers);
    assert!(good.succeeded());
    assert_eq!(good.client.connection.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert!(!caller("spiffe://plant-7/endpoint/host-8", &zone.endpoints).succeeded());
    assert!(!caller(PROXY, &zone.proxies).succeeded());
    let again = caller(MODULE_SERVER, &zone.module_servers);
    assert_eq!(again.server.connection.handshake_kind(), Some(HandshakeKind::Full));
}

#[test]
fn leaves_that_show_both_keys_hold_for_a_token_with_either_suite() {
    let zone = Zone::new();
    let leaves = leaves(&zone);
    let keys = [&leaves.rsa, &leaves.ec].map(|key| facts(&key.cert[0], "leaf").unwrap().spki);
    let token = pin(&keys[0], &keys[1]);
    for both in [true, false] {
        let shown = if both { leaves.showing_both() } else { leaves.clone() };
        let port = server(shown, None, None, Versions::Tls12).unwrap();
        let dialer = client(Pinned::new(token), None, Versions::Tls12).unwrap();
        assert_eq!(Handshake::of(&dialer, &port).succeeded(), both, "both are shown: {both}");
    }
    let port = server(leaves.showing_both(), None, None, Versions::Tls12).unwrap();
    let stranger = client(Pinned::new([0; 32]), None, Versions::Tls12).unwrap();
    assert!(!Handshake::of(&stranger, &port).succeeded());
}

#[test]
fn a_leaf_whose_key_does_not_fit_is_refused_by_its_kind() {
    let zone = Zone::new();
    let (rsa, ec) = (rsa_key(), KeyPair::generate().unwrap());
    let (rsa, ec) = (zone.proxies.party(PROXY, &rsa), zone.proxies.party(PROXY, &ec));
    let provider = Versions::Tls12.provider();
    let mixed = (rsa.chain.as_str(), ec.key.as_str());
    let error = Leaves::from_pem(mixed, ec.pems(), &provider).unwrap_err().to_string();
    assert!(error.starts_with("RSA certificate: "), "{error}");
    let error = Leaves::from_pem(rsa.pems(), (&ec.chain, ""), &provider).unwrap_err().to_string();
    assert!(error.starts_with("P-256 certificate: "), "{error}");
    let anybody = || proxy_expected(&zone, Versions::Tls12);
    let error = client(anybody(), Some(mixed), Versions::Tls12).unwrap_err().to_string();
    assert!(error.starts_with("client certificate: "), "{error}");
}
