//! A zone's authorities and what they sign, by a clock that stands still.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;

use crate::identity::{Identity, Label, Role};
use crate::tls::certificate::Leaf;
use crate::tls::policy::Versions;
use crate::tls::verifier::Admission;
use crate::trust::{Anchors, Denied, Trust};

/// Seconds since 1970: what all tests call now.
pub(super) const NOW: i64 = 1_790_000_000;

pub(super) fn moment(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).unwrap()
}

pub(super) fn unix(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds.try_into().unwrap()))
}

pub(super) fn label(text: &str) -> Label {
    text.parse().unwrap()
}

pub(super) fn identity(uri: &str) -> Identity {
    uri.parse().unwrap()
}

/// One RSA key for all tests, since each takes long to make.
pub(super) fn rsa_key() -> KeyPair {
    static PEM: LazyLock<String> = LazyLock::new(|| {
        KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap().serialize_pem()
    });
    KeyPair::from_pem_and_sign_algo(&PEM, &PKCS_RSA_SHA256).unwrap()
}

/// What a leaf is to say. The default is what a party of the zone has: valid for a day around [`NOW`].
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) names: Vec<SanType>,
    pub(super) not_before: i64,
    pub(super) not_after: i64,
    pub(super) serial: Vec<u8>,
    pub(super) authority: bool,
    pub(super) purposes: Vec<ExtendedKeyUsagePurpose>,
}

impl Draft {
    /// Of a party with this one URI.
    pub(super) fn of(uri: &str) -> Self {
        Self::with_uris(&[uri])
    }

    pub(super) fn with_uris(uris: &[&str]) -> Self {
        Self {
            names: uris.iter().map(|uri| SanType::URI(Ia5String::try_from(*uri).unwrap())).collect(),
            not_before: NOW - 43_200,
            not_after: NOW + 43_200,
            serial: vec![7],
            authority: false,
            purposes: Vec::new(),
        }
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.subject_alt_names.clone_from(&self.names);
        params.not_before = moment(self.not_before);
        params.not_after = moment(self.not_after);
        params.serial_number = Some(SerialNumber::from_slice(&self.serial));
        params.extended_key_usages.clone_from(&self.purposes);
        if self.authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params
    }
}

/// Somebody who signs.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// A root of this name.
    pub(super) fn new(name: &str) -> Self {
        Self(CertifiedIssuer::self_signed(authority_params(name), KeyPair::generate().unwrap()).unwrap())
    }

    /// An authority of this name whose own certificate is signed by `above`.
    pub(super) fn under(above: &Self, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::signed_by(authority_params(name), key, &above.0).unwrap())
    }

    /// One whose certificate says what its key is for.
    pub(super) fn under_for(above: &Self, name: &str, usages: &[KeyUsagePurpose]) -> Self {
        let mut params = authority_params(name);
        params.key_usages = usages.to_vec();
        Self(CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &above.0).unwrap())
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(super) fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// A leaf with a key that nobody needs.
    pub(super) fn sign(&self, draft: &Draft) -> CertificateDer<'static> {
        static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().unwrap());
        self.sign_key(draft, &KEY)
    }

    pub(super) fn sign_key(&self, draft: &Draft, key: &KeyPair) -> CertificateDer<'static> {
        draft.params().signed_by(key, &self.0).unwrap().der().clone()
    }

    /// A party whose certificate is valid whenever a test runs, with its key.
    pub(super) fn party(&self, uri: &str, key: &KeyPair) -> Party {
        let draft = Draft { not_before: 0, not_after: 4_000_000_000, ..Draft::of(uri) };
        self.party_of(&draft, key)
    }

    pub(super) fn party_of(&self, draft: &Draft, key: &KeyPair) -> Party {
        let chain = draft.params().signed_by(key, &self.0).unwrap().pem();
        Party { chain, key: key.serialize_pem() }
    }
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// A chain and its key, PEM.
pub(super) struct Party {
    pub(super) chain: String,
    pub(super) key: String,
}

impl Party {
    pub(super) fn pems(&self) -> (&str, &str) {
        (&self.chain, &self.key)
    }
}

/// The zone `plant-7`.
pub(super) struct Zone {
    pub(super) endpoints: Authority,
    pub(super) module_servers: Authority,
    pub(super) proxies: Authority,
}

impl Zone {
    pub(super) fn new() -> Self {
        Self {
            endpoints: Authority::new("endpoints"),
            module_servers: Authority::new("module servers"),
            proxies: Authority::new("proxies"),
        }
    }

    pub(super) fn authority(&self, role: Role) -> &Authority {
        match role {
            Role::Endpoint => &self.endpoints,
            Role::ModuleServer => &self.module_servers,
            _ => &self.proxies,
        }
    }

    pub(super) fn trust(&self, deny: Vec<Denied>) -> Trust {
        let anchors =
            Anchors { endpoint: vec![self.endpoints.pem()], module_server: vec![self.module_servers.pem()] };
        Trust::of(1, anchors, deny)
    }

    /// The port for `role`, denying nobody.
    pub(super) fn port(&self, role: Role) -> Arc<Admission> {
        self.port_denying(role, Vec::new())
    }

    pub(super) fn port_denying(&self, role: Role, deny: Vec<Denied>) -> Arc<Admission> {
        admission(role, &self.trust(deny)).unwrap()
    }
}

pub(super) fn admission(role: Role, trust: &Trust) -> Result<Arc<Admission>, crate::tls::TlsError> {
    Admission::new(label("plant-7"), role, trust, true, Versions::Tls12)
}

pub(super) fn leaf(der: &CertificateDer<'_>) -> Leaf {
    Leaf::read(der).unwrap()
}
