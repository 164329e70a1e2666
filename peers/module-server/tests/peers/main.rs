//! The client side against a proxy that is played here: what it accepts, refuses and says.

mod commands;
mod example;
mod fake_control;
mod fake_relay;
mod provisioning;
mod sessions;
mod trust;

use std::sync::{Arc, LazyLock};

use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use zone_module::zone::{Credentials, Validity, Zone};
use zone_protocol::identity::Label;
use zone_protocol::provisioning::{Certificates, SigningRequests};
use zone_protocol::tls::config::Leaves;
use zone_protocol::tls::policy::Versions;

/// A zone directory of its own for one test.
struct Scratch {
    directory: tempfile::TempDir,
    zone: Zone,
}

impl Scratch {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let zone = Zone::init(&directory.path().join("zone"), label("plant-7"), label("module-1")).unwrap();
        Self { directory, zone }
    }

    fn own(&self) -> Arc<Credentials> {
        Arc::new(self.zone.credentials().unwrap())
    }
}

fn label(text: &str) -> Label {
    text.parse().unwrap()
}

/// The two keys of a proxy.
struct Keys {
    rsa: KeyPair,
    ec: KeyPair,
}

impl Keys {
    /// The P-256 key is new, and so is the pin of the pair; one RSA key does for all, since each takes long.
    fn generate() -> Self {
        static RSA: LazyLock<String> = LazyLock::new(|| {
            KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap().serialize_pem()
        });
        let rsa = KeyPair::from_pem_and_sign_algo(&RSA, &PKCS_RSA_SHA256).unwrap();
        Self { rsa, ec: KeyPair::generate().unwrap() }
    }

    fn requests(&self) -> SigningRequests {
        let request =
            |key: &KeyPair| CertificateParams::default().serialize_request(key).unwrap().pem().unwrap();
        SigningRequests { rsa: request(&self.rsa), ec: request(&self.ec) }
    }

    fn self_signed(&self) -> Certificates {
        let sign = |key: &KeyPair| CertificateParams::default().self_signed(key).unwrap().pem();
        Certificates { rsa: sign(&self.rsa), ec: sign(&self.ec) }
    }

    fn leaves(&self, certificates: &Certificates) -> Leaves {
        let (rsa, ec) = (self.rsa.serialize_pem(), self.ec.serialize_pem());
        let provider = Versions::Tls12.provider();
        Leaves::from_pem((&certificates.rsa, &rsa), (&certificates.ec, &ec), &provider).unwrap()
    }

    /// As a proxy of the zone.
    fn member(&self, zone: &Zone, name: &str) -> Leaves {
        let validity = Validity::at(time::OffsetDateTime::now_utc());
        self.leaves(&zone.sign_proxy(&label(name), &self.requests(), &[], validity).unwrap())
    }
}
