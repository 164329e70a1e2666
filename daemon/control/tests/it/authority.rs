//! A zone's authorities, as a test needs them: good certificates, and each kind of bad one.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, SanType,
};
use time::{Duration, OffsetDateTime};
use zone_protocol::identity::Role;
use zone_protocol::provisioning::{Certificates, Offer, PerPort, Provisioning, SigningRequests};
use zone_protocol::trust::{Anchors, Trust};

/// One authority for each role of a zone.
pub(crate) struct Zone {
    pub(crate) name: &'static str,
    proxies: Authority,
    endpoints: Authority,
    module_servers: Authority,
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A leaf with its key, PEM.
#[derive(Clone)]
pub(crate) struct Party {
    pub(crate) chain: String,
    pub(crate) key: String,
}

/// What a certificate for a proxy says. [`Zone::leaf`] makes a good one.
pub(crate) struct Leaf {
    pub(crate) uri: String,
    pub(crate) from: OffsetDateTime,
    pub(crate) until: OffsetDateTime,
    pub(crate) usage: ExtendedKeyUsagePurpose,
}

impl Zone {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            proxies: Authority::new("proxies"),
            endpoints: Authority::new("endpoints"),
            module_servers: Authority::new("module servers"),
        }
    }

    /// A Module Server of the zone.
    pub(crate) fn module_server(&self, name: &str) -> Party {
        self.module_servers.issue(&format!("spiffe://{}/{}/{name}", self.name, Role::ModuleServer))
    }

    /// Somebody whom the authority for endpoints vouches for.
    pub(crate) fn endpoint(&self, name: &str) -> Party {
        self.endpoints.issue(&format!("spiffe://{}/{}/{name}", self.name, Role::Endpoint))
    }

    /// What is good for a proxy of this name.
    pub(crate) fn leaf(&self, name: &str) -> Leaf {
        let now = OffsetDateTime::now_utc();
        Leaf {
            uri: format!("spiffe://{}/{}/{name}", self.name, Role::ZoneProxy),
            from: now - Duration::hours(1),
            until: now + Duration::days(30),
            usage: ExtendedKeyUsagePurpose::ServerAuth,
        }
    }

    /// What is good for 17488 of a proxy of this name.
    pub(crate) fn control_leaf(&self, name: &str) -> Leaf {
        Leaf { uri: format!("spiffe://{}/{}/{name}", self.name, Role::ZoneControl), ..self.leaf(name) }
    }

    /// Certificates for both keys of an offer.
    pub(crate) fn sign(&self, offer: &Offer, leaf: &Leaf) -> Certificates {
        self.sign_requests(&offer.signing_requests, leaf)
    }

    /// Certificates for two keys.
    pub(crate) fn sign_requests(&self, requests: &SigningRequests, leaf: &Leaf) -> Certificates {
        let sign = |request: &str| {
            let mut request = CertificateSigningRequestParams::from_pem(request).unwrap();
            fill(&mut request.params, leaf);
            request.signed_by(&self.proxies.issuer).unwrap().pem()
        };
        Certificates { rsa: sign(&requests.rsa), ec: sign(&requests.ec) }
    }

    pub(crate) fn trust(&self, version: u64) -> Trust {
        let anchors = Anchors {
            endpoint: vec![self.endpoints.pem.clone()],
            module_server: vec![self.module_servers.pem.clone()],
        };
        Trust::of(version, anchors, Vec::new())
    }

    /// The anchors for proxies.
    pub(crate) fn proxy_anchors(&self) -> Vec<String> {
        vec![self.proxies.pem.clone()]
    }

    /// A document that completes an offer, listening on one address.
    pub(crate) fn document(&self, offer: &Offer, name: &str, address: std::net::IpAddr) -> Provisioning {
        Provisioning {
            zone: self.name.parse().unwrap(),
            name: name.parse().unwrap(),
            certificates: Some(self.sign(offer, &self.leaf(name))),
            control_certificates: None,
            trust: self.trust(1),
            ports: PerPort { endpoint: 17486, module_server: 17487 },
            listen: PerPort { endpoint: vec![address], module_server: vec![address] },
            allowed_networks: PerPort { endpoint: Vec::new(), module_server: Vec::new() },
            limits: std::collections::BTreeMap::new(),
        }
    }
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn issue(&self, uri: &str) -> Party {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        let now = OffsetDateTime::now_utc();
        let leaf = Leaf {
            uri: uri.to_owned(),
            from: now - Duration::hours(1),
            until: now + Duration::days(30),
            usage: ExtendedKeyUsagePurpose::ClientAuth,
        };
        fill(&mut params, &leaf);
        let chain = params.signed_by(&key, &self.issuer).unwrap().pem();
        Party { chain, key: key.serialize_pem() }
    }
}

fn fill(params: &mut CertificateParams, leaf: &Leaf) {
    params.subject_alt_names = vec![SanType::URI(leaf.uri.clone().try_into().unwrap())];
    params.not_before = leaf.from;
    params.not_after = leaf.until;
    params.extended_key_usages = vec![leaf.usage.clone()];
}
