//! Versions that meet: the programs of an earlier version on either side, and the package upgraded and downgraded.
//!
//! `cargo xtask test` builds the earlier programs. Where they are not built, these tests say that they were skipped.

use std::path::PathBuf;

use serde_json::{Value, json};
use time::OffsetDateTime;
use zone_protocol::features::{CONTROL_IDENTITY, Features, TRUST_MERGE};
use zone_protocol::fields;
use zone_protocol::identity::Role;
use zone_protocol::trust::{Changed, Denied, Retired, Trust};
use zone_tests::control::Client;
use zone_tests::host::Host;
use zone_tests::process::{Process, fail, succeed};
use zone_tests::session::Session;
use zone_tests::zone::{Service, Zone, start_endpoint_by};
use zone_tests::{earlier_programs, programs, skip, target, until};

fn earlier(test: &str) -> Option<PathBuf> {
    let found = earlier_programs();
    if found.is_none() {
        skip(test, "ZONE_OLD_BIN_DIR does not say where the programs of an earlier version are");
    }
    found
}

/// Everything that a client does with a proxy, each way.
#[test]
fn a_client_and_a_proxy_of_two_versions_provision_rotate_and_revoke() {
    let Some(earlier) = earlier("a_client_and_a_proxy_of_two_versions_provision_rotate_and_revoke") else {
        return;
    };
    for (client, proxy) in [(programs(), earlier.clone()), (earlier.clone(), programs())] {
        let what = format!("client of {}, proxy of {}", client.display(), proxy.display());
        let host = Host::start_of(&proxy, "", |command| command);
        let zone = Zone::init_of(&client);
        zone.provision(&host);
        let _endpoint = endpoint(&zone, &host, "e1", &client);
        Session::connect(&zone, "e1:echo").exchanges(b"between versions");
        succeed(&mut zone.cli(&["rotate", "p1"]), b"");
        for id in ["e1", "e2"] {
            let told = succeed(&mut zone.cli(&["revoke", "endpoint", id]), b"");
            assert!(told.contains("has trust version"), "{what}: {told}");
        }
        until("the revoked endpoint is gone", || !parked(&zone, "e1"));
        let told = succeed(&mut zone.cli(&["provision", "--name", "p1", "--again"]), b"");
        assert!(told.contains("provisioned as p1"), "{what}: {told}");
        assert_eq!(status(&zone)["trust_version"], 3, "{what}");
        succeed(&mut zone.cli(&["unprovision", "p1"]), b"");
    }
}

#[test]
fn an_endpoint_and_a_proxy_of_two_versions_carry_sessions_end_to_end() {
    let Some(earlier) = earlier("an_endpoint_and_a_proxy_of_two_versions_carry_sessions_end_to_end") else {
        return;
    };
    for (proxy, outside) in [(programs(), earlier.clone()), (earlier.clone(), programs())] {
        let host = Host::start_of(&proxy, "", |command| command);
        let zone = Zone::with(&host);
        let _endpoint = endpoint(&zone, &host, "e1", &outside);
        let mut session = Session::connect(&zone, "e1:echo");
        session.exchanges(b"between versions");
        session.end();
        assert!(session.ends().0.success());
    }
}

/// The merging is the client's, so it does not need a proxy that knows of it.
#[test]
fn two_copies_of_a_zone_directory_keep_each_others_denials_at_an_earlier_proxy() {
    let test = "two_copies_of_a_zone_directory_keep_each_others_denials_at_an_earlier_proxy";
    let Some(earlier) = earlier(test) else { return };
    let host = Host::start_of(&earlier, "", |command| command);
    let zone = Zone::init();
    zone.provision(&host);
    let standby = zone.beside("standby");
    let copied = std::process::Command::new("cp").arg("-r").arg(zone.path()).arg(&standby).status();
    assert!(copied.expect("cp runs").success());
    succeed(&mut zone.cli(&["revoke", "endpoint", "e1"]), b"");
    let mut command = std::process::Command::new(programs().join("zone-module"));
    succeed(command.arg("--zone").arg(&standby).args(["revoke", "endpoint", "e2"]), b"");
    succeed(&mut zone.cli(&["revoke", "endpoint", "e3"]), b"");
    assert_eq!(denied(&in_force(&host, &zone)), ["e1", "e2", "e3"]);
    let told = succeed(&mut zone.cli(&["trust", "push"]), b"");
    assert!(told.contains("already"), "{told}");
}

/// What the earlier program can't read lies beside its state, and is believed only where it belongs to that state.
#[test]
fn a_package_that_is_upgraded_downgraded_and_upgraded_again_keeps_its_zone_and_every_denial() {
    let test = "a_package_that_is_upgraded_downgraded_and_upgraded_again_keeps_its_zone_and_every_denial";
    let Some(earlier) = earlier(test) else { return };
    let mut host = Host::start_of(&earlier, "[timeouts]\nrelease = 0.2\n", |command| command);
    let mut zone = Zone::init_of(&earlier);
    zone.provision(&host);
    let _endpoint = endpoint(&zone, &host, "e0", &earlier);
    let mut session = Session::connect(&zone, "e0:echo");
    session.exchanges(b"before");
    succeed(&mut zone.cli(&["revoke", "endpoint", "e1"]), b"");

    host.install(&programs());
    zone.install(&programs());
    session.exchanges(b"upgraded");
    succeed(&mut zone.cli(&["revoke", "endpoint", "e2"]), b"");
    let retired = retire(&host, &zone);
    assert_eq!(in_force(&host, &zone).retired, retired);
    host.restart();
    assert_eq!(in_force(&host, &zone).retired, retired, "it is remembered");

    host.install(&earlier);
    zone.install(&earlier);
    session.exchanges(b"downgraded");
    assert_eq!(host.status()["state"], "provisioned");
    assert_eq!(denied(&in_force(&host, &zone)), ["e1", "e2"]);
    // The zone directory does not know what was done beside it, so it is put right by hand, as an admin would.
    let mut trust: Value = serde_json::from_slice(&read(&zone, "trust.json")).expect("JSON");
    trust["version"] = in_force(&host, &zone).version.into();
    std::fs::write(zone.path().join("trust.json"), trust.to_string()).expect("written");
    succeed(&mut zone.cli(&["revoke", "endpoint", "e3"]), b"");

    host.install(&programs());
    zone.install(&programs());
    session.exchanges(b"upgraded again");
    assert_eq!(denied(&in_force(&host, &zone)), ["e1", "e2", "e3"]);
    assert_eq!(in_force(&host, &zone).retired, [], "what the earlier program changed is not contradicted");
    succeed(&mut zone.cli(&["revoke", "endpoint", "e4"]), b"");
    assert_eq!(denied(&in_force(&host, &zone)), ["e1", "e2", "e3", "e4"]);
    session.end();
    assert!(session.ends().0.success());
}

/// The earlier program does not look at the files of 17488's own keys, and drops them with the next state that it writes.
#[test]
fn new_keys_bring_17488_its_identity_after_an_upgrade_and_a_downgrade_is_refused_until_a_token_says_so() {
    let test =
        "new_keys_bring_17488_its_identity_after_an_upgrade_and_a_downgrade_is_refused_until_a_token_says_so";
    let Some(earlier) = earlier(test) else { return };
    let (own, shared) = ("spiffe://plant/zone-control/p1", "spiffe://plant/zone-proxy/p1");
    let mut host = Host::start_of(&earlier, "[timeouts]\nrelease = 0.2\n", |command| command);
    let mut zone = Zone::init_of(&earlier);
    zone.provision(&host);
    let _endpoint = endpoint(&zone, &host, "e0", &earlier);
    let mut session = Session::connect(&zone, "e0:echo");
    session.exchanges(b"before");
    let shows = |zone: &Zone, identity: &str| {
        let told = succeed(&mut zone.cli(&["status", "p1"]), b"");
        assert!(told.contains(&format!("17488 shows {identity}\n")), "{told}");
        assert_eq!(told.contains("'zone-module rotate p1' gives it"), identity == shared, "{told}");
    };
    let is_refused = |zone: &Zone| {
        let told = fail(&mut zone.cli(&["trust", "push"]), b"");
        assert!(told.contains("whose keys a relay holds") && told.contains("zone-proxy token new"), "{told}");
    };

    host.install(&programs());
    zone.install(&programs());
    shows(&zone, shared);
    succeed(&mut zone.cli(&["rotate", "p1"]), b"");
    shows(&zone, own);
    session.exchanges(b"rotated");
    host.restart();
    shows(&zone, own);

    // A Module Server that was not upgraded before.
    zone.install(&earlier);
    let told = fail(&mut zone.cli(&["status", "p1"]), b"");
    assert!(told.contains("is not whom it should be"), "{told}");
    session.exchanges(b"17487 is as it was");
    zone.install(&programs());

    // As long as the earlier program has stored nothing, nothing is lost.
    host.install(&earlier);
    assert_eq!(host.status()["state"], "provisioned");
    is_refused(&zone);
    host.install(&programs());
    shows(&zone, own);

    host.install(&earlier);
    succeed(&mut host.cli(&["token", "new"]), b"");
    is_refused(&zone);
    let told = zone.provision(&host);
    assert!(told.contains("provisioned as p1") && !told.contains("zone-control"), "{told}");
    let features = status(&zone);
    assert!(
        features.get("features").is_none_or(Value::is_null) || features["features"] == json!([]),
        "{features}"
    );
    session.exchanges(b"downgraded");

    host.install(&programs());
    shows(&zone, shared);
    succeed(&mut zone.cli(&["provision", "--name", "p1", "--again"]), b"");
    shows(&zone, own);

    // The same where the package was upgraded again before anybody noticed.
    host.install(&earlier);
    succeed(&mut host.cli(&["token", "new"]), b"");
    host.install(&programs());
    is_refused(&zone);
    succeed(&mut host.cli(&["token", "new"]), b"");
    zone.provision(&host);
    shows(&zone, own);
    session.exchanges(b"upgraded again");
    session.end();
    assert!(session.ends().0.success());
}

/// Documents refuse keys that they do not know: each side writes what the other has named, and no more.
#[test]
fn a_proxy_says_what_it_can_do_and_tells_a_client_only_what_that_has_named() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    assert_eq!(host.status()["features"], json!([TRUST_MERGE, CONTROL_IDENTITY]));
    retire(&host, &zone);
    let get = |fields: &[(&str, &str)]| -> Value {
        Client::member(&host, &zone).ask("GET", "/v1/trust", fields, b"").document()
    };
    let keys =
        |value: &Value| -> Vec<String> { value.as_object().expect("a document").keys().cloned().collect() };
    assert_eq!(keys(&get(&[])), ["anchors", "deny", "version"]);
    assert_eq!(keys(&get(&[(fields::FEATURES, "something-else")])), ["anchors", "deny", "version"]);
    let named = get(&[(fields::FEATURES, &Features::own().to_field())]);
    assert_eq!(keys(&named), ["anchors", "changed", "deny", "retired", "version"]);
}

/// Puts in force, by hand, all that the first version can't say.
fn retire(host: &Host, zone: &Zone) -> Vec<Retired> {
    let mut trust = in_force(host, zone);
    let now = OffsetDateTime::now_utc();
    let condition = format!("\"{}\"", trust.version);
    trust.version += 1;
    trust.retired = vec![Retired { fingerprint: "ab".repeat(32), until: now + time::Duration::days(400) }];
    let by = zone.directory().identity(Role::ModuleServer, zone.directory().module_server());
    trust.changed = Some(Changed { at: now, by, what: "retired an anchor".to_owned() });
    let fields = [("If-Match", condition.as_str()), (fields::FEATURES, &Features::own().to_field())];
    let body = serde_json::to_vec(&trust).expect("JSON");
    let answer = Client::member(host, zone).ask("PUT", "/v1/trust", &fields, &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    trust.retired
}

fn in_force(host: &Host, zone: &Zone) -> Trust {
    let fields = [(fields::FEATURES, Features::own().to_field())];
    let fields = fields.each_ref().map(|(name, value)| (*name, value.as_str()));
    Client::member(host, zone).ask("GET", "/v1/trust", &fields, b"").document()
}

fn denied(trust: &Trust) -> Vec<String> {
    let name = |entry: &Denied| match entry {
        Denied::Identity { identity, .. } => identity.name.to_string(),
        Denied::Certificate { serial, .. } => serial.clone(),
    };
    trust.deny.iter().map(name).collect()
}

fn endpoint(zone: &Zone, host: &Host, id: &str, programs: &std::path::Path) -> Process {
    let echo = Service { name: "echo", port: 7, target: target::echo().to_string(), end_to_end: true };
    let process = start_endpoint_by(&programs.join("zone-endpoint"), &zone.issue_endpoint(id, &[echo]));
    host.counts(&format!("{id} has parked:\n{}", process.said()), |_| parked(zone, id));
    process
}

fn parked(zone: &Zone, id: &str) -> bool {
    succeed(&mut zone.cli(&["endpoints", "--json"]), b"").contains(&format!("\"{id}\""))
}

fn status(zone: &Zone) -> Value {
    let text = succeed(&mut zone.cli(&["status", "--json"]), b"");
    serde_json::from_str::<Value>(&text).expect("JSON")[0]["status"].clone()
}

fn read(zone: &Zone, name: &str) -> Vec<u8> {
    std::fs::read(zone.path().join(name)).expect("a file of the zone")
}
