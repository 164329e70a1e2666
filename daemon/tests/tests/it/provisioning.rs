//! The life of a proxy as its admins see it: from a fresh host to a member of a zone, and back.

use std::net::Ipv4Addr;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use zone_protocol::provisioning::{
    Endpoints, NewIdentity, Offer, OfferRequest, Payload, Provisioned, Provisioning, Status,
};
use zone_protocol::trust::Trust;
use zone_tests::control::Client;
use zone_tests::host::Host;
use zone_tests::process::{Process, fail, run, succeed};
use zone_tests::session::Session;
use zone_tests::zone::{Service, Zone, start_endpoint};
use zone_tests::{address, target, until};

/// R-10, R-11, R-12, R-15: what listens, and since when.
#[test]
fn before_provisioning_only_17488_answers_and_afterwards_all_three_ports_do() {
    let host = Host::start("");
    assert!(host.answers(17488));
    assert!(!host.answers(17486) && !host.answers(17487));
    assert_eq!(ports(&host.status()), [json!(["control", host.address, 17488, true])]);
    assert!(succeed(&mut host.cli(&["status"]), b"").contains("unprovisioned"));

    let zone = Zone::init();
    let told = zone.provision(&host);
    assert!(told.contains("the proxy has proved itself"), "{told}");
    assert!(told.contains("provisioned as p1"), "{told}");
    assert!(host.answers(17488) && host.answers(17486) && host.answers(17487));

    let by_host = host.status();
    let by_zone = status(&zone);
    for told in [&by_host, &by_zone] {
        assert_eq!(told["state"], "provisioned");
        assert_eq!((&told["zone"], &told["name"]), (&json!("plant"), &json!("p1")));
        let expected = [("control", 17488), ("endpoint", 17486), ("module-server", 17487)];
        assert_eq!(ports(told), expected.map(|(purpose, port)| json!([purpose, host.address, port, true])));
    }
    assert_eq!(by_host["provisioning"], by_zone["provisioning"]);
    let text = succeed(&mut zone.cli(&["status"]), b"");
    assert!(text.contains("provisioned") && text.matches("listening").count() == 3, "{text}");
}

/// A repeated `zone-module provision` does no harm, and the token of a proxy that belongs to a zone is gone.
#[test]
fn a_second_provisioning_with_the_same_token_finds_it_done_and_another_zone_is_refused() {
    let host = Host::start("");
    let (zone, payload) = (Zone::init(), host.payload());
    succeed(&mut zone.provision_command(&host), payload.as_bytes());
    let before = host.settled_status();

    let again = succeed(&mut zone.provision_command(&host), payload.as_bytes());
    let id = before["provisioning"].as_str().expect("an id").to_owned();
    assert!(again.contains("already provisioned by this zone as p1"), "{again}");
    assert!(again.contains(&id), "{again}");

    let stranger = fail(&mut Zone::init().provision_command(&host), payload.as_bytes());
    assert!(stranger.contains("no longer holds the keys of this token"), "{stranger}");
    let no_payload = fail(&mut host.cli(&["show", "payload"]), b"");
    assert!(no_payload.contains("already provisioned"), "{no_payload}");
    assert!(no_payload.contains("zone-proxy token new"), "{no_payload}");
    assert_eq!(host.settled_status(), before);
}

/// R-11, R-12: both relay ports and their addresses are chosen at provisioning.
#[test]
fn the_relay_ports_listen_where_the_module_server_says() {
    let (host, zone, other) = (Host::start(""), Zone::init(), address());
    let other_address = other.to_string();
    let own_address = host.address.to_string();
    let mut command = zone.cli(&["provision", "--name", "p1", "--listen", &own_address, &other_address]);
    command.args(["--endpoint-port", "20486", "--module-server-port", "20487"]);
    succeed(&mut command, host.payload().as_bytes());
    let answers = |ip: Ipv4Addr, port| std::net::TcpStream::connect((ip, port)).is_ok();
    for ip in [host.address, other] {
        assert!(answers(ip, 20486) && answers(ip, 20487), "{ip}");
        assert!(!answers(ip, 17486) && !answers(ip, 17487), "{ip}");
    }
    assert!(!answers(other, 17488), "17488 listens where the host's own configuration says");
    assert_eq!(ports(&status(&zone)).len(), 5);

    let (_endpoint, mut session) = session(&host, &zone);
    session.exchanges(b"through other ports");
}

/// R-15: un-provisioning closes both ports again; the proxy can join another zone with a new token.
#[test]
fn un_provisioning_closes_both_ports_and_shows_a_new_token() {
    let (host, zone) = (Host::start(""), Zone::init());
    let first = host.token();
    zone.provision(&host);
    let told = succeed(&mut zone.cli(&["unprovision", "p1"]), b"");
    assert!(told.contains("p1: un-provisioned"), "{told}");
    assert!(!host.answers(17486) && !host.answers(17487));
    assert!(host.answers(17488));
    let left = host.status();
    assert_eq!((&left["state"], &left["relays"]), (&json!("unprovisioned"), &json!([])));
    assert_ne!(host.token().reveal(), first.reveal());
    assert!(succeed(&mut zone.cli(&["status"]), b"").contains("no proxy yet"));

    let next = Zone::with(&host);
    assert!(host.answers(17486) && host.answers(17487));
    assert_eq!(status(&next)["state"], "provisioned");
}

/// The proxy has done it, and the Module Server has not heard.
#[test]
fn an_un_provisioning_whose_answer_was_lost_is_found_to_be_done_when_it_is_asked_for_again() {
    let (host, zone) = (Host::start(""), Zone::init());
    zone.provision(&host);
    let copy = zone.beside("before");
    succeed(Command::new("cp").arg("-r").arg(zone.path()).arg(&copy), b"");
    // Somebody else's reset looks the same: nothing was asked for, so nothing is believed.
    succeed(&mut zone.cli(&["unprovision", "p1"]), b"");
    std::fs::rename(zone.path(), zone.beside("after")).expect("our folder");
    std::fs::rename(copy, zone.path()).expect("our folder");
    let told = fail(&mut zone.cli(&["unprovision", "p1"]), b"");
    assert!(told.contains("belongs to no zone any more"), "{told}");
    // By then it was told.
    let told = succeed(&mut zone.cli(&["unprovision", "p1"]), b"");
    assert!(told.contains("p1: un-provisioned, as it was told before"), "{told}");
    assert!(succeed(&mut zone.cli(&["status"]), b"").contains("no proxy yet"));

    // A member again, by the same name: what was told before counts no more.
    zone.provision(&host);
    assert!(!zone.path().join("leaving-p1.json").exists());
    succeed(&mut zone.cli(&["unprovision", "p1"]), b"");
}

/// The same from the host, where the Module Server is out of reach.
#[test]
fn a_reset_on_the_host_wants_a_typed_yes_and_then_closes_both_ports() {
    let mut host = Host::start("");
    let zone = Zone::with(&host);
    let refused = fail(&mut host.cli(&["reset"]), b"no\n");
    assert!(refused.contains("nothing was done"), "{refused}");
    assert!(host.answers(17486));
    let told = succeed(&mut host.cli(&["reset"]), b"yes\n");
    assert!(told.contains("belongs to no zone"), "{told}");
    assert!(!host.answers(17486) && !host.answers(17487));
    zone.cli(&["unprovision", "p1", "--forget"]).output().expect("zone-module runs");

    // Without the daemon it does the same, whatever the relay still does.
    zone.provision(&host);
    host.control.kill();
    assert!(host.answers(17486), "the relay outlives its control");
    succeed(&mut host.cli(&["reset", "--yes"]), b"");
    until("both ports are closed", || !host.answers(17486) && !host.answers(17487));
    host.restart();
    assert_eq!(host.status()["state"], "unprovisioned");
}

/// Re-provisioning by mutual TLS starts a new relay; the old one drains.
#[test]
fn re_provisioning_moves_the_ports_and_lets_sessions_go_on() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let (endpoint, mut old) = session(&host, &zone);
    let relay = host.relay();
    let first = host.status()["provisioning"].clone();

    let words = ["provision", "--name", "p1", "--again", "--endpoint-port", "20486"];
    let told = succeed(zone.cli(&words).args(["--module-server-port", "20487"]), b"");
    assert!(told.contains("20486") && told.contains("20487"), "{told}");
    assert!(host.answers(20486) && host.answers(20487));
    until("the old ports are closed", || !host.answers(17486) && !host.answers(17487));
    assert_ne!(host.relay(), relay);
    assert_ne!(host.status()["provisioning"], first);
    assert_eq!(relays(&host), ["draining", "serving"]);

    old.exchanges(b"over the relay that drains");
    drop((old, endpoint));
    until("the old relay ends with its last session", || relays(&host) == ["serving"]);
}

/// A zone whose authority is lost gives way to another one, by a token made on the host.
#[test]
fn a_new_token_lets_a_new_zone_take_over_while_the_old_one_is_served_until_then() {
    let host = Host::start("");
    let lost = Zone::with(&host);
    let (_endpoint, mut session) = session(&host, &lost);
    let payload = succeed(&mut host.cli(&["token", "new"]), b"");
    assert!(payload.contains(&host.token().reveal()), "it prints what is to be submitted: {payload}");
    session.exchanges(b"a token alone changes nothing");
    assert_eq!(status(&lost)["state"], "provisioned");

    let next = Zone::init();
    let told = succeed(&mut next.provision_command(&host), payload.as_bytes());
    assert!(told.contains("provisioned as p1"), "{told}");
    assert_eq!(status(&next)["state"], "provisioned");
    let refused = fail(&mut lost.cli(&["status", "p1"]), b"");
    assert!(refused.contains("is not whom it should be"), "{refused}");
    assert!(fail(&mut host.cli(&["show", "payload"]), b"").contains("already provisioned"));
    host.logs(&["audit", "change=\"provision\"", "holder of the token", "before=\"zone=plant"]);
}

/// Keys and certificates change on all three ports; what is connected stays connected.
#[test]
fn rotating_the_identity_changes_the_certificate_of_every_port_and_ends_no_session() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let (_endpoint, mut session) = session(&host, &zone);
    let (before, relay) = (certificates(&host), host.relay());
    let told = succeed(&mut zone.cli(&["rotate", "p1"]), b"");
    assert!(told.contains("p1: shows its new certificates"), "{told}");
    let after = certificates(&host);
    for (old, new) in before.iter().zip(&after) {
        assert_ne!(old, new);
    }
    assert_eq!(after[0], after[1], "both relay ports show the same");
    assert_ne!(after[0], after[2], "and 17488 its own");
    session.exchanges(b"the session has lived through it");
    assert_eq!(host.relay(), relay);
    Session::connect(&zone, "e1:echo").exchanges(b"and there are new ones");
    host.logs(&["audit", "change=\"identity\"", "spiffe://plant/module-server/module-1", "done"]);
}

/// Trust versions are compared at each contact, so that a proxy that was away converges.
#[test]
fn a_proxy_that_was_down_learns_of_a_revocation_at_the_next_contact() {
    let mut host = Host::start("");
    let zone = Zone::with(&host);
    for (id, contact) in [("e1", ["status", "p1"]), ("e2", ["trust", "push"])] {
        let endpoint = zone.endpoint(&host, id, &[]);
        let version = host.status()["trust_version"].as_u64().expect("a version");
        host.control.kill();
        let told = fail(&mut zone.cli(&["revoke", "endpoint", id]), b"");
        assert!(told.contains("gets it at the next contact"), "{told}");
        assert!(!endpoint.said().contains("revoked"), "nobody could tell the relay");
        host.restart();
        assert_eq!(host.status()["trust_version"], version);

        succeed(&mut zone.cli(&contact), b"");
        assert_eq!(host.status()["trust_version"], version + 1);
        endpoint.says("revoked");
        let listed = succeed(&mut zone.cli(&["endpoints", "--json"]), b"");
        assert!(!listed.contains(&format!("\"{id}\"")), "{listed}");
    }
}

/// R-5: a proxy trusts more than one Module Server, and each can be revoked by itself.
#[test]
fn a_standby_module_server_is_let_in_until_it_is_revoked() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let folder = zone.issue_module_server("standby");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("the bundle");
    let (chain, key) = (read("module-server.crt"), read("module-server.key"));
    let own = Some((chain.as_str(), key.as_str()));
    let mut open = Client::by_certificate(&host, &zone, own).expect("it is let in");
    assert_eq!(open.ask("GET", "/v1/status", &[], b"").status, 200);

    succeed(&mut zone.cli(&["revoke", "module-server", "standby"]), b"");
    assert!(open.is_closed(), "its connection ends with its rights");
    let refused = Client::by_certificate(&host, &zone, own).expect_err("it is revoked");
    assert!(refused.to_string().contains("CertificateRevoked"), "{refused}");
    host.logs(&["step=\"handshake\"", "spiffe://plant/module-server/standby is revoked"]);
    assert_eq!(status(&zone)["trust_version"], 2);
}

/// R-53, R-43: who changed what, from where, before and after; and no secret among it.
#[test]
fn every_administrative_act_is_audited_and_no_token_ever_shows() {
    let host = Host::start("[log]\nlevel = \"trace\"");
    let zone = Zone::init();
    let mut secrets = vec![host.token().reveal()];
    zone.provision(&host);
    succeed(&mut zone.cli(&["rotate", "p1"]), b"");
    succeed(&mut zone.cli(&["revoke", "endpoint", "nobody"]), b"");
    succeed(&mut host.cli(&["token", "new"]), b"");
    secrets.push(host.token().reveal());
    succeed(&mut zone.cli(&["provision", "--name", "p1", "--again"]), b"");
    succeed(&mut zone.cli(&["unprovision", "p1"]), b"");
    secrets.push(host.token().reveal());
    succeed(&mut host.cli(&["reset", "--yes"]), b"");
    secrets.push(host.token().reveal());

    let module_server = "spiffe://plant/module-server/module-1";
    let ours = format!("user {} of this host", nix::unistd::getuid());
    let acts = [
        ("offer", "holder of the token"),
        ("provision", "holder of the token"),
        ("identity", module_server),
        ("trust", module_server),
        ("token", &ours),
        ("offer", module_server),
        ("provision", module_server),
        ("unprovision", module_server),
        ("unprovision", &ours),
    ];
    for (change, who) in acts {
        let line = host.logs(&["audit", &format!("change=\"{change}\""), who]);
        assert!(line.contains("from="), "{line}");
        assert!(change == "offer" || (line.contains("before=") && line.contains("after=")), "{line}");
    }
    let said = host.control.said();
    for secret in secrets {
        assert!(!said.contains(&secret) && !said.contains(&secret[60..]), "a token is in the log");
    }
    assert!(!said.contains("PRIVATE KEY"), "a key is in the log");
}

/// R-43: a secret is never an argument, so without standard input there is none.
#[test]
fn a_payload_comes_on_standard_input_and_nowhere_else() {
    let (host, zone) = (Host::start(""), Zone::init());
    let told = fail(&mut zone.provision_command(&host), b"");
    assert!(told.contains("standard input") && told.contains("show payload"), "{told}");
    let token = host.token().reveal();
    let output = run(zone.provision_command(&host).arg(&token), b"");
    assert_eq!(output.status.code(), Some(2));
    // R-41: the bare token does as well, where the address is given.
    let own_address = host.address.to_string();
    succeed(zone.provision_command(&host).args(["--address", &own_address]), token.as_bytes());
    assert!(host.answers(17486));
}

#[test]
fn a_provisioned_proxy_that_is_stopped_and_started_is_the_same_member_again() {
    let mut host = Host::start("");
    let zone = Zone::with(&host);
    let before = (host.status()["provisioning"].clone(), certificates(&host));
    host.control.signal(Signal::SIGTERM);
    host.control.ends();
    assert!(!host.answers(17486) && !host.answers(17487) && !host.answers(17488));
    host.restart();
    until("both ports listen again", || host.answers(17486) && host.answers(17487));
    assert_eq!((host.status()["provisioning"].clone(), certificates(&host)), before);
    let (_endpoint, mut session) = session(&host, &zone);
    session.exchanges(b"as before");
}

/// 17488 describes itself by the document that the repository holds.
#[test]
fn the_api_description_that_is_served_is_the_one_in_the_repository() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let answer = Client::member(&host, &zone).ask("GET", "/v1/openapi.json", &[], b"");
    assert_eq!(answer.status, 200, "{answer:?}");
    let own: Value = serde_json::from_str(include_str!("../../../../docs/openapi.json")).expect("JSON");
    assert!(answer.document::<Value>() == own, "it differs from docs/openapi.json");

    // A stranger's client reads it too.
    let folder = zone.issue_module_server("curl");
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", "--tls-max", "1.2", "--cert"]);
    curl.arg(folder.join("module-server.crt")).arg("--key").arg(folder.join("module-server.key"));
    curl.arg("--cacert").arg(folder.join("zone-proxy-ca.crt"));
    let text = succeed(curl.arg(format!("https://{}/v1/openapi.json", host.port(17488))), b"");
    assert!(serde_json::from_str::<Value>(&text).expect("JSON") == own, "curl reads something else");
}

/// A stranger writes a peer from docs/protocol.md alone, so its documents must be what the programs read.
#[test]
fn every_document_in_the_protocol_description_reads_as_what_it_is_called() {
    let text = include_str!("../../../../docs/protocol.md");
    let mut read = Vec::new();
    for block in text.split("\n```json ").skip(1) {
        let (name, rest) = block.split_once('\n').expect("a fence");
        let (json, _) = rest.split_once("\n```").expect("a closing fence");
        let done = match name.trim() {
            "endpoints" => reads::<Endpoints>(json),
            "payload" => reads::<Payload>(json),
            "offer-request" => reads::<OfferRequest>(json),
            "offer" => reads::<Offer>(json),
            "provisioning" => reads::<Provisioning>(json),
            "provisioned" => reads::<Provisioned>(json),
            "status" => reads::<Status>(json),
            "new-identity" => reads::<NewIdentity>(json),
            "trust" => reads::<Trust>(json),
            other => Err(format!("no type is called '{other}'")),
        };
        done.unwrap_or_else(|error| panic!("{name}: {error}\n{json}"));
        read.push(name.trim());
    }
    read.sort_unstable();
    read.dedup();
    assert!(read.len() >= 9, "only {read:?} are described");
}

/// What is written of a document must also be what a program would write: nothing in it is left unread.
fn reads<T: serde::de::DeserializeOwned + serde::Serialize>(json: &str) -> Result<(), String> {
    let written: Value = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let value: T = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let again = serde_json::to_value(value).map_err(|error| error.to_string())?;
    unread(&written, &again, "").map_or(Ok(()), |path| Err(format!("'{path}' is not read")))
}

/// The first path in `written` that `again` lacks.
fn unread(written: &Value, again: &Value, path: &str) -> Option<String> {
    match (written, again) {
        (Value::Object(written), Value::Object(again)) => written.iter().find_map(|(key, value)| {
            let path = format!("{path}/{key}");
            again.get(key).map_or(Some(path.clone()), |other| unread(value, other, &path))
        }),
        (Value::Array(written), Value::Array(again)) => {
            let pairs = written.iter().zip(again);
            pairs.enumerate().find_map(|(n, (value, other))| unread(value, other, &format!("{path}/{n}")))
        }
        _ => None,
    }
}

/// An endpoint `e1` with a service that echoes, and a session to it.
fn session(host: &Host, zone: &Zone) -> (Process, Session) {
    let echo = Service { name: "echo", port: 7, target: target::echo().to_string(), end_to_end: true };
    let endpoint = start_endpoint(&zone.issue_endpoint("e1", &[echo]));
    host.counts("e1 has parked", |counts| counts["parks"].as_u64() > Some(0));
    let mut session = Session::connect(zone, "e1:echo");
    session.exchanges(b"hello");
    (endpoint, session)
}

/// `zone-module status` of the zone's one proxy.
fn status(zone: &Zone) -> Value {
    let text = succeed(&mut zone.cli(&["status", "--json"]), b"");
    serde_json::from_str::<Value>(&text).expect("JSON")[0]["status"].clone()
}

/// Purpose, address, number and whether it listens, for each port of a status.
fn ports(status: &Value) -> Vec<Value> {
    let ports = status["ports"].as_array().expect("ports");
    ports.iter().map(|p| json!([p["purpose"], p["address"], p["port"], p["listening"]])).collect()
}

/// The states of the relays, in alphabetical order.
fn relays(host: &Host) -> Vec<String> {
    let status = host.status();
    let relays = status["relays"].as_array().expect("relays");
    let mut states: Vec<_> =
        relays.iter().map(|relay| relay["state"].as_str().unwrap_or_default().to_owned()).collect();
    states.sort_unstable();
    states
}

/// The leaf that each of the three ports shows, PEM, as openssl sees it.
fn certificates(host: &Host) -> [String; 3] {
    [17486, 17487, 17488].map(|port| {
        let mut client = Command::new("openssl");
        client.args(["s_client", "-tls1_2", "-connect", &host.port(port).to_string()]);
        let output = run(&mut client, b"");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let pem =
            text.split("-----BEGIN CERTIFICATE-----").nth(1).and_then(|rest| rest.split("-----END").next());
        pem.unwrap_or_else(|| panic!("{port} shows no certificate: {text}")).to_owned()
    })
}
