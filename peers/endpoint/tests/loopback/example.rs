//! `docs/examples/endpoint.py`, against the same proxy.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::proxy::{Proxy, report};
use crate::zone::Zone;
use crate::{local_service, reverse_all, soon};

fn example(zone: &Zone, proxy: &Proxy, service: &str, target: SocketAddr) -> Child {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples/endpoint.py");
    Command::new("python3")
        .arg(script)
        .arg(zone.bundle.path())
        .args([&proxy.address, "spiffe://plant-7/endpoint/host-7", service, &target.to_string()])
        .kill_on_drop(true)
        .spawn()
        .expect("python3 runs")
}

#[tokio::test]
async fn the_example_parks_answers_pings_and_comes_back_after_a_clean_close() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let _example = example(&zone, &proxy, "reverse", local_service(reverse_all).await);
    let mut first = proxy.park().await;
    assert_eq!(first.request.fields.get("Zone-Instance").unwrap().len(), 32);
    assert_eq!(first.ping().await.status, 200);
    assert_eq!(first.ping().await.status, 200);
    first.close().await;
    assert_eq!(proxy.park().await.ping().await.status, 200);
}

#[tokio::test]
async fn the_example_serves_its_service_with_half_close_and_refuses_every_other() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let _example = example(&zone, &proxy, "reverse", local_service(reverse_all).await);
    for _ in 0..2 {
        let (head, mut session) = proxy.park().await.connect("reverse").await;
        assert_eq!((head.status, head.fields.get("Zone-End-To-End")), (200, Some("off")));
        session.say_all(b"drow eht").await;
        let (heard, end) = session.hear_all().await;
        assert_eq!((heard.as_slice(), end.is_ok()), (&b"the word"[..], true));
    }
    let (head, _) = proxy.park().await.connect("files").await;
    assert_eq!((head.status, &*head.reason), (404, "No Such Service"));
    proxy.park().await;
}

#[tokio::test]
async fn the_example_carries_much_both_ways_at_once_and_a_service_that_ends_first() {
    const MUCH: usize = 8 << 20;
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let (tell, mut told) = report();
    let service = local_service(move |mut stream: TcpStream| {
        let tell = tell.clone();
        async move {
            let (mut read, mut write) = stream.split();
            let mut heard = Vec::new();
            let say = async {
                write.write_all(&vec![1; MUCH]).await?;
                write.shutdown().await
            };
            let (said, read) = tokio::join!(say, read.read_to_end(&mut heard));
            tell.send((heard.len(), said.is_ok() && read.is_ok())).unwrap();
        }
    })
    .await;
    let _example = example(&zone, &proxy, "much", service);
    let (_, mut session) = proxy.park().await.connect("much").await;
    // Nothing is read until everything is written: each direction must flow without the other.
    soon("the writing", session.say_all(&vec![2; MUCH])).await;
    let (heard, end) = session.hear_all().await;
    assert_eq!((heard.len(), end.is_ok()), (MUCH, true));
    assert_eq!(soon("the service", told.recv()).await.unwrap(), (MUCH, true));
}

#[tokio::test]
async fn the_example_turns_a_truncation_into_a_reset_after_everything_that_came_before() {
    const MUCH: usize = 512 << 10;
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let (tell, mut told) = report();
    let service = local_service(move |mut stream: TcpStream| {
        let tell = tell.clone();
        async move {
            let mut heard = Vec::new();
            let end = stream.read_to_end(&mut heard).await;
            tell.send((heard.len(), end.map_err(|e| e.kind()))).unwrap();
        }
    })
    .await;
    let _example = example(&zone, &proxy, "slow", service);
    let (_, mut session) = proxy.park().await.connect("slow").await;
    session.0.write_all(&vec![7; MUCH]).await.unwrap();
    session.cut().await;
    let (heard, end) = soon("the service", told.recv()).await.unwrap();
    assert_eq!((heard, end), (MUCH, Err(io::ErrorKind::ConnectionReset)));
    proxy.park().await;
}

#[tokio::test]
async fn the_example_refuses_a_proxy_of_another_zone() {
    let zone = Zone::new();
    let own = crate::zone::issue(&zone.proxies, "spiffe://plant-8/zone-proxy/p1");
    let proxy = Proxy::start_as(&zone, &own, Vec::new()).await;
    let target = "127.0.0.1:1".parse().unwrap();
    let _example = example(&zone, &proxy, "reverse", target);
    assert!(!proxy.is_asked_to_park().await);
}
