//! The relay is killed, or crashes again and again.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use zone_module::proxies;
use zone_module::zone::Zone;
use zone_tests::host::Host;
use zone_tests::process::succeed;
use zone_tests::session::{Session, random};
use zone_tests::{TEST_TIMEOUT, until};

use super::{Knocking, Scene, serving};

/// "Relay crash -> a new one in under a second, and the reason in the log", with the ports open all the time
/// because control holds them too.
#[test]
fn a_killed_relay_is_replaced_in_under_a_second_while_no_port_ever_refuses() {
    let mut scene = Scene::play("");
    let (relay, generation) = serving(&scene.host);
    let knocking = Knocking::begin(&scene.host);

    let mut took = vec![kill_relay(&scene)];
    let (new, new_generation) = serving(&scene.host);
    assert!(new != relay && new_generation > generation);
    scene.host.control.says("the serving relay ended");
    scene.host.control.says("SIGKILL");
    let (status, said) = scene.session.ends();
    assert_eq!(status.code(), Some(3), "a session of the dead relay was cut off: {said}");

    scene.host.counts("the endpoint has come back by itself", |counts| counts["parks"].as_u64() >= Some(1));
    let mut session = Session::connect(&scene.zone, "host-7:echo");
    session.exchanges(&random(1 << 20));
    session.end();
    assert!(session.ends().0.success());

    // A control that was started anew counts crashes anew, and waits for nothing before the first restart.
    for _ in 0..2 {
        scene.host.restart();
        scene.host.control.says("took up the relay that serves");
        took.push(kill_relay(&scene));
    }
    println!("a new relay answered {took:?} after the kill of the old one");
    took.sort();
    assert!(took[1] < Duration::from_secs(1), "{took:?}");
    scene.host.counts("the endpoint has come back by itself", |counts| counts["parks"].as_u64() >= Some(1));
    assert!(scene.endpoint.runs());

    let (connections, refused) = knocking.end();
    println!("{connections} connections to 17486 and 17487 meanwhile, {refused} refused");
    assert!(connections > 20 && refused == 0);
}

#[test]
fn a_relay_that_crashes_again_and_again_is_started_again_later_and_later() {
    let host = Host::start("");
    let _zone = zone_tests::zone::Zone::with(&host);
    for crashes in 0..5 {
        kill(serving(&host).0, Signal::SIGKILL).expect("the relay is there");
        let all_said = || host.control.said().matches("the serving relay ended").count() > crashes;
        until("the crash is in the log", all_said);
    }
    let waits: Vec<_> = host
        .control
        .said()
        .lines()
        .filter(|line| line.contains("the serving relay ended"))
        .filter_map(|line| Some(line.split_once("again_in=")?.1.split_whitespace().next()?.to_owned()))
        .collect();
    assert_eq!(waits, ["0ns", "200ms", "400ms", "800ms", "1.6s"], "{}", host.control.said());
    let status = succeed(&mut host.cli(&["status"]), b"");
    assert!(
        status.contains("warning") && status.contains("the relay ended: signal: 9 (SIGKILL)"),
        "{status}"
    );
    let all_is_well = || !succeed(&mut host.cli(&["status"]), b"").contains("warning");
    until("a relay serves and nothing is to be warned of", all_is_well);
}

/// How long after the kill of the relay the proxy answers a request on 17487.
fn kill_relay(scene: &Scene) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let zone = Zone::open(&scene.zone.path()).expect("the zone");
    let clients = proxies::clients(&zone).expect("one proxy");
    let (relay, _) = serving(&scene.host);
    let killed = Instant::now();
    kill(relay, Signal::SIGKILL).expect("the relay is there");
    runtime.block_on(async {
        while let Err(error) = clients[0].endpoints().await {
            assert!(killed.elapsed() < TEST_TIMEOUT, "{error}");
        }
        killed.elapsed()
    })
}
