//! The relay and its control: being left, being taken up again, draining, stopping.

use std::os::unix::net::UnixStream;

use tokio::time::timeout;
use zone_channel::{FromRelay, OnStop, RelayState, ToRelay};

use crate::bench::{ACCEPT, Bench, TEST_TIMEOUT};

async fn exits(bench: &mut Bench) -> std::process::ExitStatus {
    let deadline = tokio::time::Instant::now() + TEST_TIMEOUT;
    loop {
        if let Some(status) = bench.child.try_wait().unwrap() {
            return status;
        }
        assert!(tokio::time::Instant::now() < deadline, "the relay does not exit:\n{}", bench.log());
        tokio::task::yield_now().await;
    }
}

/// Closes the channel as a killed control does.
fn lose_control(bench: &mut Bench) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    (bench.to_relay, bench.from_relay) = zone_channel::pair(ours.into()).unwrap();
}

#[tokio::test]
async fn the_death_of_control_ends_no_session_and_a_new_control_takes_the_relay_up() {
    let mut bench = Bench::start(|_| {}).await;
    let (mut caller, mut endpoint) = bench.session("host-7").await;
    lose_control(&mut bench);
    bench.logged("control is gone").await;
    caller.send("alone").await;
    endpoint.exactly(b"alone").await;
    let _park = bench.park("host-8").await;

    let channel = UnixStream::connect(&bench.rendezvous).unwrap();
    (bench.to_relay, bench.from_relay) = zone_channel::pair(channel.into()).unwrap();
    let (hello, listeners) = timeout(TEST_TIMEOUT, bench.from_relay.receive()).await.unwrap().unwrap();
    let FromRelay::Hello { state, generation, serves, listeners: infos, .. } = hello else {
        panic!("{hello:?}")
    };
    assert_eq!((state, generation, serves.as_str()), (RelayState::Serving, 1, "000002"));
    assert_eq!((infos.len(), listeners.len()), (2, 2));
    bench.push_policy().await;
    assert_eq!(bench.counts().await.sessions, 1);
    caller.send("together").await;
    endpoint.exactly(b"together").await;
}

#[tokio::test]
async fn a_relay_that_stays_alone_drains_and_exits() {
    let mut bench = Bench::start(|p| (p.timeouts.orphan, p.timeouts.release) = (0.2, 0.1)).await;
    let mut park = bench.park("host-7").await;
    lose_control(&mut bench);
    assert!(
        park.end().await.1,
        "a park that is let go ends cleanly, so that its endpoint dials again at once"
    );
    assert!(exits(&mut bench).await.success());
}

/// A service manager that means to start control again holds the lifeline open meanwhile, however long that takes.
#[tokio::test]
async fn a_relay_with_a_lifeline_goes_on_alone_beyond_the_orphan_limit_and_ends_with_the_lifeline() {
    let mut bench = Bench::with_lifeline(|p| (p.timeouts.orphan, p.timeouts.release) = (0.1, 0.1)).await;
    let (mut caller, mut endpoint) = bench.session("host-7").await;
    let mut park = bench.park("host-8").await;
    lose_control(&mut bench);
    bench.logged("control is gone").await;
    // Several times the orphan limit, in which the park would have been let go.
    assert!(timeout(std::time::Duration::from_millis(500), park.end()).await.is_err());
    caller.send("alone").await;
    endpoint.exactly(b"alone").await;
    bench.lifeline = None;
    assert!(!caller.end().await.1, "the session was cut off");
    assert!(exits(&mut bench).await.success());
    bench.logged("the service was stopped").await;
    for address in [bench.endpoint_address, bench.module_address] {
        let refused = std::net::TcpStream::connect(address);
        assert!(refused.is_err(), "{address} is closed, although the test holds the socket too");
    }
}

#[tokio::test]
async fn a_lifeline_that_ends_under_on_stop_drain_leaves_sessions_to_their_end() {
    let drain = |p: &mut zone_channel::Policy| (p.on_stop, p.timeouts.release) = (OnStop::Drain, 0.1);
    let mut bench = Bench::with_lifeline(drain).await;
    let (mut caller, mut endpoint) = bench.session("host-7").await;
    bench.lifeline = None;
    lose_control(&mut bench);
    bench.logged("draining").await;
    caller.send("still").await;
    endpoint.exactly(b"still").await;
    drop((caller, endpoint));
    assert!(exits(&mut bench).await.success());
}

#[tokio::test]
async fn a_lifeline_that_ends_under_on_stop_keep_leaves_the_orphan_limit() {
    let mut bench = Bench::with_lifeline(|p| (p.timeouts.orphan, p.timeouts.release) = (0.2, 0.1)).await;
    bench.policy.on_stop = OnStop::Keep;
    bench.push_policy().await;
    bench.lifeline = None;
    lose_control(&mut bench);
    bench.logged("the service was stopped").await;
    bench.logged("no control came: draining").await;
    assert!(exits(&mut bench).await.success());
}

#[test]
fn a_relay_does_not_run_as_root() {
    if !nix::unistd::getuid().is_root() {
        eprintln!("SKIPPED: a_relay_does_not_run_as_root: it takes root");
        return;
    }
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_zone-relay")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("must not run as root"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[tokio::test]
async fn a_relay_says_what_the_kernel_shows_of_it_to_every_control() {
    let mut bench = Bench::start(|_| {}).await;
    lose_control(&mut bench);
    let channel = UnixStream::connect(&bench.rendezvous).unwrap();
    (bench.to_relay, bench.from_relay) = zone_channel::pair(channel.into()).unwrap();
    let FromRelay::Hello { process, build, .. } = bench.hear().await else { panic!("no hello") };
    let process = process.expect("what the kernel shows");
    assert_eq!((process.capabilities.as_str(), process.no_new_privs), ("0000000000000000", true));
    assert_eq!(process.pid, bench.child.id());
    assert!(build.starts_with(env!("CARGO_PKG_VERSION")), "{build}");
}

#[tokio::test]
async fn draining_lets_parks_go_and_keeps_sessions_to_their_end() {
    let mut bench = Bench::start(|p| p.timeouts.release = 0.2).await;
    let (mut caller, mut endpoint) = bench.session("host-7").await;
    let mut park = bench.park("host-8").await;
    let mut idle = bench.call("nobody:ssh").await;
    idle.end().await;
    bench.tell(ToRelay::Drain).await;
    assert!(park.end().await.1);
    caller.send("still").await;
    endpoint.exactly(b"still").await;
    assert!(bench.child.try_wait().unwrap().is_none());
    drop((caller, endpoint));
    assert!(exits(&mut bench).await.success());
    bench.logged("drained").await;
}

#[tokio::test]
async fn a_drain_that_takes_too_long_ends_what_is_left() {
    let mut bench = Bench::start(|p| (p.timeouts.release, p.timeouts.drain) = (0.1, 0.3)).await;
    let (mut caller, _endpoint) = bench.session("host-7").await;
    bench.tell(ToRelay::Drain).await;
    assert!(!caller.end().await.1);
    assert!(exits(&mut bench).await.success());
}

#[tokio::test]
async fn stop_closes_everything_and_exits() {
    let mut bench = Bench::start(|_| {}).await;
    let (mut caller, mut endpoint) = bench.session("host-7").await;
    bench.to_relay.send(&ToRelay::Stop, &[]).await.unwrap();
    assert!(!caller.end().await.1);
    assert!(!endpoint.end().await.1);
    assert!(exits(&mut bench).await.success());
}

/// A control that closes the ports and dies before it can say so leaves sockets that no longer listen.
#[tokio::test]
async fn ports_that_were_closed_under_the_relay_cost_it_nothing() {
    let mut bench = Bench::start(|_| {}).await;
    let (mut caller, mut endpoint) = bench.session("host-7").await;
    bench.close_listeners();
    bench.logged("closed by control").await;
    caller.send("goes on").await;
    endpoint.exactly(b"goes on").await;
    let before = cpu_ticks(&bench);
    for _ in 0..100 {
        bench.counts().await;
    }
    assert!(cpu_ticks(&bench) - before < 20, "it spins");
}

/// User and system time that the relay has used, in hundredths of a second (proc(5), stat).
fn cpu_ticks(bench: &Bench) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", bench.child.id())).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test]
async fn a_policy_that_can_not_be_used_changes_nothing() {
    let mut bench = Bench::start(|_| {}).await;
    let good = bench.policy.clone();
    bench.policy.trust.anchors.endpoint = vec!["no certificate".into()];
    bench.to_relay.send(&ToRelay::Policy(Box::new(bench.policy.clone())), &[]).await.unwrap();
    let answer = bench.hear().await;
    let FromRelay::Failed { step, error } = answer else { panic!("{answer:?}") };
    assert!(step == "policy" && error.contains("trust anchors for endpoint"), "{step}: {error}");
    bench.policy = good;
    let mut park = bench.park("host-7").await;
    let mut caller = bench.call("host-7:ssh").await;
    park.request().await;
    park.send(ACCEPT).await;
    assert_eq!(caller.response().await.status, 200);
}

/// The process that faces the internet opens no file and creates no socket once it is configured.
#[tokio::test]
async fn the_relay_opens_no_file_while_it_works() {
    let mut bench = Bench::start(|_| {}).await;
    let trace = bench.rendezvous.with_file_name("trace");
    let mut strace = std::process::Command::new("strace")
        .args(["-f", "-e", "trace=open,openat,openat2,creat,execve,socket,connect,bind", "-o"])
        .arg(&trace)
        .args(["-p", &bench.child.id().to_string()])
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("strace is needed for this test");
    let status = format!("/proc/{}/status", bench.child.id());
    while std::fs::read_to_string(&status).unwrap().contains("TracerPid:\t0\n") {
        tokio::task::yield_now().await;
    }
    let (mut caller, mut endpoint) = bench.session("host-7").await;
    caller.send("payload").await;
    endpoint.exactly(b"payload").await;
    bench.push_policy().await;
    drop((caller, endpoint));
    bench.until("ended", |counts| counts.sessions == 0).await;
    bench.to_relay.send(&ToRelay::Stop, &[]).await.unwrap();
    exits(&mut bench).await;
    strace.wait().unwrap();
    let calls: Vec<_> = std::fs::read_to_string(&trace)
        .unwrap()
        .lines()
        .filter(|line| line.contains('(') && !line.contains("+++") && !line.contains("---"))
        .map(str::to_owned)
        .collect();
    assert!(calls.is_empty(), "{calls:#?}");
}
