//! Peers of both sides by their libraries: many of them in one process.

use std::sync::Arc;

use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;
use zone_endpoint::{Endpoint, Protection, Service, SessionStream, service_fn};
use zone_module::proxies;
use zone_module::proxy::ProxyClient;
use zone_module::session::{EndToEnd, Session};
use zone_module::zone::Zone as Directory;
use zone_protocol::identity::{Label, Role};
use zone_protocol::provisioning::EndpointStatus;
use zone_protocol::tls::config::client;
use zone_protocol::tls::policy::Versions;
use zone_protocol::tls::verifier::Expectation;
use zone_tests::host::Host;
use zone_tests::zone::Zone;

/// The Module Server of a zone, and whoever issues certificates in it.
pub(super) struct Inside {
    directory: Directory,
    anchor: String,
    clients: Vec<ProxyClient>,
}

impl Inside {
    pub(super) fn of(zone: &Zone) -> Self {
        let directory = Directory::open(&zone.path()).expect("a zone");
        let anchor = directory.anchor(Role::ZoneProxy).expect("an anchor");
        let clients = proxies::clients(&directory).expect("a proxy");
        Self { directory, anchor, clients }
    }

    /// One for each proxy.
    pub(super) fn clients(&self) -> &[ProxyClient] {
        &self.clients
    }

    /// A session to a service that brings its own security.
    pub(super) async fn session(&self, target: &str) -> Session {
        let target = target.parse().expect("a target");
        let session = proxies::connect(&self.clients, &target, EndToEnd::Off).await;
        session.unwrap_or_else(|error| panic!("{target}: {error}"))
    }

    /// Who is connected, in order of id.
    pub(super) async fn endpoints(&self) -> Vec<EndpointStatus> {
        self.clients[0].endpoints().await.expect("a list").endpoints
    }

    /// An endpoint with a certificate of its own that parks at a host; it has no services yet.
    pub(super) fn endpoint(&self, host: &Host, id: &str) -> Endpoint {
        let proxy = host.port(17486).to_string();
        Endpoint::new(label(id), &[proxy], self.certified(id))
    }

    /// A client and the server that it expects, an endpoint of the zone: TLS as on the proxy's ports, without the proxy.
    pub(super) fn pair(&self) -> (Arc<ClientConfig>, String, String) {
        let (versions, id) = (Versions::Tls12, label("server"));
        let issued = self.directory.issue(Role::Endpoint, &id, None).expect("a certificate");
        let anchor = self.directory.anchor(Role::Endpoint).expect("an anchor");
        let zone = self.directory.name().clone();
        let server = Expectation::new(zone, Role::Endpoint, Some(id), &[anchor], versions);
        let client = client(server.expect("an anchor"), None, versions).expect("a client");
        (client, issued.certificate.clone(), issued.key.to_string())
    }

    fn certified(&self, id: &str) -> Arc<ClientConfig> {
        let versions = Versions::Tls12;
        let issued = self.directory.issue(Role::Endpoint, &label(id), None).expect("a certificate");
        let anchors = std::slice::from_ref(&self.anchor);
        let zone = self.directory.name().clone();
        let proxy = Expectation::new(zone, Role::ZoneProxy, None, anchors, versions).expect("an anchor");
        client(proxy, Some((&issued.certificate, &issued.key)), versions).expect("a certificate")
    }
}

/// Adds a service without TLS end to end: what is tested is the relay.
pub(super) fn serving(endpoint: Endpoint, name: &str, service: Arc<dyn Service>) -> Endpoint {
    endpoint.with_service(label(name), None, Protection::Off, service).expect("a new name")
}

/// Runs an endpoint until the task is aborted.
pub(super) fn run(endpoint: Endpoint) -> JoinHandle<()> {
    tokio::spawn(endpoint.run(std::future::pending()))
}

/// Gives back what it gets.
pub(super) fn echo() -> Arc<dyn Service> {
    service_fn(|mut stream: SessionStream| async move {
        let mut buffer = [0; 4096];
        loop {
            match stream.read(&mut buffer).await? {
                0 => return stream.finish().await,
                n => stream.write_all(&buffer[..n]).await?,
            }
            stream.flush().await?;
        }
    })
}

/// Bytes of one request, and of its answer.
pub(super) const MESSAGE: usize = 64;

/// Sends a message and waits until it is back.
pub(super) async fn round_trip(session: &mut Session, seed: u8) -> std::io::Result<()> {
    let sent = [seed; MESSAGE];
    session.write_all(&sent).await?;
    session.flush().await?;
    let mut received = [0; MESSAGE];
    session.read_exact(&mut received).await?;
    assert_eq!(received, sent, "another session's bytes");
    Ok(())
}

pub(super) fn label(text: &str) -> Label {
    text.parse().expect("a label")
}
