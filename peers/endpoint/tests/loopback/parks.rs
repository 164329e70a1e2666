//! Parking, staying parked, coming back.

use std::net::IpAddr;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use zone_endpoint::{Event, Timing};
use zone_protocol::trust::Denied;

use crate::proxy::{Park, Proxy};
use crate::zone::{Zone, issue};
use crate::{Running, soon};

/// Nobody dials for so long where all is settled: longer than a clean close or a first back-off makes an endpoint wait.
const QUIET: Duration = Duration::from_secs(4);

fn lost(event: &Event) -> Option<(bool, String)> {
    match event {
        Event::ParkLost { clean, reason, .. } => Some((*clean, reason.clone())),
        _ => None,
    }
}

fn failed(event: &Event) -> Option<String> {
    match event {
        Event::DialFailed { reason, .. } => Some(reason.clone()),
        _ => None,
    }
}

fn waiting(event: &Event) -> Option<Duration> {
    match event {
        Event::Waiting { pause } => Some(*pause),
        _ => None,
    }
}

#[tokio::test]
async fn an_endpoint_parks_as_often_as_it_should_and_under_one_instance() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let endpoint = Running::start(zone.endpoint(&[&proxy.address]).with_parks(2));
    let parks = [proxy.park().await, proxy.park().await];
    let instances: Vec<_> = parks
        .iter()
        .map(|park| {
            assert_eq!((&*park.request.method, &*park.request.target), ("GET", "/v1/park"));
            assert_eq!(park.request.fields.get("Host"), Some(&*proxy.address));
            assert_eq!(park.request.fields.get("Upgrade"), Some("ptth/1"));
            assert!(park.request.fields.lists("Connection", "upgrade"));
            park.request.fields.get("Zone-Instance").unwrap()
        })
        .collect();
    assert_eq!(instances[0], instances[1]);
    assert!(instances[0].len() == 32 && instances[0].bytes().all(|b| b.is_ascii_hexdigit()));
    endpoint.stopped().await;
}

///
#[tokio::test]
async fn every_ping_is_answered() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let endpoint = Running::start(zone.endpoint(&[&proxy.address]));
    let mut park = proxy.park().await;
    for _ in 0..3 {
        let answer = park.ping().await;
        assert_eq!((answer.status, answer.fields.get("Content-Length")), (200, Some("0")));
    }
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_clean_close_brings_the_endpoint_back_within_a_second() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let mut endpoint = Running::start(zone.endpoint(&[&proxy.address]));
    for _ in 0..3 {
        proxy.park().await.close().await;
        assert!(endpoint.event("the loss", lost).await.0, "a clean loss");
        assert!(endpoint.event("the wait", waiting).await <= Duration::from_secs(1));
    }
    proxy.park().await;
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_cut_park_is_a_failure_and_the_endpoint_backs_off_before_it_comes_back() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let timing = Timing { back_off_first: Duration::from_millis(100), ..Timing::default() };
    let mut endpoint = Running::start(zone.endpoint(&[&proxy.address]).with_timing(timing));
    for window in [100, 200, 400] {
        drop(proxy.park().await);
        let (clean, reason) = endpoint.event("the loss", lost).await;
        assert!(!clean && reason.starts_with("the connection broke"), "{reason}");
        assert!(endpoint.event("the wait", waiting).await <= Duration::from_millis(window));
    }
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_proxy_that_is_down_is_passed_over_and_the_one_that_works_is_asked_first_from_then_on() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let mut endpoint = Running::start(zone.endpoint(&["127.0.0.1:1", &proxy.address]));
    let park = proxy.park().await;
    let reason = endpoint.event("a failure", failed).await;
    assert!(reason.starts_with("proxy 127.0.0.1:1: no TCP connection"), "{reason}");
    park.close().await;
    proxy.park().await;
    let next = endpoint.event("the next dial", |event| match event {
        Event::Parked { proxy, .. } => Some(Ok(proxy.clone())),
        Event::DialFailed { reason, .. } => Some(Err(reason.clone())),
        _ => None,
    });
    let first = next.await;
    assert_eq!(first.as_deref(), Ok(&*proxy.address));
    endpoint.stopped().await;
}

///
#[tokio::test]
async fn a_silent_proxy_is_given_up() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let timing = Timing { silence: Duration::from_millis(200), ..Timing::default() };
    let mut endpoint = Running::start(zone.endpoint(&[&proxy.address]).with_timing(timing));
    let _silent = proxy.park().await;
    assert_eq!(endpoint.event("the loss", lost).await, (false, "not a byte for 0.2 s".to_owned()));
    proxy.park().await;
    endpoint.stopped().await;
}

#[tokio::test]
async fn bytes_that_are_no_request_end_the_park() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let mut endpoint = Running::start(zone.endpoint(&[&proxy.address]));
    let mut park = proxy.park().await;
    park.tls.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let (clean, reason) = endpoint.event("the loss", lost).await;
    assert!(!clean && reason.starts_with("protocol error: it sent something else"), "{reason}");
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_revoked_certificate_yields_one_line_that_says_what_to_do() {
    let zone = Zone::new();
    let own = issue(&zone.proxies, "spiffe://plant-7/zone-proxy/p1");
    let identity = "spiffe://plant-7/endpoint/host-7".parse().unwrap();
    let denied = Denied::Identity { identity, not_before: OffsetDateTime::now_utc() };
    let proxy = Proxy::start_as(&zone, &own, vec![denied]).await;
    let mut endpoint = Running::start(zone.endpoint(&[&proxy.address]));
    proxy.turn_away("").await;
    let expected = format!(
        "proxy {}: the other side says our certificate is revoked: have a new one issued",
        proxy.address
    );
    assert_eq!(endpoint.event("the failure", failed).await, expected);
    endpoint.stopped().await;
}

#[tokio::test]
async fn somebody_else_than_a_proxy_of_the_zone_is_refused_by_name() {
    let zone = Zone::new();
    for (identity, words) in [
        ("spiffe://plant-7/module-server/m1", "zone-proxy"),
        ("spiffe://plant-8/zone-proxy/p1", "zone plant-7"),
    ] {
        let proxy = Proxy::start_as(&zone, &issue(&zone.proxies, identity), Vec::new()).await;
        let mut endpoint = Running::start(zone.endpoint(&[&proxy.address]));
        proxy.turn_away("").await;
        let reason = endpoint.event("the failure", failed).await;
        assert!(reason.contains(identity) && reason.contains(words), "{reason}");
        endpoint.stopped().await;
    }
}

#[tokio::test]
async fn a_refused_park_is_reported_with_the_words_of_the_proxy() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let mut endpoint = Running::start(zone.endpoint(&[&proxy.address]));
    proxy.turn_away("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await;
    let reason = endpoint.event("the failure", failed).await;
    assert!(reason.ends_with("it refuses the park: 503 Service Unavailable"), "{reason}");
    endpoint.stopped().await;
}

#[tokio::test]
async fn an_endpoint_that_stops_lets_go_of_its_parks_in_an_orderly_way() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let endpoint = Running::start(zone.endpoint(&[&proxy.address]));
    let mut park = proxy.park().await;
    park.ping().await;
    endpoint.stopped().await;
    assert_eq!(soon("close_notify", park.tls.read(&mut [0; 1])).await.unwrap(), 0);
}

#[tokio::test]
async fn an_endpoint_dials_from_the_address_that_it_is_told() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let source: IpAddr = "127.0.0.77".parse().unwrap();
    let endpoint = Running::start(zone.endpoint(&[&proxy.address]).with_source(source));
    let park = proxy.park().await;
    assert_eq!(park.tls.get_ref().0.peer_addr().unwrap().ip(), source);
    endpoint.stopped().await;
}

#[tokio::test]
async fn a_park_that_is_evicted_in_words_is_not_dialed_again_at_once() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let mut endpoint = Running::start(zone.endpoint(&[&proxy.address]));
    let park = proxy.park().await;
    assert!(park.request.fields.lists("Zone-Features", "park-end"), "it says that it understands the word");
    park.evict().await;
    let (clean, reason) = endpoint.event("the loss", lost).await;
    assert!(!clean && reason.contains("took its place"), "{reason}");
    let pause = endpoint.event("the wait", waiting).await;
    assert!(pause >= Duration::from_secs(30), "{pause:?}");
    endpoint.stopped().await;
}

#[tokio::test]
async fn more_parks_than_a_proxy_keeps_settle_where_it_says_how_many_and_evicts_in_words() {
    settles(Some("4"), true).await;
}

#[tokio::test]
async fn more_parks_than_an_earlier_proxy_keeps_settle_although_it_says_nothing_and_cuts() {
    settles(None, false).await;
}

/// Eight parks at a proxy that keeps four and lets the oldest go for a newer one: how the two come to rest.
async fn settles(keeps: Option<&'static str>, in_words: bool) {
    let zone = Zone::new();
    let mut proxy = Proxy::start(&zone).await;
    proxy.keeps = keeps;
    let endpoint = Running::start(zone.endpoint(&[&proxy.address]).with_parks(8));
    let mut held: Vec<Park> = Vec::new();
    let mut made = 0;
    while let Ok(park) = timeout(QUIET, proxy.park()).await {
        made += 1;
        assert!(made < 40, "they push each other out for ever");
        held.retain_mut(|park| !park.has_ended());
        held.push(park);
        if held.len() > 4 {
            let oldest = held.remove(0);
            if in_words {
                oldest.evict().await;
            }
        }
    }
    held.retain_mut(|park| !park.has_ended());
    assert_eq!(held.len(), 4, "after {made} handshakes");
    for park in &mut held {
        assert_eq!(park.ping().await.status, 200);
    }
    endpoint.stopped().await;
}
