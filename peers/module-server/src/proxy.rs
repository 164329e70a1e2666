//! The Module Server port, 17487: sessions, the list of endpoints, presence events.

use std::sync::Arc;
use std::time::Duration;

use hyper::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use zone_protocol::fields;
use zone_protocol::head::{HeadLimits, ResponseHead, parse_response, write_request};
use zone_protocol::identity::{Label, Role, Target};
use zone_protocol::provisioning::Endpoints;
use zone_protocol::proxy_status::{ProxyStatus, Reason};
use zone_protocol::tls::config;
use zone_protocol::tls::policy::Versions;
use zone_protocol::tls::verifier::Expectation;

use crate::control::UNKNOWN;
use crate::dial::{Dialer, Link, explain, peer};
use crate::error::{Error, Result, legible};
use crate::events::Events;
use crate::http::{self, ANSWER_TIMEOUT, Content};
use crate::session::{Early, EndToEnd, Session};
use crate::zone::{Credentials, ProxyEntry};

/// How long a CONNECT may take: the proxy waits for a park meanwhile, and the endpoint for its service.
const CONNECT_ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A client of one proxy's Module Server port.
#[derive(Debug, Clone)]
pub struct ProxyClient {
    name: Label,
    dialer: Dialer,
    /// Its port 17488, where it is known: what it shows there tells why nothing listens here.
    control: Option<Dialer>,
    own: Arc<Credentials>,
}

impl ProxyClient {
    /// For the proxy of this name, at the first of `hosts` that answers.
    pub fn new(hosts: Vec<String>, port: u16, name: Label, own: Arc<Credentials>) -> Result<Self> {
        let dialer = dialer((hosts, port), &name, &[Role::ZoneProxy], &own)?;
        Ok(Self { name, dialer, control: None, own })
    }

    /// For a proxy that the zone directory knows.
    pub fn of(proxy: &ProxyEntry, own: &Arc<Credentials>) -> Result<Self> {
        let port = proxy.settings.ports.module_server;
        let client = Self::new(proxy.module_server_hosts(), port, proxy.name.clone(), Arc::clone(own))?;
        let at = (proxy.addresses.clone(), proxy.control_port);
        Ok(Self { control: Some(dialer(at, &proxy.name, &UNKNOWN, own)?), ..client })
    }

    /// The name that the proxy must have.
    pub fn name(&self) -> &Label {
        &self.name
    }

    /// Opens a session. `policy` is what the caller insists on; a service that says otherwise is not used,
    /// since a captured proxy could say so too.
    pub async fn connect(&self, target: &Target, policy: EndToEnd) -> Result<Session> {
        self.connect_over(self.dial().await?, target, policy).await
    }

    /// A connection with its handshake done, for [`ProxyClient::connect_over`].
    pub(crate) async fn dial(&self) -> Result<Link> {
        match self.dialer.dial().await {
            Ok(link) => Ok(link),
            Err(error) => Err(self.explained(error).await),
        }
    }

    /// Where nothing listens, the reason may be that the proxy was reset, which its port 17488 shows: nothing is asked there.
    async fn explained(&self, error: Error) -> Error {
        let error = error.of_proxy(Some(&self.name));
        let Some(control) = self.control.as_ref().filter(|_| error.is_refused_connection()) else {
            return error;
        };
        match control.dial().await.map_err(|shown| shown.of_proxy(Some(&self.name))) {
            Err(shown @ (Error::Reset { .. } | Error::OtherZone { .. })) => shown,
            Ok(mut link) => {
                // Without close_notify the proxy would log a connection that was cut.
                let _ = link.stream.shutdown().await;
                error
            }
            Err(_) => error,
        }
    }

    /// The same as [`ProxyClient::connect`], over a connection that was dialed before.
    pub(crate) async fn connect_over(
        &self,
        link: Link,
        target: &Target,
        policy: EndToEnd,
    ) -> Result<Session> {
        let peer = peer(&link.address);
        let mut stream = link.stream;
        let step = format!("CONNECT {target}");
        let asking = async {
            let authority = target.to_string();
            let head = write_request("CONNECT", &authority, &[("Host", &authority)]);
            stream.write_all(head.as_bytes()).await?;
            stream.flush().await?;
            read_head(&mut stream).await
        };
        let (head, early) = match timeout(CONNECT_ANSWER_TIMEOUT, asking).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(Error::Broken { peer, step, why: explain(&error) }),
            Err(_) => return Err(Error::Deadline { peer, step, after: CONNECT_ANSWER_TIMEOUT }),
        };
        if head.status != 200 {
            return Err(refusal(peer, target, &head));
        }
        let field = |name| head.fields.get(name).unwrap_or_default();
        let offered = field(fields::END_TO_END).parse::<EndToEnd>().map_err(|_| Error::Broken {
            peer: peer.clone(),
            step,
            why: format!("the answer lacks a good {} field", fields::END_TO_END),
        })?;
        if offered != policy {
            return Err(Error::Policy { peer, target: target.clone(), offered });
        }
        let id = legible(field(fields::SESSION));
        let stream = Early::new(early, stream);
        match policy {
            EndToEnd::Off => Ok(Session::plain(id, peer, stream)),
            EndToEnd::Required => Session::end_to_end(id, peer, stream, &target.endpoint, &self.own).await,
        }
    }

    /// `GET /v1/endpoints`: who is connected to this proxy now.
    pub async fn endpoints(&self) -> Result<Endpoints> {
        let content = |_: &_| Content::default();
        let link = self.dial().await?;
        let answer = http::exchange(link, &Method::GET, "/v1/endpoints", ANSWER_TIMEOUT, content).await?;
        answer.document("the request for its endpoints")
    }

    /// `GET /v1/endpoints/events`: who comes and goes, beginning with a snapshot.
    pub async fn events(&self) -> Result<Events> {
        Events::open(self.dial().await?).await
    }
}

/// For a port of the proxy of this name, which may show itself in these roles.
fn dialer(
    (hosts, port): (Vec<String>, u16),
    name: &Label,
    shows: &[Role],
    own: &Credentials,
) -> Result<Dialer> {
    let (zone, anchors) = (own.zone.clone(), &own.proxy_anchors);
    let expected = Expectation::one_of(zone, shows, Some(name.clone()), anchors, Versions::Tls12)?;
    let tls = config::client(expected, Some((&own.certificate, &own.key)), Versions::Tls12)?;
    Ok(Dialer::new(hosts, port, tls))
}

/// Reads up to the end of a response head; what came behind it is handed back with it.
async fn read_head<S: tokio::io::AsyncRead + Unpin>(
    stream: &mut S,
) -> std::io::Result<(ResponseHead, Vec<u8>)> {
    let limits = HeadLimits::default();
    let mut bytes = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        match parse_response(&bytes, limits) {
            Ok(None) => {}
            Ok(Some((head, length))) => return Ok((head, bytes.split_off(length))),
            Err(error) => return Err(std::io::Error::other(error)),
        }
    }
}

fn refusal(peer: String, target: &Target, head: &ResponseHead) -> Error {
    let status = head.fields.get("Proxy-Status").and_then(ProxyStatus::from_field);
    let Some(status) = status else {
        let why = format!("{} {}", head.status, legible(&head.reason));
        return Error::Refused { peer, target: target.clone(), elsewhere: false, why };
    };
    let words = status.details.as_deref().unwrap_or(&head.reason);
    let repeated = format!("{target}: ");
    let words = words.strip_prefix(repeated.as_str()).unwrap_or(words);
    let answered = status.received_status.map(|code| format!(", the endpoint answered {code}"));
    let why = format!("{words} ({}{})", status.error, answered.unwrap_or_default());
    // No payload flows before a 200: an endpoint that one proxy reaches in vain may answer another one.
    let elsewhere = [Reason::UnknownEndpoint, Reason::NoPark, Reason::NoAnswer, Reason::Limit];
    let elsewhere = elsewhere.iter().any(|reason| reason.error() == status.error);
    Error::Refused { peer, target: target.clone(), elsewhere, why: legible(&why) }
}
