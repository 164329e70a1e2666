//! A zone's authorities and the certificates that they issue.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::ClientConfig;
use zone_endpoint::{Config, Credentials, Endpoint};
use zone_protocol::identity::Role;
use zone_protocol::tls::config::client;
use zone_protocol::tls::policy::Versions;
use zone_protocol::tls::verifier::Expectation;
use zone_protocol::trust::{Anchors, Denied, Trust};

pub(crate) type Authority = CertifiedIssuer<'static, KeyPair>;

/// A chain and its key, PEM.
pub(crate) struct Issued {
    pub(crate) chain: String,
    pub(crate) key: String,
}

/// The zone `plant-7`, with an authority for each role, and the endpoint `host-7`.
pub(crate) struct Zone {
    pub(crate) proxies: Authority,
    pub(crate) endpoints: Authority,
    pub(crate) module_servers: Authority,
    pub(crate) bundle: tempfile::TempDir,
}

impl Zone {
    pub(crate) fn new() -> Self {
        let zone = Self {
            proxies: authority("proxies"),
            endpoints: authority("endpoints"),
            module_servers: authority("module servers"),
            bundle: tempfile::tempdir().unwrap(),
        };
        let endpoint = issue(&zone.endpoints, "spiffe://plant-7/endpoint/host-7");
        for (file, content) in [
            ("endpoint.crt", &endpoint.chain),
            ("endpoint.key", &endpoint.key),
            ("zone-proxy-ca.crt", &zone.proxies.pem()),
            ("module-server-ca.crt", &zone.module_servers.pem()),
        ] {
            std::fs::write(zone.file(file), content).unwrap();
        }
        zone
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.bundle.path().join(name)
    }

    /// What a proxy of this zone trusts.
    pub(crate) fn trust(&self, deny: Vec<Denied>) -> Trust {
        let anchors =
            Anchors { endpoint: vec![self.endpoints.pem()], module_server: vec![self.module_servers.pem()] };
        Trust::of(1, anchors, deny)
    }

    /// The configuration of `host-7` with `added` behind it, as a file of its bundle.
    pub(crate) fn config_file(&self, proxies: &[&str], added: &str) -> PathBuf {
        let text = format!(
            "id = 'host-7'\nzone = 'plant-7'\nproxies = {proxies:?}\n\
             certificate = 'endpoint.crt'\nkey = 'endpoint.key'\n\
             proxy_anchors = 'zone-proxy-ca.crt'\nmodule_server_anchors = 'module-server-ca.crt'\n{added}"
        );
        let path = self.file("zone-endpoint.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn credentials(&self) -> Credentials {
        Credentials::read(&Config::load(&self.config_file(&["127.0.0.1:1"], "")).unwrap()).unwrap()
    }

    /// `host-7` with one park and no service yet.
    pub(crate) fn endpoint(&self, proxies: &[&str]) -> Endpoint {
        let proxies: Vec<_> = proxies.iter().map(ToString::to_string).collect();
        let tls = self.credentials().client().unwrap();
        Endpoint::new("host-7".parse().unwrap(), &proxies, tls).with_parks(1)
    }

    /// The client side of end-to-end TLS, showing a certificate for `identity` by `authority`.
    pub(crate) fn caller(&self, authority: &Authority, identity: &str) -> Arc<ClientConfig> {
        let own = issue(authority, identity);
        let expected = Expectation::new(
            "plant-7".parse().unwrap(),
            Role::Endpoint,
            Some("host-7".parse().unwrap()),
            &[self.endpoints.pem()],
            Versions::EndToEnd,
        );
        client(expected.unwrap(), Some((&own.chain, &own.key)), Versions::EndToEnd).unwrap()
    }
}

pub(crate) fn issue(authority: &Authority, identity: &str) -> Issued {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(identity).unwrap())];
    let certificate = params.signed_by(&key, authority).unwrap();
    Issued { chain: certificate.pem(), key: key.serialize_pem() }
}

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}
