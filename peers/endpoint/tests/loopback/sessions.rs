//! What a session reaches, and what it does not.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use zone_endpoint::{Endpoint, Event, LocalTcp, Protection, SessionStream, service_fn};

use crate::proxy::{Proxy, Session};
use crate::zone::Zone;
use crate::{Running, local_service, reverse_all, soon, with_local};

#[tokio::test]
async fn a_session_reaches_its_service_by_name_and_by_number_and_each_direction_ends_by_itself() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let service = local_service(reverse_all).await;
    let mut endpoint = Running::start(with_local(zone.endpoint(&[&proxy.address]), "reverse", service));
    for asked in ["reverse".to_owned(), service.port().to_string()] {
        let (head, mut session) = proxy.park().await.connect(&asked).await;
        assert_eq!((head.status, head.fields.get("Zone-End-To-End")), (200, Some("off")));
        assert_eq!(head.fields.get("Content-Length"), None);
        session.say_all(b"drow eht").await;
        let (heard, end) = session.hear_all().await;
        assert_eq!((heard.as_slice(), end.is_ok()), (&b"the word"[..], true));
        assert_eq!(endpoint.session_end().await, (8, 8, None));
    }
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_new_park_is_there_while_the_session_goes_on() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let service = local_service(reverse_all).await;
    let endpoint = Running::start(with_local(zone.endpoint(&[&proxy.address]), "reverse", service));
    let (_, mut first) = proxy.park().await.connect("reverse").await;
    let (_, mut second) = proxy.park().await.connect("reverse").await;
    second.say_all(b"2").await;
    first.say_all(b"1").await;
    assert_eq!(first.hear_all().await.0, b"1");
    assert_eq!(second.hear_all().await.0, b"2");
    endpoint.stopped().await;
}

#[tokio::test]
async fn what_is_not_on_the_list_is_refused_and_the_endpoint_parks_again() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let service = local_service(reverse_all).await;
    let mut endpoint = Running::start(with_local(zone.endpoint(&[&proxy.address]), "reverse", service));
    for asked in ["files", "22"] {
        let (head, mut session) = proxy.park().await.connect(asked).await;
        assert_eq!((head.status, &*head.reason), (404, "No Such Service"));
        assert!(head.fields.lists("Connection", "close"));
        assert_eq!(head.fields.get("Content-Length"), Some("0"));
        assert!(session.hear_all().await.1.is_ok(), "a refusal ends in order");
        let reason = endpoint.event("the refusal", |event| match event {
            Event::SessionRefused { reason, .. } => Some(reason.clone()),
            _ => None,
        });
        assert_eq!(reason.await, "404 No Such Service");
    }
    proxy.park().await;
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_target_that_is_not_there_is_refused_before_any_200() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let nobody = "127.0.0.1:1".parse().unwrap();
    let endpoint = Running::start(with_local(zone.endpoint(&[&proxy.address]), "ssh", nobody));
    let (head, _) = proxy.park().await.connect("ssh").await;
    assert_eq!((head.status, &*head.reason), (502, "Target Refused"));
    endpoint.stopped().await;
}

#[tokio::test]
async fn one_session_too_many_is_refused_and_the_next_is_welcome_once_there_is_room() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let service = local_service(reverse_all).await;
    let endpoint = with_local(zone.endpoint(&[&proxy.address]), "reverse", service).with_max_sessions(1);
    let mut endpoint = Running::start(endpoint);
    let (head, mut only) = proxy.park().await.connect("reverse").await;
    assert_eq!(head.status, 200);
    let (head, _) = proxy.park().await.connect("reverse").await;
    assert_eq!((head.status, &*head.reason), (503, "Too Many Sessions"));
    only.say_all(b"").await;
    only.hear_all().await.1.unwrap();
    endpoint.session_end().await;
    let (head, _) = proxy.park().await.connect("reverse").await;
    assert_eq!(head.status, 200);
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_program_can_serve_sessions_itself() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let greet = service_fn(|mut stream: SessionStream| async move {
        let mut name = String::new();
        stream.read_to_string(&mut name).await?;
        stream.write_all(format!("good morning, {name}").as_bytes()).await?;
        stream.finish().await
    });
    let name = "greet".parse().unwrap();
    let endpoint = zone.endpoint(&[&proxy.address]).with_service(name, None, Protection::Off, greet).unwrap();
    let endpoint = Running::start(endpoint);
    let (_, mut session) = proxy.park().await.connect("greet").await;
    session.say_all(b"host-7").await;
    let (heard, end) = session.hear_all().await;
    assert_eq!((heard.as_slice(), end.is_ok()), (&b"good morning, host-7"[..], true));
    endpoint.stopped().await;
}

async fn protected(zone: &Zone, proxy: &Proxy) -> Endpoint {
    let target = LocalTcp::new(&local_service(reverse_all).await.to_string());
    let protection = Protection::EndToEnd(zone.credentials().end_to_end_server().unwrap());
    let endpoint = zone.endpoint(&[&proxy.address]);
    endpoint.with_service("reverse".parse().unwrap(), None, protection, target).unwrap()
}

pub(crate) async fn shake_hands(
    session: Session,
    config: Arc<ClientConfig>,
) -> std::io::Result<tokio_rustls::client::TlsStream<tokio_rustls::server::TlsStream<tokio::net::TcpStream>>>
{
    let name = ServerName::try_from("host-7").unwrap();
    soon("the end-to-end handshake", TlsConnector::from(config).connect(name, session.0)).await
}

#[tokio::test]
async fn where_it_is_required_tls_runs_end_to_end_and_says_who_is_there() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let mut endpoint = Running::start(protected(&zone, &proxy).await);
    let (head, session) = proxy.park().await.connect("reverse").await;
    assert_eq!((head.status, head.fields.get("Zone-End-To-End")), (200, Some("required")));
    let caller = zone.caller(&zone.module_servers, "spiffe://plant-7/module-server/standby");
    let mut inner = shake_hands(session, caller).await.unwrap();
    inner.write_all(b"drow eht").await.unwrap();
    inner.shutdown().await.unwrap();
    let mut heard = Vec::new();
    soon("the session to end", inner.read_to_end(&mut heard)).await.unwrap();
    assert_eq!(heard, b"the word");
    // The proxy called it `inside`; the certificate counts.
    let identity = endpoint.event("the start", |event| match event {
        Event::SessionStarted { module_server, .. } => Some(module_server.clone()),
        _ => None,
    });
    assert_eq!(identity.await.unwrap().to_string(), "spiffe://plant-7/module-server/standby");
    assert_eq!(endpoint.session_end().await, (8, 8, None));
    endpoint.stopped().await;
}

#[tokio::test]
async fn whoever_is_no_module_server_of_the_zone_does_not_get_in_end_to_end() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let mut endpoint = Running::start(protected(&zone, &proxy).await);
    for (authority, identity, words) in [
        (&zone.proxies, "spiffe://plant-7/module-server/inside", "authority"),
        (&zone.module_servers, "spiffe://plant-7/endpoint/host-8", "module-server"),
    ] {
        let (head, session) = proxy.park().await.connect("reverse").await;
        assert_eq!(head.status, 200);
        // In TLS 1.3 the client is through before the server has judged its certificate.
        if let Ok(mut inner) = shake_hands(session, zone.caller(authority, identity)).await {
            soon("the alert", inner.read_to_end(&mut Vec::new())).await.unwrap_err();
        }
        let reason = endpoint.event("the refusal", |event| match event {
            Event::SessionRefused { reason, .. } => Some(reason.clone()),
            _ => None,
        });
        let reason = reason.await;
        assert!(reason.contains(identity) && reason.contains(words), "{reason}");
    }
    endpoint.stopped().await;
}
