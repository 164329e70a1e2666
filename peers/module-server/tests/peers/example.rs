//! `docs/examples/module_connect.py` against the same fakes as `zone-module connect`.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use zone_protocol::proxy_status::Reason;

use crate::fake_relay::{FakeRelay, Stream, accept_session, read_request, refuse};
use crate::{Scratch, label};

const IDENTITY: &str = "spiffe://plant-7/zone-proxy/p1";

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples/module_connect.py")
}

async fn start<F: Future<Output = ()> + Send + 'static>(
    script: impl Fn(Stream) -> F + Send + Sync + 'static,
) -> (Scratch, FakeRelay) {
    let scratch = Scratch::new();
    let relay = FakeRelay::start(&scratch, "p1", script).await;
    let bundle = scratch.directory.path().join("bundle");
    scratch.zone.write_module_server_bundle(&label("example"), &bundle, None).unwrap();
    (scratch, relay)
}

fn command(scratch: &Scratch, relay: &FakeRelay, identity: &str) -> Command {
    let mut command = Command::new("python3");
    command.arg("-B").arg(script()).arg(scratch.directory.path().join("bundle"));
    command.args([&relay.address.to_string(), identity, "host-7:ssh"]).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn run(scratch: &Scratch, relay: &FakeRelay, identity: &str, input: &[u8]) -> Output {
    let mut child = command(scratch, relay, identity).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A script that ends early takes no more; its status says why.
    let feeding = async move { drop(stdin.write_all(input).await) };
    tokio::join!(feeding, child.wait_with_output()).1.unwrap()
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_example_is_short_enough_to_be_read() {
    let lines = std::fs::read_to_string(script()).unwrap().lines().count();
    assert!(lines < 120, "{lines}");
}

#[tokio::test]
async fn the_example_receives_what_comes_after_its_own_end() {
    let (scratch, relay) = start(|mut stream| async move {
        read_request(&mut stream).await;
        accept_session(&mut stream, "off").await;
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream.write_all(&all).await.unwrap();
        stream.shutdown().await.unwrap();
    })
    .await;
    let input = b"0123456789abcdef".repeat(100_000);
    let done = run(&scratch, &relay, IDENTITY, &input).await;
    assert!(done.status.success(), "{}", words(&done.stderr));
    assert!(done.stdout == input, "{} bytes", done.stdout.len());
}

#[tokio::test]
async fn the_example_moves_bulk_both_ways_at_once() {
    let (scratch, relay) = start(|mut stream| async move {
        read_request(&mut stream).await;
        accept_session(&mut stream, "off").await;
        let (mut reader, mut writer) = tokio::io::split(stream);
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
        writer.shutdown().await.unwrap();
    })
    .await;
    let input = b"0123456789abcdef".repeat(1_000_000);
    let done = run(&scratch, &relay, IDENTITY, &input).await;
    assert!(done.status.success(), "{}", words(&done.stderr));
    assert!(done.stdout == input, "{} bytes", done.stdout.len());
}

#[tokio::test]
async fn the_example_goes_on_sending_after_the_endpoints_end() {
    let (received, mut seen) = tokio::sync::mpsc::channel(1);
    let (scratch, relay) = start(move |mut stream| {
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
    let mut child = command(&scratch, &relay, IDENTITY).spawn().unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    assert_eq!(output.read(&mut [0; 8]).await.unwrap(), 0, "the end shows at once");
    input.write_all(b"still here").await.unwrap();
    drop(input);
    assert_eq!(seen.recv().await.unwrap(), b"still here");
    assert!(child.wait().await.unwrap().success());
}

#[tokio::test]
async fn the_example_tells_refusals_and_sessions_that_were_cut_off() {
    let words_of = "no endpoint of this id is connected";
    let (scratch, relay) = start(move |stream| refuse(stream, "p1", Reason::UnknownEndpoint, words_of)).await;
    let refused = run(&scratch, &relay, IDENTITY, b"").await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(words(&refused.stderr).contains("error=destination_not_found"), "{refused:?}");

    let (scratch, relay) = start(|mut stream| async move {
        read_request(&mut stream).await;
        accept_session(&mut stream, "off").await;
        stream.write_all(b"half").await.unwrap();
        stream.flush().await.unwrap();
        stream.get_mut().0.shutdown().await.unwrap();
    })
    .await;
    let cut = run(&scratch, &relay, IDENTITY, b"").await;
    assert_eq!((cut.status.code(), &cut.stdout[..]), (Some(3), &b"half"[..]), "{}", words(&cut.stderr));
}

#[tokio::test]
async fn the_example_talks_to_the_proxy_it_was_told_of_and_no_other() {
    let (scratch, relay) = start(|mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let other = run(&scratch, &relay, "spiffe://plant-7/zone-proxy/p2", b"").await;
    assert_eq!(other.status.code(), Some(1));
    assert!(words(&other.stderr).contains(IDENTITY), "{other:?}");
}
