//! A small zone for unit tests: authorities, certificates, and the rules of a relay in it.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};
use zone_channel::{Identity, KeyPair as PemPair, OnStop, Policy};
use zone_protocol::identity::Label;
use zone_protocol::provisioning::PerPort;
use zone_protocol::tls::tickets::TicketKeys;
use zone_protocol::trust::{Anchors, Trust};
use zone_settings::{Limits, Timeouts};

/// An authority for one role.
pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
pub(crate) struct Certified {
    pub(crate) chain: String,
    pub(crate) key: String,
    pub(crate) der: CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A leaf for a SPIFFE id.
    pub(crate) fn leaf(&self, uri: &str) -> Certified {
        self.leaf_with(&KeyPair::generate().unwrap(), uri)
    }

    fn leaf_with(&self, key: &KeyPair, uri: &str) -> Certified {
        let now = OffsetDateTime::now_utc();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        (params.not_before, params.not_after) = (now - Duration::hours(1), now + Duration::hours(24));
        let certificate = params.signed_by(key, &self.issuer).unwrap();
        Certified { chain: certificate.pem(), key: key.serialize_pem(), der: certificate.der().clone() }
    }
}

/// What control says of a zone whose endpoints and Module Servers these authorities vouch for. `proxies` vouches for
/// the relay.
pub(crate) fn policy(proxies: &Authority, endpoints: &[&Authority], module_servers: &[&Authority]) -> Policy {
    let pair = |key: &KeyPair| {
        let certified = proxies.leaf_with(key, "spiffe://zone/zone-proxy/p1");
        PemPair { chain: certified.chain, key: certified.key }
    };
    let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let pems = |authorities: &[&Authority]| authorities.iter().map(|a| a.pem.clone()).collect();
    let keys = || TicketKeys::generate().unwrap();
    let label = |text: &str| -> Label { text.parse().unwrap() };
    Policy {
        zone: label("zone"),
        name: label("p1"),
        identity: Identity { rsa: pair(&rsa), ec: pair(&KeyPair::generate().unwrap()) },
        trust: Trust::of(
            1,
            Anchors { endpoint: pems(endpoints), module_server: pems(module_servers) },
            Vec::new(),
        ),
        tickets: PerPort { endpoint: keys(), module_server: keys() },
        tls13: false,
        allowed_networks: PerPort { endpoint: Vec::new(), module_server: Vec::new() },
        balancers: Vec::new(),
        limits: Limits::default(),
        timeouts: Timeouts { settle: 0.001, ..Timeouts::default() },
        log: None,
        on_stop: OnStop::default(),
    }
}
