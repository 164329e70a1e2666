//! Sessions through one proxy and through several: ends, refusals, policy, and what lies at the other side.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio_rustls::TlsAcceptor;
use zone_module::Error;
use zone_module::copy::{Totals, join};
use zone_module::events::Event;
use zone_module::forward::Forward;
use zone_module::proxies;
use zone_module::proxy::ProxyClient;
use zone_module::session::EndToEnd;
use zone_protocol::identity::{Role, Target};
use zone_protocol::proxy_status::Reason;
use zone_protocol::tls::config::end_to_end_server;
use zone_protocol::tls::policy::Versions;
use zone_protocol::tls::verifier::Admission;

use crate::fake_relay::{FakeRelay, Stream, accept_session, answer_with, read_request, refuse};
use crate::{Scratch, label};

fn target() -> Target {
    "host-7:ssh".parse().unwrap()
}

/// Reads all, answers with it, and then ends its own direction.
async fn answer_at_the_end(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    stream.write_all(b"got ").await.unwrap();
    stream.write_all(&all).await.unwrap();
    stream.shutdown().await.unwrap();
}

async fn off_then(mut stream: Stream) -> Stream {
    assert_eq!(read_request(&mut stream).await, "host-7:ssh");
    accept_session(&mut stream, "off").await;
    stream
}

#[tokio::test]
async fn an_answer_that_comes_after_our_end_is_still_received() {
    let scratch = Scratch::new();
    let relay = FakeRelay::start(&scratch, "p1", |stream| async {
        answer_at_the_end(off_then(stream).await).await;
    })
    .await;
    let session = relay.client(&scratch).connect(&target(), EndToEnd::Off).await.unwrap();
    assert_eq!((session.id(), session.policy()), ("0193-session", EndToEnd::Off));
    let mut output = Vec::new();
    let totals = join(session, &b"question"[..], &mut output).await.unwrap();
    assert_eq!(output, b"got question");
    assert_eq!(totals, Totals { sent: 8, received: 12 });
}

#[tokio::test]
async fn bytes_still_flow_to_an_endpoint_that_has_nothing_more_to_say() {
    let scratch = Scratch::new();
    let (received, mut seen) = mpsc::channel(1);
    let relay = FakeRelay::start(&scratch, "p1", move |stream| {
        let received = received.clone();
        async move {
            let (mut reader, mut writer) = tokio::io::split(off_then(stream).await);
            writer.shutdown().await.unwrap();
            let mut all = Vec::new();
            reader.read_to_end(&mut all).await.unwrap();
            received.send(all).await.unwrap();
        }
    })
    .await;
    let session = relay.client(&scratch).connect(&target(), EndToEnd::Off).await.unwrap();
    let (mut typing, input) = tokio::io::duplex(64);
    let (output, mut shown) = tokio::io::duplex(64);
    let joined = tokio::spawn(join(session, input, output));
    assert_eq!(shown.read(&mut [0; 8]).await.unwrap(), 0, "the end shows at once");
    typing.write_all(b"after the end").await.unwrap();
    drop(typing);
    assert_eq!(seen.recv().await.unwrap(), b"after the end");
    joined.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_session_that_is_cut_off_delivers_what_came_before_and_says_so() {
    let scratch = Scratch::new();
    let relay = FakeRelay::start(&scratch, "p1", |stream| async {
        let mut stream = off_then(stream).await;
        stream.write_all(&vec![b'x'; 100_000]).await.unwrap();
        stream.flush().await.unwrap();
        stream.get_mut().0.shutdown().await.unwrap();
    })
    .await;
    let session = relay.client(&scratch).connect(&target(), EndToEnd::Off).await.unwrap();
    let mut output = Vec::new();
    let (_typing, input) = tokio::io::duplex(64);
    let error = join(session, input, &mut output).await.unwrap_err();
    assert_eq!(output.len(), 100_000);
    assert_eq!(error.exit_status(), 3, "{error}");
}

#[tokio::test]
async fn a_session_that_is_reset_after_the_endpoints_end_does_not_wait_for_input() {
    let scratch = Scratch::new();
    let release = Arc::new(Notify::new());
    let releasing = Arc::clone(&release);
    let relay = FakeRelay::start(&scratch, "p1", move |stream| {
        let release = Arc::clone(&releasing);
        async move {
            let mut stream = off_then(stream).await;
            stream.shutdown().await.unwrap();
            release.notified().await;
            stream.get_ref().0.set_zero_linger().unwrap();
        }
    })
    .await;
    let session = relay.client(&scratch).connect(&target(), EndToEnd::Off).await.unwrap();
    let (_typing, input) = tokio::io::duplex(64);
    let (output, mut shown) = tokio::io::duplex(64);
    let joined = tokio::spawn(join(session, input, output));
    assert_eq!(shown.read(&mut [0; 8]).await.unwrap(), 0);
    release.notify_one();
    let error = joined.await.unwrap().unwrap_err();
    assert_eq!(error.exit_status(), 3, "{error}");
}

/// Plays the endpoint of the given id inside an accepted session.
async fn endpoint(zone: zone_module::zone::Zone, mut stream: Stream, id: &str, policy: &str) {
    read_request(&mut stream).await;
    accept_session(&mut stream, policy).await;
    let issued = zone.issue(Role::Endpoint, &label(id), None).unwrap();
    let trust = zone.trust().unwrap();
    let name = zone.name().clone();
    let admission = Admission::new(name, Role::ModuleServer, &trust, true, Versions::EndToEnd).unwrap();
    let tls = end_to_end_server(&issued.certificate, &issued.key, admission).unwrap();
    if let Ok(inner) = TlsAcceptor::from(tls).accept(stream).await {
        answer_at_the_end(inner).await;
    }
}

#[tokio::test]
async fn end_to_end_each_direction_ends_by_itself_too() {
    let scratch = Scratch::new();
    let zone = scratch.zone.clone();
    let relay =
        FakeRelay::start(&scratch, "p1", move |s| endpoint(zone.clone(), s, "host-7", "required")).await;
    let session = relay.client(&scratch).connect(&target(), EndToEnd::Required).await.unwrap();
    assert_eq!(session.policy(), EndToEnd::Required);
    let question = vec![b'q'; 1_000_000];
    let mut output = Vec::new();
    join(session, &question[..], &mut output).await.unwrap();
    assert_eq!(output.len(), question.len() + 4);
}

#[tokio::test]
async fn another_endpoint_than_the_one_called_is_refused_end_to_end() {
    let scratch = Scratch::new();
    let zone = scratch.zone.clone();
    let relay =
        FakeRelay::start(&scratch, "p1", move |s| endpoint(zone.clone(), s, "host-8", "required")).await;
    let error = relay.client(&scratch).connect(&target(), EndToEnd::Required).await.unwrap_err();
    assert!(matches!(error, Error::NotTrusted { .. }), "{error}");
    assert!(error.to_string().contains("host-8"), "{error}");
}

#[tokio::test]
async fn a_service_whose_policy_is_not_the_callers_is_not_used() {
    let scratch = Scratch::new();
    for (offered, wanted) in [("off", EndToEnd::Required), ("required", EndToEnd::Off)] {
        let zone = scratch.zone.clone();
        let relay =
            FakeRelay::start(&scratch, "p1", move |s| endpoint(zone.clone(), s, "host-7", offered)).await;
        let error = relay.client(&scratch).connect(&target(), wanted).await.unwrap_err();
        assert!(matches!(error, Error::Policy { .. }), "{error}");
        assert!(error.to_string().contains("--end-to-end off"), "{error}");
    }
}

#[tokio::test]
async fn a_refusal_is_one_sentence_with_the_proxys_reason() {
    let scratch = Scratch::new();
    let relay = FakeRelay::start(&scratch, "p1", |stream| {
        refuse(stream, "p1", Reason::UnknownEndpoint, "no endpoint of this id is connected")
    })
    .await;
    let error = relay.client(&scratch).connect(&target(), EndToEnd::Off).await.unwrap_err();
    let expected = format!(
        "proxy {} refused host-7:ssh: no endpoint of this id is connected (destination_not_found)",
        relay.address
    );
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn a_proxy_of_another_name_gets_no_request() {
    let scratch = Scratch::new();
    let relay = FakeRelay::start(&scratch, "p2", |_| async { panic!("a request was sent") }).await;
    let mut entry = relay.entry();
    entry.name = label("p1");
    let client = ProxyClient::of(&entry, &scratch.own()).unwrap();
    let error = client.connect(&target(), EndToEnd::Off).await.unwrap_err();
    assert!(matches!(error, Error::NotTrusted { .. }), "{error}");
}

#[tokio::test]
async fn a_module_server_that_is_not_let_in_learns_why() {
    let scratch = Scratch::new();
    let relay = FakeRelay::start(&scratch, "p1", |_| async {}).await;
    let endpoint = scratch.zone.issue(Role::Endpoint, &label("host-7"), None).unwrap();
    let mut own = (*scratch.own()).clone();
    (own.certificate, own.key) = (endpoint.certificate, endpoint.key);
    let client = ProxyClient::of(&relay.entry(), &Arc::new(own)).unwrap();
    let error = client.connect(&target(), EndToEnd::Off).await.unwrap_err().to_string();
    assert!(error.contains("does not let our certificate in"), "{error}");
}

#[tokio::test]
async fn the_proxy_where_the_endpoint_is_parked_is_found_beside_one_that_is_down() {
    let scratch = Scratch::new();
    let empty = FakeRelay::start(&scratch, "p1", |stream| {
        refuse(stream, "p1", Reason::UnknownEndpoint, "no endpoint of this id is connected")
    })
    .await;
    let right = FakeRelay::start(&scratch, "p2", |stream| async {
        answer_at_the_end(off_then(stream).await).await;
    })
    .await;
    let mut down = right.entry();
    down.settings.ports.module_server = 1;
    let down = ProxyClient::of(&down, &scratch.own()).unwrap();
    let clients = [down.clone(), empty.client(&scratch), right.client(&scratch)];
    let session = proxies::connect(&clients, &target(), EndToEnd::Off).await.unwrap();
    assert_eq!(session.peer(), format!("proxy {}", right.address));
    let error = proxies::connect(&clients[..2], &target(), EndToEnd::Off).await.unwrap_err().to_string();
    assert!(error.contains("nothing listens there") && error.contains("destination_not_found"), "{error}");
}

#[tokio::test]
async fn what_the_endpoint_itself_refused_is_not_tried_elsewhere() {
    let scratch = Scratch::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let mut relays = Vec::new();
    for name in ["p1", "p2"] {
        let asked = Arc::clone(&asked);
        let script = move |mut stream: Stream| {
            let asked = Arc::clone(&asked);
            async move {
                // Both proxies are dialed; one of them is asked.
                if stream.read(&mut [0; 512]).await.is_ok_and(|bytes| bytes > 0) {
                    asked.fetch_add(1, Ordering::SeqCst);
                    answer_with(stream, name, Reason::Refused, "No Such Service").await;
                }
            }
        };
        relays.push(FakeRelay::start(&scratch, name, script).await);
    }
    let clients: Vec<_> = relays.iter().map(|relay| relay.client(&scratch)).collect();
    let error = proxies::connect(&clients, &target(), EndToEnd::Off).await.unwrap_err();
    assert!(error.to_string().contains("No Such Service (connection_refused)"), "{error}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn presence_comes_as_a_snapshot_and_then_event_by_event() {
    let scratch = Scratch::new();
    let status = r#"{"id":"host-7","address":"198.51.100.7","idle":2,"busy":0,"sessions":0,"instances":1}"#;
    let relay = FakeRelay::start(&scratch, "p1", move |mut stream| async move {
        let path = read_request(&mut stream).await;
        let list = format!(r#"{{"boot":"b","sequence":6,"endpoints":[{status}]}}"#);
        let body = if path == "/v1/endpoints" {
            list
        } else {
            format!("event: snapshot\ndata: {list}\n\n:\n\nevent: left\nid: b-7\ndata: {{\"sequence\":7,\"endpoint\":{status}}}\n\n")
        };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    })
    .await;
    let client = relay.client(&scratch);
    let list = client.endpoints().await.unwrap();
    assert_eq!(list.endpoints[0].id, label("host-7"));
    let mut events = client.events().await.unwrap();
    assert_eq!(events.next().await.unwrap(), Some(Event::Snapshot(list)));
    assert!(matches!(events.next().await.unwrap(), Some(Event::Left(change)) if change.sequence == 7));
    assert_eq!(events.next().await.unwrap(), None);
}

async fn forward(relay: &FakeRelay, scratch: &Scratch, sessions: usize) -> std::net::SocketAddr {
    let local = "127.0.0.1:0".parse().unwrap();
    let clients = vec![relay.client(scratch)];
    let forward = Forward::bind(local, clients, target(), EndToEnd::Off, sessions).await.unwrap();
    let address = forward.local_address().unwrap();
    tokio::spawn(forward.run(|_, _| ()));
    address
}

#[tokio::test]
async fn a_forwarded_connection_keeps_its_half_close() {
    let scratch = Scratch::new();
    let relay = FakeRelay::start(&scratch, "p1", |stream| async {
        answer_at_the_end(off_then(stream).await).await;
    })
    .await;
    let mut tcp = TcpStream::connect(forward(&relay, &scratch, 4).await).await.unwrap();
    tcp.write_all(b"question").await.unwrap();
    tcp.shutdown().await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "got question");
}

#[tokio::test]
async fn a_forwarded_connection_that_is_cut_off_is_reset_behind_what_came() {
    const BYTES: usize = 8_000_000;
    let scratch = Scratch::new();
    let relay = FakeRelay::start(&scratch, "p1", |stream| async {
        let mut stream = off_then(stream).await;
        stream.write_all(&vec![b'x'; BYTES]).await.unwrap();
        stream.flush().await.unwrap();
        stream.get_mut().0.shutdown().await.unwrap();
    })
    .await;
    let mut tcp = TcpStream::connect(forward(&relay, &scratch, 4).await).await.unwrap();
    let mut answer = Vec::new();
    let end = tcp.read_to_end(&mut answer).await.unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(answer.len(), BYTES);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_their_turn() {
    let scratch = Scratch::new();
    let (entered, mut entering) = mpsc::channel(8);
    let release = Arc::new(Notify::new());
    let releasing = Arc::clone(&release);
    let relay = FakeRelay::start(&scratch, "p1", move |stream| {
        let (entered, release) = (entered.clone(), Arc::clone(&releasing));
        async move {
            let mut stream = off_then(stream).await;
            entered.send(()).await.unwrap();
            release.notified().await;
            stream.shutdown().await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await;
    let address = forward(&relay, &scratch, 2).await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.shutdown().await.unwrap();
        waiting.push(tcp);
    }
    entering.recv().await.unwrap();
    entering.recv().await.unwrap();
    assert!(entering.try_recv().is_err(), "the third waits");
    release.notify_one();
    entering.recv().await.unwrap();
}

#[tokio::test]
async fn an_endpoint_that_does_not_let_us_in_says_so_in_words() {
    let scratch = Scratch::new();
    let stranger = Scratch::new();
    let own = scratch.own();
    // Plays an endpoint that trusts another zone's Module Servers.
    let zone = scratch.zone.clone();
    let theirs = stranger.zone.trust().unwrap();
    let relay = FakeRelay::start(&scratch, "p1", move |mut stream| {
        let (zone, theirs) = (zone.clone(), theirs.clone());
        async move {
            read_request(&mut stream).await;
            accept_session(&mut stream, "required").await;
            let issued = zone.issue(Role::Endpoint, &label("host-7"), None).unwrap();
            let name = zone.name().clone();
            let admission = Admission::new(name, Role::ModuleServer, &theirs, true, Versions::EndToEnd);
            let tls = end_to_end_server(&issued.certificate, &issued.key, admission.unwrap()).unwrap();
            let refused = TlsAcceptor::from(tls).accept(stream).into_fallible().await.unwrap_err();
            // The alert is on its way; the connection closes only when the client has gone.
            let _ = refused.1.into_inner().0.readable().await;
        }
    })
    .await;
    let client = ProxyClient::of(&relay.entry(), &own).unwrap();
    let error = match client.connect(&target(), EndToEnd::Required).await {
        Ok(session) => join(session, &b""[..], Vec::new()).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(error.to_string().contains("does not know the authority"), "{error}");
    assert_eq!(error.exit_status(), 1);
}

#[tokio::test]
async fn a_proxy_that_lets_us_wait_does_not_keep_us_from_another() {
    let scratch = Scratch::new();
    let (asked, mut asking) = mpsc::channel(1);
    let (withdrawn, mut withdrawing) = mpsc::channel(1);
    let waiting = FakeRelay::start(&scratch, "p1", move |mut stream| {
        let (asked, withdrawn) = (asked.clone(), withdrawn.clone());
        async move {
            read_request(&mut stream).await;
            asked.send(()).await.unwrap();
            let _ = stream.read(&mut [0; 1]).await;
            withdrawn.send(()).await.unwrap();
        }
    })
    .await;
    let signal = async move { asking.recv().await.unwrap() };
    let right = FakeRelay::start_after(signal, &scratch, "p2", |stream| async {
        answer_at_the_end(off_then(stream).await).await;
    })
    .await;
    let clients = [waiting.client(&scratch), right.client(&scratch)];
    let session = proxies::connect(&clients, &target(), EndToEnd::Off).await.unwrap();
    assert_eq!(session.peer(), format!("proxy {}", right.address));
    withdrawing.recv().await.unwrap();
}
