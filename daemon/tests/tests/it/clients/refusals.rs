//! What somebody reads whose session does not come about, and that nothing else does.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use nix::sys::signal::Signal;
use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
use zone_tests::host::Host;
use zone_tests::process::{fail, run, succeed};
use zone_tests::session::Session;
use zone_tests::zone::{Service, Zone, start_endpoint};
use zone_tests::{target, until};

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

/// What a caller is told in one situation.
struct Told {
    situation: &'static str,
    target: &'static str,
    /// The error type of RFC 9209, which goes with the HTTP status.
    error: &'static str,
    /// What the endpoint answered, if it did.
    answered: Option<u16>,
    /// The cause, and what this user can do.
    words: &'static [&'static str],
    /// The reason in the log and in the metrics of refusals.
    label: &'static str,
}

/// Asks for a session and compares what is said here, in the log and in the metrics.
fn is_told(host: &Host, zone: &Zone, expected: &Told) {
    let Told { situation, target, error, answered, words, label } = expected;
    let said = refused(zone, &["connect", target]);
    assert!(said.contains(&format!("refused {target}: ")), "{situation}: {said}");
    let answered = answered.map(|status| format!(", the endpoint answered {status}")).unwrap_or_default();
    assert!(said.contains(&format!("({error}{answered})")), "{situation}: {said}");
    for words in *words {
        assert!(said.contains(words), "{situation}: not '{words}' in {said}");
    }
    let logged = format!("reason=\"{label}\"");
    until(&format!("{situation}: {logged} is logged:\n{}", host.control.said()), || {
        host.control.said().lines().any(|line| line.contains(&logged) && line.contains(target))
    });
}

/// The words of each situation tell its cause and what this user can do about it.
#[test]
fn each_situation_that_keeps_a_caller_from_a_session_has_words_of_its_own() {
    let host = Host::start(SETTLED);
    let zone = Zone::with(&host);
    let silent = listener_that_takes_nobody();
    let unknown =
        Service { target: "no.such.name.invalid:1".to_owned(), ..sealed("unknown", 3, target::nobody()) };
    let services = [
        sealed("gone", 1, target::nobody()),
        sealed("late", 2, silent.0.local_addr().expect("bound")),
        unknown,
        sealed("echo", 7, target::echo()),
    ];
    let mut endpoint = zone.endpoint(&host, "host-7", &services);
    for told in [
        Told {
            situation: "an endpoint that nobody knows",
            target: "host-8:echo",
            error: "destination_not_found",
            answered: None,
            words: &["no such endpoint is connected", "check the endpoint id"],
            label: "unknown_endpoint",
        },
        Told {
            situation: "a service that is not listed",
            target: "host-7:files",
            error: "connection_refused",
            answered: Some(404),
            words: &["no such service (No Such Service)", "[[service]]"],
            label: "refused_by_endpoint",
        },
        Told {
            situation: "a target where nobody listens",
            target: "host-7:gone",
            error: "connection_refused",
            answered: Some(502),
            words: &[
                "could not reach the service's target (Target Refused)",
                "see on its host that the service runs",
            ],
            label: "refused_by_endpoint",
        },
        Told {
            situation: "a target that does not answer",
            target: "host-7:late",
            error: "connection_refused",
            answered: Some(502),
            words: &["could not reach the service's target (Target Timed Out)"],
            label: "refused_by_endpoint",
        },
        Told {
            situation: "a target whose name is not known",
            target: "host-7:unknown",
            error: "connection_refused",
            answered: Some(502),
            words: &["could not reach the service's target (Target Name Unknown)"],
            label: "refused_by_endpoint",
        },
    ] {
        is_told(&host, &zone, &told);
    }
    endpoint.signal(Signal::SIGSTOP);
    let frozen = Told {
        situation: "an endpoint that stands still",
        target: "host-7:echo",
        error: "connection_timeout",
        answered: None,
        words: &["the endpoint does not answer", "look at its host", "NAT or firewall"],
        label: "endpoint_silent",
    };
    is_told(&host, &zone, &frozen);
    // Its parks are gone by now, and it is known still.
    is_told(&host, &zone, &Told { situation: "an endpoint that has stood still for a while", ..frozen });
    endpoint.signal(Signal::SIGCONT);
    until("it is back", || run(&mut zone.cli(&["connect", "host-7:echo"]), b"").status.success());
    endpoint.kill();
    let away = Told {
        situation: "an endpoint that has just ended",
        target: "host-7:echo",
        error: "destination_unavailable",
        answered: None,
        words: &["holds no connection now", "see that it runs and reaches the proxy"],
        label: "endpoint_away",
    };
    is_told(&host, &zone, &away);
}

#[test]
fn an_endpoint_is_told_how_many_parks_are_kept_and_why_one_is_let_go() {
    let host = Host::start("[limits]\nendpoints = 1\nparks_per_endpoint = 2\n");
    let zone = Zone::with(&host);
    let folder = zone.issue_endpoint("host-7", &[sealed("echo", 7, target::echo())]);
    let file = folder.join("zone-endpoint.toml");
    let text = std::fs::read_to_string(&file).expect("the configuration");
    std::fs::write(&file, text.replace("parks = 2", "parks = 6")).expect("written");
    let endpoint = start_endpoint(&folder);
    endpoint.says("parks = 6, and the proxy keeps 2 parks of one endpoint (limits.parks_per_endpoint there): 2 are held");
    // Each is taken by a session in turn, and replaced.
    for _ in 0..6 {
        Session::connect(&zone, "host-7:echo").exchanges(b"one of two");
        host.counts("two parks", |counts| counts["parks"] == 2);
    }
    assert_eq!(endpoint.said().matches("parks = 6").count(), 1, "it is said once");
    assert!(!endpoint.said().contains("another machine"), "{}", endpoint.said());

    let second = start_endpoint(&zone.issue_endpoint("host-8", &[]));
    second.says("as many endpoints as it allows are connected (limits.endpoints there)");
}

#[test]
fn an_endpoint_whose_image_runs_on_a_second_machine_says_so_and_makes_way_for_it() {
    let host = Host::start("[limits]\nparks_per_endpoint = 2\n");
    let zone = Zone::with(&host);
    let folder = zone.issue_endpoint("host-7", &[]);
    let older = start_endpoint(&folder);
    host.counts("two parks", |counts| counts["parks"] == 2);
    let newer = start_endpoint(&folder);
    older.says("another machine runs under the same id");
    until("both have parked twice and no more", || {
        [&older, &newer].iter().all(|endpoint| endpoint.said().matches("the endpoint is parked").count() == 2)
    });
    assert!(!newer.said().contains("park lost"), "{}", newer.said());
}

/// A listener whose queue is full, so that the kernel drops what comes.
fn listener_that_takes_nobody() -> (TcpListener, Vec<TcpStream>) {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    listen(&socket, 0).expect("a listener");
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().expect("bound");
    let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(300)).ok();
    let queued: Vec<_> = (0..8).map_while(connect).collect();
    assert!(queued.len() < 8, "the queue never fills");
    (listener, queued)
}

#[test]
fn a_proxy_that_was_reset_is_said_to_be_and_what_to_do() {
    let host = Host::start(SETTLED);
    let zone = Zone::with(&host);
    succeed(&mut host.cli(&["reset", "--yes"]), b"");
    until("17487 is closed", || !host.answers(17487));
    for words in [&["connect", "host-7:echo"][..], &["endpoints"], &["rotate", "p1"], &["status"]] {
        let said = fail(&mut zone.cli(words), b"");
        println!("{words:?}: {said}");
        for part in
            ["belongs to no zone any more", "'zone-proxy show payload'", "'zone-module provision --name p1'"]
        {
            assert!(said.contains(part), "{words:?}: {said}");
        }
    }
    zone.provision(&host);
    succeed(&mut zone.cli(&["endpoints"]), b"");
    // Another zone takes it.
    succeed(&mut host.cli(&["reset", "--yes"]), b"");
    let mut init = std::process::Command::new(zone_tests::program("zone-module"));
    let other = zone.beside("other");
    succeed(init.arg("--zone").arg(&other).args(["init", "works"]), b"");
    let mut provision = std::process::Command::new(zone_tests::program("zone-module"));
    provision.arg("--zone").arg(&other).args(["provision", "--name", "w1", "--listen"]);
    succeed(provision.arg(host.address.to_string()), host.payload().as_bytes());
    for words in [&["endpoints"][..], &["connect", "host-7:echo"], &["status"]] {
        let said = fail(&mut zone.cli(words), b"");
        println!("{words:?}: {said}");
        for part in ["belongs to zone works now", "'zone-proxy reset'", "'zone-module provision --name p1'"] {
            assert!(said.contains(part), "{words:?}: {said}");
        }
    }
}

/// What a command that must fail says, in one line.
fn refused(zone: &Zone, words: &[&str]) -> String {
    let said = fail(&mut zone.cli(words), b"");
    println!("{}", said.trim_end());
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    said
}
