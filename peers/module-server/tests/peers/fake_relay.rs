//! A proxy's Module Server port: each connection is answered by a script.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use zone_module::proxy::ProxyClient;
use zone_module::zone::{ProxyEntry, Settings};
use zone_protocol::head::{HeadLimits, parse_request, write_response};
use zone_protocol::identity::Role;
use zone_protocol::provisioning::{PortStatus, Provisioned};
use zone_protocol::proxy_status::{ProxyStatus, Reason};
use zone_protocol::tls::config;
use zone_protocol::tls::policy::Versions;
use zone_protocol::tls::verifier::Admission;

use crate::{Keys, Scratch, label};

pub(crate) type Stream = TlsStream<TcpStream>;

pub(crate) struct FakeRelay {
    pub(crate) address: SocketAddr,
    pub(crate) name: &'static str,
    accepting: tokio::task::JoinHandle<()>,
}

impl FakeRelay {
    /// `script` gets every connection whose handshake succeeded.
    pub(crate) async fn start<F>(
        scratch: &Scratch,
        name: &'static str,
        script: impl Fn(Stream) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::start_after(std::future::ready(()), scratch, name, script).await
    }

    /// The same, with no handshake before `signal` is done.
    pub(crate) async fn start_after<F>(
        signal: impl Future<Output = ()> + Send + 'static,
        scratch: &Scratch,
        name: &'static str,
        script: impl Fn(Stream) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = tls(scratch, name);
        let script = Arc::new(script);
        let accepting = tokio::spawn(async move {
            signal.await;
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (tls, script) = (TlsAcceptor::from(Arc::clone(&tls)), Arc::clone(&script));
                tokio::spawn(async move {
                    if let Ok(stream) = tls.accept(tcp).await {
                        script(stream).await;
                    }
                });
            }
        });
        Self { address, name, accepting }
    }

    pub(crate) fn client(&self, scratch: &Scratch) -> ProxyClient {
        ProxyClient::of(&self.entry(), &scratch.own()).unwrap()
    }

    /// As the zone directory would remember it.
    pub(crate) fn entry(&self) -> ProxyEntry {
        let provisioned = Provisioned {
            id: "1".into(),
            zone: label("plant-7"),
            name: label(self.name),
            trust_version: 1,
            ports: vec![PortStatus {
                purpose: "module-server".into(),
                address: self.address.ip(),
                port: self.address.port(),
                listening: true,
                firewall: "none".into(),
            }],
        };
        ProxyEntry::new(vec!["127.0.0.1".into()], 17488, Settings::default(), &provisioned)
    }
}

impl Drop for FakeRelay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn tls(scratch: &Scratch, name: &str) -> Arc<ServerConfig> {
    let (zone, trust) = (scratch.zone.name().clone(), scratch.zone.trust().unwrap());
    let admission = Admission::new(zone, Role::ModuleServer, &trust, true, Versions::Tls12).unwrap();
    let leaves = Keys::generate().member(&scratch.zone, name);
    config::server(leaves, Some(admission), None, Versions::Tls12).unwrap()
}

/// Reads a request head; whatever came behind it is a mistake of the client.
pub(crate) async fn read_request(stream: &mut Stream) -> String {
    let mut bytes = Vec::new();
    loop {
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "the head is cut off");
        if let Some((head, length)) = parse_request(&bytes, HeadLimits::default()).unwrap() {
            assert_eq!(bytes.len(), length, "payload came before the 200");
            if head.method == "CONNECT" {
                return head.connect_target().unwrap().to_string();
            }
            return head.target;
        }
    }
}

pub(crate) async fn accept_session(stream: &mut Stream, policy: &str) {
    let fields = [("Zone-Session", "0193-session"), ("Zone-End-To-End", policy)];
    stream.write_all(write_response(200, "Connection Established", &fields).as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
}

pub(crate) async fn refuse(mut stream: Stream, name: &str, reason: Reason, words: &str) {
    read_request(&mut stream).await;
    answer_with(stream, name, reason, words).await;
}

/// The second half of [`refuse`].
pub(crate) async fn answer_with(mut stream: Stream, name: &str, reason: Reason, words: &str) {
    let status = ProxyStatus::new(&label(name), reason, None, words).to_field();
    let fields = [("Proxy-Status", status.as_str()), ("Connection", "close"), ("Content-Length", "0")];
    stream.write_all(write_response(reason.status(), "Refused", &fields).as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
}
