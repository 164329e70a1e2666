//! Control is killed: what flows goes on, and the next control takes the relay up.

use nix::sys::signal::Signal;
use zone_tests::host::Host;
use zone_tests::process::{run, succeed};
use zone_tests::session::{Session, random};
use zone_tests::until;
use zone_tests::zone::{Zone, start_endpoint};

use super::{Knocking, Scene, echo, goes, is_there, refuse, serving, token};

/// "The channel survives a restart of control (generation id, full state resent), and control's death ends no
/// session."
#[test]
fn the_death_of_control_ends_no_session_and_the_next_control_takes_up_the_same_relay() {
    let mut scene = Scene::play("");
    let before = serving(&scene.host);
    let newcomer = scene.zone.issue_endpoint("host-8", &[echo()]);
    let knocking = Knocking::begin(&scene.host);

    scene.host.control.kill();
    assert!(!scene.host.answers(17488));
    scene.session.exchanges(&random(4 << 20));
    let _newcomer = start_endpoint(&newcomer);
    until("an endpoint that is new parks without control", || {
        succeed(&mut scene.zone.cli(&["endpoints", "--json"]), b"").contains("\"host-8\"")
    });
    let mut alone = Session::connect(&scene.zone, "host-8:echo");
    alone.exchanges(b"nobody is in control");

    scene.host.restart();
    scene.host.control.says("took up the relay that serves");
    assert_eq!(serving(&scene.host), before, "the same process and generation");
    let status = scene.host.status();
    assert_eq!(status["relays"].as_array().map(Vec::len), Some(1), "{status}");
    assert_eq!(status["relays"][0]["counts"]["sessions"], 2, "{status}");
    assert!(status["ports"].as_array().is_some_and(|all| all.iter().all(|port| port["listening"] == true)));
    scene.session.exchanges(&random(4 << 20));

    succeed(&mut scene.zone.cli(&["revoke", "endpoint", "host-7"]), b"");
    let (status, said) = scene.session.ends();
    assert_eq!(status.code(), Some(3), "a revocation made by the next control reaches the relay: {said}");
    alone.exchanges(b"and nobody else");
    assert_eq!(serving(&scene.host), before);
    let (connections, refused) = knocking.end();
    println!("{connections} connections to 17486 and 17487 meanwhile, {refused} refused");
    assert!(connections > 20 && refused == 0);
}

#[test]
fn a_revocation_that_control_could_not_take_arrives_once_it_is_back() {
    let mut scene = Scene::play("");
    scene.host.control.kill();
    let revoked = run(&mut scene.zone.cli(&["revoke", "endpoint", "host-7"]), b"");
    let said = String::from_utf8_lossy(&revoked.stderr);
    assert!(!revoked.status.success() && said.contains("17488"), "it says who does not know yet: {said}");
    scene.session.exchanges(b"the relay can't know");
    scene.host.restart();
    scene.session.exchanges(b"still not told");
    succeed(&mut scene.zone.cli(&["trust", "push"]), b"");
    assert_eq!(scene.session.ends().0.code(), Some(3));
}

#[test]
fn a_relay_whose_control_never_comes_back_lets_its_parks_go_and_keeps_its_sessions_to_their_end() {
    let mut scene = Scene::play("[timeouts]\norphan = 0.5\nrelease = 0.2\n");
    let (relay, _) = serving(&scene.host);
    scene.host.control.kill();
    refuse(&scene.host, &[17486, 17487]);
    scene.host.control.says("no control came: draining");
    scene.session.exchanges(&random(1 << 20));
    assert!(is_there(relay));
    scene.session.end();
    assert!(scene.session.ends().0.success());
    goes(relay);

    scene.host.restart();
    scene.host.counts("the endpoint parks again", |counts| counts["parks"].as_u64() >= Some(1));
    Session::connect(&scene.zone, "host-7:echo").exchanges(b"as before");
}

#[test]
fn control_that_dies_on_a_fresh_host_leaves_it_fresh() {
    let mut host = Host::start("");
    let payload = host.payload();
    host.restart();
    assert_eq!(host.status()["state"], "unprovisioned");
    assert_eq!(token(&host.payload()), token(&payload), "it is still the one that was shown");
    assert!(!host.answers(17486) && !host.answers(17487));
    let _zone = Zone::with(&host);
    assert!(host.answers(17486) && host.answers(17487));
}

#[test]
fn a_host_that_lost_both_processes_brings_its_ports_and_endpoints_back_by_itself() {
    let mut scene = Scene::play("");
    let (relay, generation) = serving(&scene.host);
    scene.host.control.kill();
    nix::sys::signal::kill(relay, Signal::SIGKILL).expect("the relay is there");
    refuse(&scene.host, &[17486, 17487, 17488]);
    assert_eq!(scene.session.ends().0.code(), Some(3));

    scene.host.restart();
    for port in [17486, 17487] {
        until(&format!("{port} listens again"), || scene.host.answers(port));
    }
    scene.host.counts("the endpoint parks again", |counts| counts["parks"].as_u64() >= Some(1));
    assert_ne!(serving(&scene.host), (relay, generation));
    Session::connect(&scene.zone, "host-7:echo").exchanges(b"as before");
}
