//! Control is told to stop: `relay.on_stop` decides what becomes of the relay.

use nix::sys::signal::Signal;
use zone_tests::session::{Session, random};

use super::{Scene, goes, is_there, refuse, serving};

#[test]
fn stopping_control_ends_everything_and_leaves_no_process_port_or_socket() {
    let mut scene = Scene::play("");
    let (relay, _) = serving(&scene.host);
    scene.host.control.signal(Signal::SIGTERM);
    assert!(scene.host.control.ends().success(), "{}", scene.host.control.said());
    assert_eq!(scene.session.ends().0.code(), Some(3), "the session was cut off");
    assert!(!is_there(relay));
    for port in [17486, 17487, 17488] {
        assert!(!scene.host.answers(port), "{port} still listens");
    }
    let left: Vec<_> = std::fs::read_dir(scene.host.runtime()).expect("its folder").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn with_on_stop_drain_the_ports_close_and_sessions_go_on_to_their_end() {
    let mut scene = Scene::play("[relay]\non_stop = \"drain\"\n[timeouts]\nrelease = 0.2\n");
    let (relay, _) = serving(&scene.host);
    scene.host.control.signal(Signal::SIGTERM);
    assert!(scene.host.control.ends().success(), "{}", scene.host.control.said());
    refuse(&scene.host, &[17486, 17487, 17488]);
    scene.session.exchanges(&random(1 << 20));
    assert!(is_there(relay));
    scene.session.end();
    assert!(scene.session.ends().0.success());
    goes(relay);
}

#[test]
fn with_on_stop_keep_the_relay_serves_on_and_the_next_control_takes_it_up() {
    let mut scene = Scene::play("[relay]\non_stop = \"keep\"\n");
    let before = serving(&scene.host);
    scene.host.control.signal(Signal::SIGTERM);
    assert!(scene.host.control.ends().success(), "{}", scene.host.control.said());
    assert!(scene.host.answers(17486) && scene.host.answers(17487) && !scene.host.answers(17488));
    scene.session.exchanges(b"nobody is in control");
    Session::connect(&scene.zone, "host-7:echo").exchanges(b"nor here");
    scene.host.restart();
    assert_eq!(serving(&scene.host), before);
    scene.session.exchanges(b"somebody is");
}
