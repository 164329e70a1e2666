//! 17488 has an identity of its own: what somebody with a relay's keys can still do there, and what not.

mod kills;
mod poser;
mod secrecy;

use std::fs;
use std::path::PathBuf;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use zone_tests::control::Client;
use zone_tests::host::Host;
use zone_tests::process::{fail, run, succeed};
use zone_tests::session::Session;
use zone_tests::target;
use zone_tests::zone::{Service, Zone};

use poser::Poser;

/// The commands that ask a proxy something, or tell it something, on 17488.
const COMMANDS: [&[&str]; 5] = [
    &["status", "p1"],
    &["trust", "push"],
    &["rotate", "p1"],
    &["provision", "--name", "p1", "--again"],
    &["unprovision", "p1"],
];

/// Whoever took over the relay, and stands between the Module Server and the proxy.
#[test]
fn the_relays_keys_are_refused_on_17488_once_its_own_identity_was_seen_there() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    assert!(noted(&zone));
    assert_eq!(host.status()["control_identity"], "spiffe://plant/zone-control/p1");
    let told = succeed(&mut zone.cli(&["status", "p1"]), b"");
    assert!(told.contains("17488 shows spiffe://plant/zone-control/p1"), "{told}");

    let poser = Poser::start(&host, 17488, "");
    dial(&zone, poser.address());
    for command in COMMANDS {
        let told = run(&mut zone.cli(command), b"");
        let told =
            [told.stdout, told.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        for words in [
            "shows spiffe://plant/zone-proxy/p1, whose keys a relay holds",
            "not spiffe://plant/zone-control/p1",
            "zone-proxy token new",
            "zone-module provision --name p1",
        ] {
            assert!(told.contains(words), "{command:?} does not say '{words}': {told}");
        }
        assert!(noted(&zone), "{command:?} forgets what was seen");
    }
    assert_eq!(poser.requests(), 0, "it was asked something");
    assert_eq!(zone.directory().proxies().expect("proxies").len(), 1, "it is forgotten, and was not asked");

    // The relay of another proxy of the zone is that one's, and no word is said of this one's downgrade.
    let beside = Host::start("");
    let at = beside.address.to_string();
    let mut provision = zone.cli(&["provision", "--name", "p2", "--listen", &at]);
    succeed(&mut provision, beside.payload().as_bytes());
    let poser = Poser::start(&beside, 17488, "");
    dial(&zone, poser.address());
    let told = fail(&mut zone.cli(&["status", "p1"]), b"");
    assert!(told.contains("zone-proxy/p2, but p1 was expected"), "{told}");
    let poser = Poser::start(&beside, 17488, "control-");
    dial(&zone, poser.address());
    let told = fail(&mut zone.cli(&["status", "p1"]), b"");
    assert!(told.contains("zone-control/p2, but p1 was expected"), "{told}");

    dial(&zone, host.address.into());
    succeed(&mut zone.cli(&["status", "p1"]), b"");
}

/// What is documented: the first time is believed.
#[test]
fn as_long_as_nothing_was_seen_the_relays_keys_are_taken_as_before_and_one_contact_with_the_proxy_ends_that()
{
    let host = Host::start("");
    let zone = Zone::with(&host);
    fs::remove_file(note(&zone)).expect("as in a copy from before");
    let poser = Poser::start(&host, 17488, "");
    dial(&zone, poser.address());
    let told = succeed(&mut zone.cli(&["status", "p1", "--json"]), b"");
    assert!(told.contains(poser::HOST_NAME), "{told}");
    assert!(!noted(&zone) && poser.requests() > 0);

    for command in [&["status", "p1"][..], &["trust", "push"]] {
        dial(&zone, host.address.into());
        succeed(&mut zone.cli(command), b"");
        assert!(noted(&zone), "{command:?} has seen it");
        dial(&zone, poser.address());
        let told = fail(&mut zone.cli(&["status", "p1"]), b"");
        assert!(told.contains("whose keys a relay holds"), "{told}");
        fs::remove_file(note(&zone)).expect("noted");
    }
}

/// Roles are not mixed: 17488's keys are worth nothing anywhere else.
#[test]
fn the_keys_of_17488_are_no_good_for_17487_and_neither_pair_is_good_for_a_client() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let poser = Poser::start(&host, 17487, "control-");
    let mut settings = proxies(&zone);
    settings[0]["settings"]["listen"]["module_server"] = serde_json::json!([poser.address().to_string()]);
    fs::write(zone.path().join("proxies.json"), settings.to_string()).expect("written");
    let told = fail(&mut zone.cli(&["endpoints"]), b"");
    assert!(told.contains("zone-control/p1") && told.contains("role zone-proxy"), "{told}");
    assert_eq!(poser.requests(), 0);

    for pair in ["", "control-"] {
        let [chain, key] = poser::pair(&host, pair);
        for port in [17486, 17487, 17488] {
            let error = poser::refused(&host, port, &zone, (&chain, &key)).expect("it is refused");
            assert!(error.contains("received fatal alert"), "{port}, {pair}: {error}");
        }
    }
}

/// A session is the relay's, and its port has other keys.
#[test]
fn two_hundred_sessions_move_data_while_all_keys_are_replaced_and_none_is_lost() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    // An endpoint may have 32 at a time.
    let ids = ["host-1", "host-2", "host-3", "host-4", "host-5", "host-6", "host-7"];
    let echo = || Service { name: "echo", port: 7, target: target::echo().to_string(), end_to_end: false };
    let _endpoints = ids.map(|id| zone.endpoint(&host, id, &[echo()]));
    let connect =
        |id: &&str| Session::start(&mut zone.cli(&["connect", "--end-to-end", "off", &format!("{id}:echo")]));
    let mut sessions: Vec<_> = ids.iter().cycle().take(200).map(connect).collect();
    for session in &mut sessions {
        session.exchanges(b"before");
    }
    let before = host.relay();
    let mut rotating = zone_tests::process::Process::start(&mut zone.cli(&["rotate", "p1"]));
    let mut rounds = 0;
    while rotating.runs() || rounds < 2 {
        for session in &mut sessions {
            session.exchanges(b"while keys are replaced");
        }
        rounds += 1;
    }
    assert!(rotating.ends().success(), "{}", rotating.said());
    for mut session in sessions {
        session.exchanges(b"after");
        session.end();
        let (status, said) = session.ends();
        assert!(status.success(), "{said}");
    }
    assert_eq!(host.relay(), before, "the relay is the same");
    println!("200 sessions, {rounds} rounds while keys were replaced");
}

/// The proxy of a token is known by its keys and its proof: the way out of everything above.
#[test]
fn a_new_token_provisions_a_proxy_with_an_identity_of_its_own_and_pins_what_17488_shows() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    succeed(&mut host.cli(&["token", "new"]), b"");
    let payload = host.payload();
    // The relay's keys are not those of the token.
    let poser = Poser::start(&host, 17488, "");
    let at = poser.address().to_string();
    dial(&zone, poser.address());
    let token = host.token().reveal();
    let told = fail(&mut zone.cli(&["provision", "--name", "p1", "--address", &at]), token.as_bytes());
    assert!(told.contains("whose keys a relay holds"), "{told}");
    assert_eq!(poser.requests(), 0);
    dial(&zone, host.address.into());

    let told = succeed(&mut zone.provision_command(&host), payload.as_bytes());
    assert!(told.contains("zone-control/p1") && told.contains("provisioned as p1"), "{told}");
    assert!(noted(&zone));
    succeed(&mut zone.cli(&["status", "p1"]), b"");
    // Repeated, as after a lost answer.
    let told = succeed(&mut zone.provision_command(&host), payload.as_bytes());
    assert!(told.contains("already provisioned by this zone"), "{told}");
    succeed(&mut zone.cli(&["unprovision", "p1"]), b"");
    assert!(!noted(&zone), "it is forgotten with the proxy");
    assert!(host.status()["control_identity"].is_null());
    zone.provision(&host);
}

/// What is documented: where nothing was seen and the relay may be captured already, a token brings the identity safely.
#[test]
fn the_relays_keys_can_not_have_their_own_signed_by_a_provisioning_with_a_token() {
    let mut host = Host::start("");
    let zone = Zone::with(&host);
    take_away(&mut host, &zone);
    succeed(&mut host.cli(&["token", "new"]), b"");
    let (token, payload) = (host.token().reveal(), host.payload());
    let poser = Poser::start(&host, 17488, "");
    let at = poser.address().to_string();
    let signed = || fs::read(zone.path().join("issued.jsonl")).expect("the record");
    let before = signed();
    dial(&zone, poser.address());
    let told = fail(&mut zone.cli(&["provision", "--name", "p1", "--address", &at]), token.as_bytes());
    assert!(told.contains("does not prove that its sender knows the token's secret"), "{told}");
    assert_eq!((poser.requests(), signed() == before), (1, true), "something was signed");
    assert!(!noted(&zone));

    dial(&zone, host.address.into());
    succeed(&mut zone.provision_command(&host), payload.as_bytes());
    assert!(noted(&zone));
    dial(&zone, poser.address());
    assert!(fail(&mut zone.cli(&["status", "p1"]), b"").contains("whose keys a relay holds"));
}

/// One thread serves 17488, and an RSA key takes long.
#[test]
fn status_is_answered_at_once_while_keys_are_made() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let mut making: Vec<_> = (0..4).map(|_| Client::member(&host, &zone)).collect();
    let mut asking = Client::member(&host, &zone);
    std::thread::scope(|scope| {
        let making: Vec<_> = making.iter_mut().map(|client| scope.spawn(move || one_offer(client))).collect();
        let (mut longest, mut asked) = (Duration::ZERO, 0);
        while !making.iter().all(ScopedJoinHandle::is_finished) {
            let at = Instant::now();
            assert_eq!(asking.ask("GET", "/v1/status", &[], b"").status, 200);
            longest = longest.max(at.elapsed());
            asked += 1;
        }
        println!("{asked} answers while keys for four offers were made, the slowest after {longest:?}");
        // On the thread that answers, there would be one after each offer at most.
        assert!(asked >= 2 * making.len(), "{asked} answers, the slowest after {longest:?}");
        for thread in making {
            assert_eq!(thread.join().expect("it does not panic"), 201);
        }
    });
}

/// Asks for an offer until keys are not being made for anybody else; the status in the end.
fn one_offer(client: &mut Client) -> u16 {
    let fields = [(zone_protocol::fields::FEATURES, zone_protocol::features::CONTROL_IDENTITY)];
    loop {
        let answer = client.ask("POST", "/v1/identity", &fields, b"");
        if answer.status != 409 {
            return answer.status;
        }
        answer.problem(409, "busy");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Has the zone directory believe that its proxy is there: what happens to whoever is redirected on the way.
fn dial(zone: &Zone, at: std::net::IpAddr) {
    let mut proxies = proxies(zone);
    proxies[0]["addresses"] = serde_json::json!([at.to_string()]);
    fs::write(zone.path().join("proxies.json"), proxies.to_string()).expect("written");
}

/// Takes the identity of 17488 away on both sides, as the programs of the version before do.
fn take_away(host: &mut Host, zone: &Zone) {
    host.control.kill();
    for kind in ["ec.crt", "ec.key", "rsa.crt", "rsa.key"] {
        let _ = fs::remove_file(host.state().join(format!("current/control-{kind}")));
    }
    let _ = fs::remove_file(note(zone));
    host.restart();
}

fn proxies(zone: &Zone) -> serde_json::Value {
    let text = fs::read(zone.path().join("proxies.json")).expect("proxies");
    serde_json::from_slice(&text).expect("JSON")
}

fn note(zone: &Zone) -> PathBuf {
    zone.path().join("control-p1.json")
}

fn noted(zone: &Zone) -> bool {
    note(zone).exists()
}
