//! The proxy's side of 17486, as a test drives it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use zone_protocol::head::{
    HeadLimits, RequestHead, ResponseHead, parse_request, parse_response, write_request, write_response,
};
use zone_protocol::identity::Role;
use zone_protocol::tls::config::{Leaves, server};
use zone_protocol::tls::policy::Versions;
use zone_protocol::tls::verifier::Admission;
use zone_protocol::trust::Denied;

use crate::soon;
use crate::zone::{Issued, Zone, issue};

pub(crate) const SESSION: &str = "0193f5a0-0000-7000-8000-000000000001";

pub(crate) struct Proxy {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    pub(crate) address: String,
    /// The value of `Zone-Parks` in its answers.
    pub(crate) keeps: Option<&'static str>,
}

impl Proxy {
    pub(crate) async fn start(zone: &Zone) -> Self {
        Self::start_as(zone, &issue(&zone.proxies, "spiffe://plant-7/zone-proxy/p1"), Vec::new()).await
    }

    /// A proxy that shows `own` and denies some.
    pub(crate) async fn start_as(zone: &Zone, own: &Issued, deny: Vec<Denied>) -> Self {
        let versions = Versions::Tls12;
        let pems = (own.chain.as_str(), own.key.as_str());
        let leaves = Leaves::from_pem(pems, pems, &versions.provider()).unwrap();
        let zone_name = "plant-7".parse().unwrap();
        let admission = Admission::new(zone_name, Role::Endpoint, &zone.trust(deny), true, versions).unwrap();
        let config = server(leaves, Some(admission), None, versions).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        Self { listener, acceptor: TlsAcceptor::from(config), address, keeps: None }
    }

    /// The next connection, parked.
    pub(crate) async fn park(&self) -> Park {
        self.try_park().await.expect("a connection that is let in")
    }

    /// The same; none where the next connection is not let in.
    pub(crate) async fn try_park(&self) -> Option<Park> {
        soon("a park", async {
            let (tcp, _) = self.listener.accept().await.unwrap();
            let mut tls = self.acceptor.accept(tcp).await.ok()?;
            let request = read_request(&mut tls).await;
            let mut fields = vec![("Connection", "Upgrade"), ("Upgrade", "ptth/1")];
            fields.extend(self.keeps.map(|keeps| ("Zone-Parks", keeps)));
            let answer = write_response(101, "Switching Protocols", &fields);
            tls.write_all(answer.as_bytes()).await.unwrap();
            Some(Park { tls, request })
        })
        .await
    }

    /// Whether the next connection gets as far as sending a request.
    pub(crate) async fn is_asked_to_park(&self) -> bool {
        soon("a connection", async {
            let (tcp, _) = self.listener.accept().await.unwrap();
            match self.acceptor.accept(tcp).await {
                Ok(mut tls) => tls.read_u8().await.is_ok(),
                Err(_) => false,
            }
        })
        .await
    }

    /// The next connection, refused with these words.
    pub(crate) async fn turn_away(&self, answer: &str) {
        soon("a connection", async {
            let (tcp, _) = self.listener.accept().await.unwrap();
            let Ok(mut tls) = self.acceptor.accept(tcp).await else { return };
            read_request(&mut tls).await;
            tls.write_all(answer.as_bytes()).await.unwrap();
            tls.shutdown().await.unwrap();
        })
        .await;
    }
}

pub(crate) struct Park {
    pub(crate) tls: TlsStream<TcpStream>,
    pub(crate) request: RequestHead,
}

impl Park {
    pub(crate) async fn ping(&mut self) -> ResponseHead {
        let ping = write_request("OPTIONS", "*", &[("Host", "host-7")]);
        self.tls.write_all(ping.as_bytes()).await.unwrap();
        soon("the answer to a ping", read_response(&mut self.tls)).await
    }

    /// Asks for a service: the answer, and the session that it may be.
    pub(crate) async fn connect(mut self, service: &str) -> (ResponseHead, Session) {
        let target = format!("host-7:{service}");
        let fields = [("Host", &*target), ("Zone-Session", SESSION), ("Forwarded", "for=_inside")];
        let request = write_request("CONNECT", &target, &fields);
        self.tls.write_all(request.as_bytes()).await.unwrap();
        let head = soon("the answer to a CONNECT", read_response(&mut self.tls)).await;
        (head, Session(self.tls))
    }

    /// Lets go of the park for a newer one, in words.
    pub(crate) async fn evict(mut self) {
        let fields = [("Host", "host-7"), ("Connection", "close"), ("Zone-Park-End", "evicted")];
        let last = write_request("OPTIONS", "*", &fields);
        // The endpoint may have let go of it meanwhile.
        if self.tls.write_all(last.as_bytes()).await.is_ok() {
            let _ = self.tls.shutdown().await;
        }
    }

    /// Whether the endpoint has ended it by now.
    pub(crate) fn has_ended(&mut self) -> bool {
        let mut space = [0; 64];
        let mut space = ReadBuf::new(&mut space);
        let read = Pin::new(&mut self.tls).poll_read(&mut Context::from_waker(Waker::noop()), &mut space);
        read.is_ready()
    }

    /// Lets go of the park in an orderly way.
    pub(crate) async fn close(mut self) {
        self.tls.shutdown().await.unwrap();
    }
}

/// A session at the proxy's end.
#[derive(Debug)]
pub(crate) struct Session(pub(crate) TlsStream<TcpStream>);

impl Session {
    /// Sends `bytes` and ends that direction.
    pub(crate) async fn say_all(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
        self.0.shutdown().await.unwrap();
    }

    /// Reads to the end: what came, and whether the end was an orderly one.
    pub(crate) async fn hear_all(&mut self) -> (Vec<u8>, io::Result<()>) {
        let mut heard = Vec::new();
        let end = soon("the session to end", self.0.read_to_end(&mut heard)).await;
        (heard, end.map(drop))
    }

    /// Ends the connection without close_notify, and waits until the other side has answered likewise.
    pub(crate) async fn cut(mut self) {
        self.0.flush().await.unwrap();
        let tcp = self.0.get_mut().0;
        tcp.shutdown().await.unwrap();
        soon("the other side's end", tcp.read_to_end(&mut Vec::new())).await.unwrap();
    }
}

async fn read_request(tls: &mut TlsStream<TcpStream>) -> RequestHead {
    let mut head = Vec::new();
    loop {
        head.push(tls.read_u8().await.unwrap());
        if let Some((request, _)) = parse_request(&head, HeadLimits::default()).unwrap() {
            return request;
        }
    }
}

async fn read_response(tls: &mut TlsStream<TcpStream>) -> ResponseHead {
    let mut head = Vec::new();
    loop {
        head.push(tls.read_u8().await.unwrap());
        if let Some((response, _)) = parse_response(&head, HeadLimits::default()).unwrap() {
            return response;
        }
    }
}

/// Both ends of a channel that a service of a test reports through.
pub(crate) fn report<T>()
-> (Arc<tokio::sync::mpsc::UnboundedSender<T>>, tokio::sync::mpsc::UnboundedReceiver<T>) {
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    (Arc::new(tell), told)
}
