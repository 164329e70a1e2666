//! What somebody reads whose session does not come about, and that nothing else does.

use zone_tests::host::Host;
use zone_tests::process::fail;
use zone_tests::session::Session;
use zone_tests::target;
use zone_tests::zone::{Zone, start_endpoint};

use super::{SETTLED, configure, is_parked, open, sealed};

#[test]
fn a_caller_and_an_endpoint_that_differ_about_tls_end_to_end_get_no_session_and_one_line_of_advice() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let _endpoint = zone.endpoint(
        &host,
        "host-7",
        &[sealed("sealed", 1, target::echo()), open("open", 2, target::echo())],
    );
    let said = refused(&zone, &["connect", "--end-to-end", "off", "host-7:sealed"]);
    assert!(said.contains("leave out --end-to-end off"), "{said}");
    let said = refused(&zone, &["connect", "host-7:open"]);
    assert!(said.contains("pass --end-to-end off"), "{said}");

    Session::connect(&zone, "host-7:sealed").exchanges(b"sealed");
    let mut session = Session::start(&mut zone.cli(&["connect", "--end-to-end", "off", "host-7:open"]));
    session.exchanges(b"open");
}

#[test]
fn a_refusal_comes_in_the_words_of_the_one_who_refuses() {
    let host = Host::start(SETTLED);
    let zone = Zone::with(&host);
    let _endpoint = zone.endpoint(&host, "host-7", &[sealed("gone", 1, target::nobody())]);
    let said = refused(&zone, &["connect", "host-7:files"]);
    assert!(said.contains("No Such Service") && said.contains("404"), "a service that is not listed: {said}");
    let said = refused(&zone, &["connect", "host-7:22"]);
    assert!(said.contains("No Such Service"), "a number that is not listed: {said}");
    let said = refused(&zone, &["connect", "host-7:gone"]);
    assert!(said.contains("Target Refused") && said.contains("502"), "a target that is down: {said}");
    let said = refused(&zone, &["connect", "host-8:gone"]);
    assert!(said.contains("host-8") && said.contains("destination_not_found"), "an unknown endpoint: {said}");
}

#[test]
fn an_endpoint_takes_no_more_sessions_than_it_is_configured_for() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let folder = zone.issue_endpoint("host-7", &[sealed("echo", 7, target::echo())]);
    configure(&folder, "max_sessions = 1");
    let _endpoint = start_endpoint(&folder);
    is_parked(&zone, "host-7");
    let mut first = Session::connect(&zone, "host-7:echo");
    first.exchanges(b"the only one");
    let said = refused(&zone, &["connect", "host-7:echo"]);
    assert!(said.contains("Too Many Sessions"), "{said}");
    first.exchanges(b"undisturbed");
    first.end();
    assert!(first.ends().0.success());
    host.counts("the session has ended", |counts| counts["sessions"] == 0);
    Session::connect(&zone, "host-7:echo").exchanges(b"the next one");
}

/// What a command that must fail says, in one line.
fn refused(zone: &Zone, words: &[&str]) -> String {
    let said = fail(&mut zone.cli(words), b"");
    println!("{}", said.trim_end());
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    said
}
