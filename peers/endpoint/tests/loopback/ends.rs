//! How sessions end, and what is never lost on the way.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use zone_endpoint::Timing;

use crate::proxy::{Proxy, report};
use crate::zone::Zone;
use crate::{Running, local_service, soon, with_local};

#[tokio::test]
async fn a_service_that_ends_first_still_hears_the_rest() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let (tell, mut told) = report();
    let service = local_service(move |mut stream: TcpStream| {
        let tell = tell.clone();
        async move {
            stream.write_all(b"bye").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut heard = Vec::new();
            let end = stream.read_to_end(&mut heard).await;
            tell.send((heard, end.is_ok())).unwrap();
        }
    })
    .await;
    let mut endpoint = Running::start(with_local(zone.endpoint(&[&proxy.address]), "bye", service));
    let (_, mut session) = proxy.park().await.connect("bye").await;
    assert_eq!(session.hear_all().await.0, b"bye");
    session.say_all(b"one more thing").await;
    assert_eq!(soon("the service", told.recv()).await.unwrap(), (b"one more thing".to_vec(), true));
    assert_eq!(endpoint.session_end().await, (14, 3, None));
    endpoint.stopped().await;
}

/// More than the kernel receives for a service that doesn't read, and less than it holds to be sent.
const MUCH: usize = 512 << 10;

#[tokio::test]
async fn a_cut_session_is_a_reset_for_the_service_after_everything_that_came_before() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let (tell, mut told) = report();
    let (start, started) = tokio::sync::watch::channel(false);
    let service = local_service(move |mut stream: TcpStream| {
        let (tell, mut started) = (tell.clone(), started.clone());
        async move {
            started.wait_for(|started| *started).await.unwrap();
            let mut heard = Vec::new();
            let end = stream.read_to_end(&mut heard).await;
            tell.send((heard.len(), end.map_err(|e| e.kind()))).unwrap();
        }
    })
    .await;
    let mut endpoint = Running::start(with_local(zone.endpoint(&[&proxy.address]), "slow", service));
    let (_, mut session) = proxy.park().await.connect("slow").await;
    session.0.write_all(&vec![7; MUCH]).await.unwrap();
    session.cut().await;
    // The endpoint has seen the end by now, and still holds most of what came before.
    start.send_replace(true);
    let (heard, end) = soon("the service", told.recv()).await.unwrap();
    assert_eq!((heard, end), (MUCH, Err(io::ErrorKind::ConnectionReset)));
    let (received, _, broken) = endpoint.session_end().await;
    assert_eq!(received, MUCH as u64);
    assert_eq!(broken.as_deref(), Some("the session broke off: it ended without close_notify"));
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_service_that_is_reset_cuts_the_session_after_everything_that_it_said() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let service = local_service(|mut stream: TcpStream| async move {
        stream.write_all(b"half a sen").await.unwrap();
        // What it says is taken up before it is reset.
        stream.read_u8().await.unwrap();
        stream.set_zero_linger().unwrap();
    })
    .await;
    let mut endpoint = Running::start(with_local(zone.endpoint(&[&proxy.address]), "crash", service));
    let (_, mut session) = proxy.park().await.connect("crash").await;
    let mut heard = [0; 10];
    session.0.read_exact(&mut heard).await.unwrap();
    session.0.write_all(b"!").await.unwrap();
    let (rest, end) = session.hear_all().await;
    assert_eq!((&heard, rest.len()), (b"half a sen", 0));
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    let broken = endpoint.session_end().await.2.unwrap();
    assert!(broken.starts_with("the service broke off"), "{broken}");
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_session_may_end_by_itself_when_the_endpoint_stops() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let service = local_service(crate::reverse_all).await;
    let mut endpoint = Running::start(with_local(zone.endpoint(&[&proxy.address]), "reverse", service));
    let (_, mut session) = proxy.park().await.connect("reverse").await;
    let next = proxy.park().await;
    endpoint.stop();
    next.close().await;
    session.say_all(b"ko").await;
    let (heard, end) = session.hear_all().await;
    assert_eq!((heard.as_slice(), end.is_ok()), (&b"ok"[..], true));
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_session_that_goes_on_after_the_grace_is_cut_at_both_ends() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let (tell, mut told) = report();
    let service = local_service(move |mut stream: TcpStream| {
        let tell = tell.clone();
        async move {
            let end = stream.read_to_end(&mut Vec::new()).await;
            tell.send(end.map_err(|e| e.kind())).unwrap();
        }
    })
    .await;
    let timing = Timing { shutdown_grace: Duration::from_millis(50), ..Timing::default() };
    let endpoint = with_local(zone.endpoint(&[&proxy.address]), "long", service).with_timing(timing);
    let endpoint = Running::start(endpoint);
    let (_, mut session) = proxy.park().await.connect("long").await;
    endpoint.stopped().await;
    assert_eq!(session.hear_all().await.1.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    let end = soon("the service", told.recv()).await.unwrap();
    assert_eq!(end, Err(io::ErrorKind::ConnectionReset));
}
