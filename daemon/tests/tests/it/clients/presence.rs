//! Who comes and goes, and where an endpoint is when a zone has several proxies.

use std::time::Instant;

use nix::sys::signal::Signal;
use zone_tests::host::Host;
use zone_tests::process::Process;
use zone_tests::session::Session;
use zone_tests::zone::{Zone, start_endpoint};
use zone_tests::{target, until};

use super::{is_parked, join, parked_at, sealed};

#[test]
fn a_watch_of_endpoints_shows_who_joins_and_who_leaves() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let _present = zone.endpoint(&host, "host-6", &[]);
    let watch = Process::start(&mut zone.cli(&["endpoints", "--watch"]));
    watch.says("p1  snapshot  endpoints 1");
    watch.says("p1  present   host-6");
    let mut endpoint = zone.endpoint(&host, "host-7", &[sealed("echo", 7, target::echo())]);
    watch.says("p1  joined    host-7");
    let session = Session::connect(&zone, "host-7:echo");
    watch.says("sessions 1");
    drop(session);
    endpoint.signal(Signal::SIGTERM);
    endpoint.ends();
    watch.says("p1  left      host-7");
    assert!(!watch.said().contains("left      host-6"), "{}", watch.said());
}

#[test]
fn connect_finds_an_endpoint_at_whichever_proxy_it_is_also_after_it_moved() {
    let (mut first, second) = (Host::start(""), Host::start(""));
    let zone = Zone::with(&first);
    join(&zone, &second, "p2");
    let _endpoint = start_endpoint(&zone.issue_endpoint("host-7", &[sealed("echo", 7, target::echo())]));
    is_parked(&zone, "host-7");
    assert_eq!(parked_at(&zone, "host-7").as_deref(), Some("p1"), "the first of its list");
    Session::connect(&zone, "host-7:echo").exchanges(b"at the first");

    first.control.signal(Signal::SIGTERM);
    assert!(first.control.ends().success());
    until("the endpoint moves to the other proxy", || parked_at(&zone, "host-7").as_deref() == Some("p2"));
    Session::connect(&zone, "host-7:echo").exchanges(b"at the second, while the first is down");

    first.restart();
    until("the first is up again", || first.answers(17487));
    let begun = Instant::now();
    Session::connect(&zone, "host-7:echo").exchanges(b"wherever it is, with both up");
    let (at, took) = (parked_at(&zone, "host-7"), begun.elapsed().as_millis());
    println!("with both up again it is parked at {at:?}, and connecting took {took} ms");
}
