//! What one relay knows and carries when another one takes its place.

use nix::sys::signal::Signal;
use zone_tests::process::{fail, succeed};
use zone_tests::session::Session;
use zone_tests::until;
use zone_tests::zone::Zone;

use super::{Scene, serving};

/// A new relay knows nobody by itself, and tells strangers from those who are late once it has settled.
#[test]
fn an_endpoint_that_does_not_follow_its_proxy_to_other_ports_is_late_and_no_stranger() {
    let scene = Scene::play("[timeouts]\nsettle = 0.2\nconnect = 1.0\n");
    moves(&scene.zone, 20486, 20487);
    let refused = |target: &str| fail(&mut scene.zone.cli(&["connect", target]), b"");
    until("it has settled", || refused("nobody:echo").contains("destination_not_found"));
    let told = refused("host-7:echo");
    assert!(
        told.contains("destination_unavailable") && told.contains("was connected a moment ago"),
        "{told}"
    );
}

#[test]
fn sessions_of_a_relay_that_drains_count_against_the_limit_of_the_next_one() {
    let mut scene = Scene::play("[limits]\nsessions = 2\n");
    let before = serving(&scene.host).1;
    succeed(&mut scene.zone.cli(&["provision", "--name", "p1", "--again"]), b"");
    assert!(serving(&scene.host).1 > before);
    let mut second = Session::connect(&scene.zone, "host-7:echo");
    second.exchanges(b"at the next relay");
    let is_full = || {
        let mut third = Session::connect(&scene.zone, "host-7:echo");
        third.end();
        let (status, said) = third.ends();
        !status.success() && said.contains("2 sessions are open already")
    };
    until("both count", is_full);
    scene.session.end();
    assert!(scene.session.ends().0.success());
    until("there is room again", || !is_full());
    second.exchanges(b"still there");
}

#[test]
fn an_endpoint_is_told_of_a_stop_and_comes_back_with_the_next_start() {
    let mut scene = Scene::play("");
    scene.host.control.signal(Signal::SIGTERM);
    assert!(scene.host.control.ends().success(), "{}", scene.host.control.said());
    scene.endpoint.says("park lost: closed by the proxy");
    scene.host.restart();
    Session::connect(&scene.zone, "host-7:echo").exchanges(b"back");
}

/// The relay's ports become these.
fn moves(zone: &Zone, endpoints: u16, module_servers: u16) {
    let mut command = zone.cli(&["provision", "--name", "p1", "--again"]);
    command.args(["--endpoint-port", &endpoints.to_string()]);
    succeed(command.args(["--module-server-port", &module_servers.to_string()]), b"");
}
