//! The command line as a user meets it: standard input and output, exit status, one line of error.

use std::path::Path;
use std::process::{Output, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use zone_protocol::provisioning::Payload;
use zone_protocol::proxy_status::Reason;

use crate::fake_control::{FakeControl, Quirks};
use crate::fake_relay::{FakeRelay, Stream, accept_session, read_request, refuse};
use crate::{Scratch, label};

fn command(zone: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zone-module"));
    command.arg("--zone").arg(zone).args(arguments).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn run(zone: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = command(zone, arguments).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    child.wait_with_output().await.unwrap()
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn a_zone_is_made_once() {
    let scratch = tempfile::tempdir().unwrap();
    let zone = scratch.path().join("zone");
    let made = run(&zone, &["init", "plant-7"], "").await;
    assert!(made.status.success(), "{made:?}");
    let again = run(&zone, &["init", "plant-7"], "").await;
    assert_eq!(again.status.code(), Some(1));
    assert!(words(&again.stderr).contains("not overwritten"), "{again:?}");
    let none = run(&scratch.path().join("other"), &["status"], "").await;
    assert!(words(&none.stderr).contains("zone-module init"), "{none:?}");
    let wrong = run(&zone, &["connect", "Host:ssh"], "").await;
    assert_eq!(wrong.status.code(), Some(2));
}

fn payload(proxy: &FakeControl) -> String {
    let payload = Payload {
        version: 1,
        host: "dmz-1".into(),
        addresses: vec![proxy.address.ip()],
        port: proxy.address.port(),
        token: proxy.token.clone(),
        expires_at: time::OffsetDateTime::now_utc() + time::Duration::DAY,
    };
    serde_json::to_string(&payload).unwrap()
}

#[tokio::test]
async fn a_payload_on_standard_input_provisions_and_the_token_is_never_shown() {
    let scratch = Scratch::new();
    let proxy = FakeControl::start(Quirks::default()).await;
    let zone = scratch.zone.directory();
    let arguments = [
        ["provision", "--name", "p1"].as_slice(),
        &["--listen", "127.0.0.1", "--endpoint-port", "20486", "--module-server-port", "20487"],
        &["--allow-module-servers", "10.0.0.0/8", "--limit", "sessions=500"],
    ]
    .concat();
    let done = run(zone, &arguments, &payload(&proxy)).await;
    assert!(done.status.success(), "{done:?}");
    let shown = words(&done.stdout) + &words(&done.stderr);
    assert!(shown.contains("listens on 127.0.0.1:20486 (endpoint)"), "{shown}");
    assert!(!shown.contains("zp1-"), "{shown}");
    let told = proxy.provisioning().unwrap();
    assert_eq!(told.limits["sessions"], 500);
    assert_eq!(told.allowed_networks.module_server[0].to_string(), "10.0.0.0/8");
    assert!(told.allowed_networks.endpoint.is_empty());

    let again = run(zone, &arguments, &payload(&proxy)).await;
    assert!(again.status.success(), "{again:?}");
    assert!(words(&again.stdout).contains("already provisioned by this zone"), "{again:?}");

    let anew = run(zone, &["provision", "--name", "p1", "--again", "--endpoint-port", "21486"], "").await;
    assert!(anew.status.success(), "{anew:?}");
    let told = proxy.provisioning().unwrap();
    assert_eq!((told.ports.endpoint, told.ports.module_server), (21_486, 20_487), "the rest stays");
    assert_eq!(told.limits["sessions"], 500);

    let status = run(zone, &["status", "--json"], "").await;
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status[0]["status"]["state"], "provisioned");
    let revoked = run(zone, &["revoke", "endpoint", "host-7"], "").await;
    assert!(words(&revoked.stdout).contains("p1: has trust version 2 now (it had 1)"), "{revoked:?}");
}

#[tokio::test]
async fn a_mistyped_token_ends_in_one_line_that_names_the_checksum() {
    let scratch = Scratch::new();
    let proxy = FakeControl::start(Quirks::default()).await;
    let token = proxy.token.reveal();
    let mut wrong = token.clone();
    wrong.replace_range(20..21, if &token[20..21] == "a" { "b" } else { "a" });
    let arguments = ["provision", "--name", "p1", "--address", "127.0.0.1"];
    let refused = run(scratch.zone.directory(), &arguments, &wrong).await;
    assert_eq!(refused.status.code(), Some(1));
    let error = words(&refused.stderr);
    assert!(error.contains("checksum") && error.lines().count() == 1, "{error}");
    assert!(proxy.seen().is_empty());
}

async fn relay<F: Future<Output = ()> + Send + 'static>(
    scratch: &Scratch,
    script: impl Fn(Stream) -> F + Send + Sync + 'static,
) -> FakeRelay {
    let relay = FakeRelay::start(scratch, "p1", script).await;
    scratch.zone.remember_proxy(relay.entry()).unwrap();
    relay
}

const CONNECT: [&str; 4] = ["connect", "host-7:ssh", "--end-to-end", "off"];

#[tokio::test]
async fn connect_ends_cleanly_once_both_directions_have() {
    let scratch = Scratch::new();
    let _relay = relay(&scratch, |mut stream| async move {
        read_request(&mut stream).await;
        accept_session(&mut stream, "off").await;
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream.write_all(&all).await.unwrap();
        stream.shutdown().await.unwrap();
    })
    .await;
    let input = "x".repeat(50_000);
    let done = run(scratch.zone.directory(), &CONNECT, &input).await;
    assert!(done.status.success(), "{done:?}");
    assert!(done.stderr.is_empty(), "{done:?}");
    assert_eq!(words(&done.stdout), input);
}

#[tokio::test]
async fn the_reader_of_connect_sees_the_end_while_input_goes_on() {
    let scratch = Scratch::new();
    let (received, mut seen) = tokio::sync::mpsc::channel(1);
    let _relay = relay(&scratch, move |mut stream| {
        let received = received.clone();
        async move {
            read_request(&mut stream).await;
            accept_session(&mut stream, "off").await;
            let (mut reader, mut writer) = tokio::io::split(stream);
            writer.shutdown().await.unwrap();
            let mut all = Vec::new();
            reader.read_to_end(&mut all).await.unwrap();
            received.send(all).await.unwrap();
        }
    })
    .await;
    let mut child = command(scratch.zone.directory(), &CONNECT).spawn().unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    assert_eq!(output.read(&mut [0; 8]).await.unwrap(), 0);
    input.write_all(b"still here").await.unwrap();
    drop(input);
    assert_eq!(seen.recv().await.unwrap(), b"still here");
    assert!(child.wait().await.unwrap().success());
}

#[tokio::test]
async fn connect_tells_a_refusal_from_a_session_that_was_cut_off() {
    let scratch = Scratch::new();
    let refusing = relay(&scratch, |stream| refuse(stream, "p1", Reason::NoPark, "no park came free")).await;
    let refused = run(scratch.zone.directory(), &CONNECT, "").await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(words(&refused.stderr).contains("no park came free (destination_unavailable)"), "{refused:?}");
    drop(refusing);

    let _cutting = relay(&scratch, |mut stream| async move {
        read_request(&mut stream).await;
        accept_session(&mut stream, "off").await;
        stream.write_all(b"half").await.unwrap();
        stream.flush().await.unwrap();
        stream.get_mut().0.shutdown().await.unwrap();
    })
    .await;
    let cut = command(scratch.zone.directory(), &CONNECT).spawn().unwrap();
    let cut = cut.wait_with_output().await.unwrap();
    assert_eq!((cut.status.code(), words(&cut.stdout).as_str()), (Some(3), "half"));
    assert!(words(&cut.stderr).contains("cut off"), "{cut:?}");
    assert_eq!(words(&cut.stderr).lines().count(), 1);
}

#[tokio::test]
async fn connect_without_a_policy_does_not_fall_for_an_off() {
    let scratch = Scratch::new();
    let _relay = relay(&scratch, |mut stream| async move {
        read_request(&mut stream).await;
        accept_session(&mut stream, "off").await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let refused = run(scratch.zone.directory(), &CONNECT[..2], "").await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(words(&refused.stderr).contains("pass --end-to-end off"), "{refused:?}");
}

#[tokio::test]
async fn a_bundle_names_the_endpoint_ports_of_the_zones_proxies() {
    let scratch = Scratch::new();
    let mut entry = relay(&scratch, |_| async {}).await.entry();
    entry.addresses = vec!["198.51.100.4".into()];
    scratch.zone.remember_proxy(entry).unwrap();
    let out = scratch.directory.path().join("host-7");
    let arguments = ["issue", "endpoint", "host-7", "--out", out.to_str().unwrap()];
    let issued = run(scratch.zone.directory(), &arguments, "").await;
    assert!(issued.status.success(), "{issued:?}");
    let text = std::fs::read_to_string(out.join("zone-endpoint.toml")).unwrap();
    assert!(text.contains("proxies = [\"198.51.100.4:17486\"]"), "{text}");
    assert_eq!(scratch.zone.audit().unwrap().last().unwrap().identity.name, label("host-7"));
}

/// A proxy that is being replaced, or at a limit, ends a connection right after the handshake.
#[tokio::test]
async fn a_proxy_that_closes_before_it_answers_ends_in_one_line() {
    let scratch = Scratch::new();
    let proxy = FakeControl::start(Quirks::default()).await;
    let zone = scratch.zone.directory();
    let arguments = ["provision", "--name", "p1"];
    assert!(run(zone, &arguments, &payload(&proxy)).await.status.success());
    proxy.closes_without_an_answer();
    for arguments in [&["status"][..], &["rotate", "p1"]] {
        let ended = run(zone, arguments, "").await;
        let said = words(&ended.stdout) + &words(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert!(said.contains("proxy 127.0.0.1") && !said.contains("panicked"), "{said}");
    }
}
