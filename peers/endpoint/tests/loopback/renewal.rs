//! Certificates that are replaced on disk while the endpoint runs.

use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use zone_endpoint::{Certificates, Config, Endpoint, Event, Renewal};
use zone_protocol::tls::certificate::chain_from_pem;

use crate::proxy::{Park, Proxy};
use crate::sessions::shake_hands;
use crate::zone::{Issued, Zone, issue};
use crate::{Running, local_service, reverse_all, soon};

const HOST: &str = "spiffe://plant-7/endpoint/host-7";

/// An endpoint that was made from the files of the zone's bundle, with one park, and its certificates.
fn start(zone: &Zone, proxy: &Proxy, added: &str) -> (Running, Certificates) {
    let config = Config::load(&zone.config_file(&[&proxy.address], &format!("parks = 1\n{added}"))).unwrap();
    let endpoint = Endpoint::from_config(&config).unwrap();
    let certificates = endpoint.certificates();
    (Running::start(endpoint), certificates)
}

fn write(path: impl AsRef<Path>, text: &str) {
    std::fs::write(path, text).unwrap();
}

fn replace(zone: &Zone, issued: &Issued) {
    write(zone.file("endpoint.crt"), &issued.chain);
    write(zone.file("endpoint.key"), &issued.key);
}

fn shows(park: &Park, issued: &Issued) -> bool {
    let shown = park.tls.get_ref().1.peer_certificates().unwrap();
    shown[0] == chain_from_pem(&issued.chain, "certificate").unwrap()[0]
}

async fn closed(mut park: Park) {
    assert_eq!(soon("close_notify", park.tls.read(&mut [0; 1])).await.unwrap(), 0);
}

#[tokio::test]
async fn a_certificate_that_was_replaced_on_disk_is_shown_before_the_old_park_goes_and_a_session_goes_on() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let echo = local_service(|mut stream| async move {
        let (mut input, mut output) = stream.split();
        let _ = tokio::io::copy(&mut input, &mut output).await;
    })
    .await;
    let service = format!("[[service]]\nname = 'echo'\ntarget = '{echo}'\nend_to_end = 'off'\n");
    let (endpoint, certificates) = start(&zone, &proxy, &service);
    let (_, mut session) = proxy.park().await.connect("echo").await;
    let old = proxy.park().await;

    let renewed = issue(&zone.endpoints, HOST);
    replace(&zone, &renewed);
    assert_eq!(certificates.look(), Renewal::TakenUp);
    let park = proxy.park().await;
    assert!(shows(&park, &renewed) && !shows(&old, &renewed));
    closed(old).await;
    assert_eq!(certificates.look(), Renewal::Unchanged);

    session.0.write_all(b"still here").await.unwrap();
    let mut heard = [0; 10];
    soon("the echo", session.0.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"still here");
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_dial_finds_a_renewed_certificate_without_being_told() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let (endpoint, _) = start(&zone, &proxy, "");
    let park = proxy.park().await;
    let renewed = issue(&zone.endpoints, HOST);
    replace(&zone, &renewed);
    park.close().await;
    assert!(shows(&proxy.park().await, &renewed));
    endpoint.stopped().await;
}

#[tokio::test]
async fn files_that_do_not_fit_each_other_are_not_taken_up_until_they_do() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let (endpoint, certificates) = start(&zone, &proxy, "");
    let park = proxy.park().await;
    let renewed = issue(&zone.endpoints, HOST);
    let other = issue(&zone.endpoints, "spiffe://plant-7/endpoint/host-8");
    let anchors = zone.proxies.pem();
    for (file, text) in [
        ("endpoint.crt", &*renewed.chain),
        ("endpoint.crt", &renewed.chain[..renewed.chain.len() / 2]),
        ("endpoint.crt", ""),
        ("endpoint.crt", &*other.chain),
        ("zone-proxy-ca.crt", &anchors[..anchors.len() / 2]),
        ("module-server-ca.crt", ""),
    ] {
        let before = std::fs::read_to_string(zone.file(file)).unwrap();
        write(zone.file(file), text);
        assert_eq!(certificates.look(), Renewal::NotTakenUp, "{file}");
        // A dial in between is made with the certificates of before.
        write(zone.file(file), &before);
        assert_eq!(certificates.look(), Renewal::Unchanged, "{file}");
    }
    std::fs::remove_file(zone.file("endpoint.key")).unwrap();
    assert_eq!(certificates.look(), Renewal::NotTakenUp);
    park.close().await;
    let park = proxy.park().await;
    assert!(!shows(&park, &renewed), "a park with the certificate of before");
    replace(&zone, &renewed);
    assert_eq!(certificates.look(), Renewal::TakenUp);
    assert!(shows(&proxy.park().await, &renewed));
    closed(park).await;
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_renewed_certificate_that_no_proxy_takes_leaves_the_old_park_where_it_is() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let (endpoint, certificates) = start(&zone, &proxy, "");
    let mut old = proxy.park().await;
    replace(&zone, &issue(&Zone::new().endpoints, HOST));
    assert_eq!(certificates.look(), Renewal::TakenUp);
    assert!(!proxy.is_asked_to_park().await, "a stranger's certificate was taken");
    assert_eq!(old.ping().await.status, 200);

    let renewed = issue(&zone.endpoints, HOST);
    replace(&zone, &renewed);
    assert_eq!(certificates.look(), Renewal::TakenUp);
    let park = soon("a park that is taken", async {
        loop {
            let park = proxy.try_park().await;
            if let Some(park) = park {
                return park;
            }
        }
    })
    .await;
    assert!(shows(&park, &renewed));
    closed(old).await;
    endpoint.stopped().await;
}

/// A proxy that is captured lets in whom it likes; an endpoint whose anchors were renewed does not.
#[tokio::test]
async fn a_retired_authority_for_module_servers_is_refused_end_to_end_as_soon_as_the_anchors_are_renewed() {
    let (zone, later) = (Zone::new(), Zone::new());
    let proxy = Proxy::start(&zone).await;
    let target = local_service(reverse_all).await;
    let service = format!("[[service]]\nname = 'reverse'\ntarget = '{target}'\n");
    let (mut endpoint, _) = start(&zone, &proxy, &service);
    let caller = |authority| zone.caller(authority, "spiffe://plant-7/module-server/inside");
    let both = zone.module_servers.pem() + &later.module_servers.pem();
    for (anchors, old, new) in [
        (zone.module_servers.pem(), true, false),
        (both, true, true),
        (later.module_servers.pem(), false, true),
    ] {
        write(zone.file("module-server-ca.crt"), &anchors);
        for (authority, admitted) in [(&zone.module_servers, old), (&later.module_servers, new)] {
            let (_, session) = proxy.park().await.connect("reverse").await;
            if let Ok(mut inner) = shake_hands(session, caller(authority)).await {
                // In TLS 1.3 the client is through before the server has judged its certificate.
                let _ = inner.write_all(b"word").await;
                let _ = inner.shutdown().await;
                let _ = soon("the end", inner.read_to_end(&mut Vec::new())).await;
            }
            let started = endpoint.event("the session", |event| match event {
                Event::SessionStarted { .. } => Some(true),
                Event::SessionRefused { .. } => Some(false),
                _ => None,
            });
            assert_eq!(started.await, admitted, "{anchors}");
        }
    }
    endpoint.stopped().await;
}
