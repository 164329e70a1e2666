//! Limits and timeouts of 17488: each does what `docs/configuration.md` says of it, for what is just within and just beyond.

use std::time::Duration;

use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use zone_protocol::tls::config;
use zone_protocol::tls::policy::Versions;
use zone_protocol::tls::verifier::Pinned;
use zone_proxy::state::clock::Clock;

use crate::authority::{Party, Zone};
use crate::client::{by_token, dial, holder, member_config};
use crate::harness::{EVENT_TIMEOUT, Proxy, run};

async fn stranger(proxy: &Proxy) -> TlsStream<TcpStream> {
    let config = config::client(Pinned::new(*proxy.token().pin()), None, Versions::Tls12).unwrap();
    dial(proxy.address, config).await.unwrap()
}

/// Waits for the end of a connection, and returns what the proxy said before.
async fn last_words(stream: &mut TlsStream<TcpStream>) -> String {
    let mut said = String::new();
    let reading = timeout(EVENT_TIMEOUT, stream.read_to_string(&mut said));
    // A reset is an end, too.
    let _ = reading.await.expect("the proxy ends the connection");
    said
}

#[test]
fn control_connections_is_for_all_sources_together() {
    run(async {
        let proxy = Proxy::start_with(|config| config.limits.control_connections = 2).await;
        let token = proxy.token();
        let first = holder(proxy.address, &token).await;
        let _second = holder(proxy.address, &token).await;
        let mut third = TcpStream::connect((proxy.address, 17488)).await.unwrap();
        assert!(!matches!(third.read(&mut [0]).await, Ok(1..)));
        assert!(proxy.counted("zone_proxy_control_refused_total{reason=\"limit\"} 1"));
        drop(first);
        while by_token(proxy.address, &token).await.is_err() {}
    });
}

#[test]
fn head_bytes_counts_the_whole_head_and_head_fields_each_of_its_fields() {
    run(async {
        let proxy = Proxy::start_with(|config| {
            config.limits.head_bytes = 1_024;
            config.limits.head_fields = 8;
        })
        .await;
        let of_length = |length: usize| {
            let start = "GET /v1/status HTTP/1.1\r\nHost: proxy\r\nX: ";
            format!("{start}{}\r\n\r\n", "x".repeat(length - start.len() - 4))
        };
        let of_fields = |fields: usize| {
            format!("GET /v1/status HTTP/1.1\r\nHost: proxy\r\n{}\r\n", "X: y\r\n".repeat(fields - 1))
        };
        for (head, status) in
            [(of_length(1_024), 401), (of_length(1_025), 431), (of_fields(8), 401), (of_fields(9), 431)]
        {
            let mut stream = stranger(&proxy).await;
            stream.write_all(head.as_bytes()).await.unwrap();
            let answer = last_words(&mut stream).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{} bytes: {answer}", head.len());
        }
    });
}

#[test]
fn head_is_for_a_whole_head_however_it_trickles() {
    run(async {
        let proxy = Proxy::start_with(|config| config.timeouts.head = 0.3).await;
        let mut stream = stranger(&proxy).await;
        let (mut reader, mut writer) = tokio::io::split(&mut stream);
        writer.write_all(b"GET /v1/status HTTP/1.1\r\nHost: proxy\r\nX: ").await.unwrap();
        let trickling = async {
            // As long as bytes keep coming, nobody can say that the client is silent.
            while writer.write_all(b"x").await.is_ok() && writer.flush().await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let ended = async { reader.read(&mut [0]).await };
        tokio::select! {
            ended = timeout(EVENT_TIMEOUT, ended) => {
                assert!(!matches!(ended.expect("the proxy ends it"), Ok(1..)), "it says nothing");
            }
            () = trickling => {}
        }
    });
}

#[test]
fn head_is_also_for_the_time_between_two_requests() {
    run(async {
        let proxy = Proxy::start_with(|config| config.timeouts.head = 0.3).await;
        let zone = Zone::new("plant");
        let (_, party) = proxy.provision(&zone).await;
        let mut member = proxy.member(&zone, &party).await;
        assert_eq!(member.get("/v1/status").await.status, 200);
        member.is_closed().await;
    });
}

#[test]
fn control_request_ends_the_waiting_and_not_the_change() {
    run(async {
        let proxy = Proxy::start_with(|config| config.timeouts.control_request = 5.0).await;
        let zone = Zone::new("plant");
        let mut client = by_token(proxy.address, &proxy.token()).await.unwrap();
        let offer = client.offer(&zone).await;
        proxy.relays.hold.send_replace(true);
        let document = zone.document(&offer, "p1", proxy.address);
        let answer = client.put(&format!("/v1/provisioning/{}", offer.id), &document).await;
        assert_eq!(answer.refusal().1, "timed-out");
        assert!(answer.problem().help.unwrap().contains("ask again for its result"));
        client.is_closed().await;
        proxy.relays.hold.send_replace(false);
        proxy.relays.wait_until_served(1).await;
        let party = zone.module_server("inside");
        let mut member = proxy.member(&zone, &party).await;
        let path = format!("/v1/provisioning/{}", offer.id);
        assert_eq!(member.get(&path).await.status, 200, "it was completed all the same");
    });
}

#[test]
fn an_answer_that_nobody_takes_is_given_up() {
    run(async {
        let proxy = Proxy::start_with(|config| config.timeouts.head = 0.3).await;
        let zone = Zone::new("plant");
        let (_, party) = proxy.provision(&zone).await;
        let mut stream = member_stream(&proxy, &zone, &party).await;
        let request = b"GET /v1/openapi.json HTTP/1.1\r\nHost: proxy\r\n\r\n";
        // It asks and asks and reads nothing, until both sides' buffers are full: then it is cut off.
        let asking =
            async { while stream.write_all(request).await.is_ok() && stream.flush().await.is_ok() {} };
        timeout(EVENT_TIMEOUT, asking).await.expect("the proxy ends the connection");
        assert_eq!(proxy.member(&zone, &party).await.get("/v1/status").await.status, 200);
    });
}

async fn member_stream(proxy: &Proxy, zone: &Zone, party: &Party) -> TlsStream<TcpStream> {
    dial(proxy.address, member_config(zone, Some(party))).await.unwrap()
}

#[test]
fn an_offer_lapses_after_its_time_and_says_when() {
    run(async {
        let proxy = Proxy::start_with(|config| config.timeouts.offer = 1.0).await;
        let zone = Zone::new("plant");
        let mut client = by_token(proxy.address, &proxy.token()).await.unwrap();
        let offer = client.offer(&zone).await;
        let since = proxy.clock.since_boot();
        assert_eq!(offer.expires_at - offer.clock, time::Duration::seconds(1));
        while proxy.clock.since_boot() < since + Duration::from_secs(1) {
            tokio::task::yield_now().await;
        }
        let document = zone.document(&offer, "p1", proxy.address);
        let answer = client.put(&format!("/v1/provisioning/{}", offer.id), &document).await;
        assert_eq!((answer.refusal().0, answer.refusal().1.as_str()), (404, "offer-unknown"));
        let mut client = by_token(proxy.address, &proxy.token()).await.unwrap();
        assert_eq!(client.open_offer(zone.name).await.status, 201, "the token is good as before");
    });
}

#[test]
fn a_token_is_good_for_its_time_and_not_for_longer() {
    run(async {
        let proxy = Proxy::start_with(|config| config.timeouts.token = 3_600.0).await;
        let token = proxy.token();
        for (minutes, status) in [(0, 201), (59, 201), (61, 401)] {
            proxy.clock.set_ahead(time::Duration::minutes(minutes));
            let mut client = by_token(proxy.address, &token).await.unwrap();
            let answer = client.open_offer("plant").await;
            assert_eq!(answer.status, status, "after {minutes} minutes: {answer:?}");
        }
        let mut client = by_token(proxy.address, &token).await.unwrap();
        let answer = client.send(Method::POST, "/v1/provisioning", &[], b"{}".to_vec()).await.unwrap();
        assert_eq!(answer.refusal().1, "token-expired");
    });
}
