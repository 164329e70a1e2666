//! The replacement as it is meant to go, for each role, with sessions that move data meanwhile.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use tokio::task::block_in_place;
use zone_protocol::identity::Role;
use zone_tests::TEST_TIMEOUT;
use zone_tests::process::{Process, fail, succeed};
use zone_tests::session::Session;
use zone_tests::until;
use zone_tests::zone::{Zone, start_endpoint};

use super::busy::{Busy, copy, round_trip};

/// Endpoints of each test; there are twenty-five sessions with each.
const ENDPOINTS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authority_for_endpoints_is_replaced_and_no_session_is_lost() {
    let mut busy = Busy::start(ENDPOINTS);
    let old = kept(&busy, &["e0"]);
    busy.move_data().await;
    busy.open_all_the_time();
    let out = busy.zone.beside("out");
    let told = authority(&busy.zone, &["renew", "endpoint", "--out", &out.to_string_lossy()]);
    assert!(told.contains("p1: has trust version 2"), "{told}");
    assert_eq!(told.matches("needs a certificate of the new authority: ").count(), ENDPOINTS, "{told}");
    busy.move_on().await;
    for id in busy.ids() {
        round_trip(&mut busy.session(&id, true).await).await.expect("the old certificate is good");
    }
    busy.deliver(&out);
    let told = authority(&busy.zone, &["retire", "endpoint"]);
    assert!(told.contains("p1: has trust version 3"), "{told}");
    are_back(&busy);
    for id in busy.ids() {
        round_trip(&mut busy.session(&id, true).await).await.expect("the new certificate is good");
    }
    let (sessions, trips) = busy.ends_whole().await;
    println!("{sessions} sessions, {trips} round trips in those that lasted, 0 lost");
    let told = authority(&busy.zone, &["status"]);
    assert!(!told.contains("is being replaced") && !told.contains("next:"), "{told}");

    busy.endpoints.remove(0);
    let stranger = start_endpoint(&old[0]);
    stranger.says("does not know the authority that signed our certificate");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authority_for_module_servers_is_replaced_and_no_session_is_lost() {
    let mut busy = Busy::start(ENDPOINTS);
    busy.zone.issue_module_server("standby");
    let forward = Process::start(&mut busy.zone.cli(&["forward", "127.0.0.1:0", "e0:sealed"]));
    let watch = Process::start(&mut busy.zone.cli(&["endpoints", "--watch"]));
    forward.says("leads to");
    watch.says("snapshot");
    let mut through = forwarded(&forward);
    let before = busy.zone.beside("before");
    copy_zone(&busy.zone, &before);
    busy.move_data().await;
    busy.open_all_the_time();
    let out = busy.zone.beside("out");
    let told = authority(&busy.zone, &["renew", "module-server", "--out", &out.to_string_lossy()]);
    assert_eq!(told.matches("needs the anchors").count(), ENDPOINTS, "{told}");
    assert!(told.contains("module-server standby needs a certificate of the new authority: "), "{told}");
    busy.deliver(&out);
    let told = authority(&busy.zone, &["retire", "module-server", "--out", &out.to_string_lossy()]);
    assert!(told.contains("this Module Server has a certificate of the new authority"), "{told}");
    for id in busy.ids() {
        round_trip(&mut busy.session(&id, true).await).await.expect("the new certificate is good");
    }
    through.round_trip();
    forwarded(&forward).round_trip();
    until("the stream of events is back", || watch.said().matches("snapshot").count() >= 2);
    let (sessions, trips) = busy.ends_whole().await;
    println!("{sessions} sessions, {trips} round trips in those that lasted, 0 lost");

    let refused = fail(&mut in_directory(&busy.zone, &before, &["endpoints"]), b"");
    assert!(refused.contains("does not know the authority that signed our certificate"), "{refused}");
    busy.deliver(&out);
    let anchors = std::fs::read_to_string(busy.files("e0").join("module-server-ca.crt")).expect("anchors");
    assert_eq!(anchors.matches("BEGIN").count(), 1, "the old authority is gone from the endpoint's anchors");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_authority_for_proxies_is_replaced_and_no_session_is_lost() {
    let mut busy = Busy::start(ENDPOINTS);
    let old = kept(&busy, &["e0", "e1"]);
    busy.move_data().await;
    busy.open_all_the_time();
    let out = busy.zone.beside("out");
    let told = authority(&busy.zone, &["renew", "zone-proxy", "--out", &out.to_string_lossy()]);
    assert_eq!(told.matches("needs the anchors").count(), ENDPOINTS, "{told}");
    // A proxy that gets new certificates before everybody knows the new authority gets those of the old one.
    succeed(&mut busy.zone.cli(&["rotate", "p1"]), b"");
    busy.endpoints.push(start_endpoint(&old[1]));
    busy.endpoints[ENDPOINTS].says("parked");
    busy.endpoints.pop();
    busy.deliver(&out);
    let told = authority(&busy.zone, &["retire", "zone-proxy", "--out", &out.to_string_lossy()]);
    assert!(told.contains("p1: shows certificates of the new authority"), "{told}");
    for id in busy.ids() {
        round_trip(&mut busy.session(&id, true).await).await.expect("a session");
    }
    are_back(&busy);
    let (sessions, trips) = busy.ends_whole().await;
    println!("{sessions} sessions, {trips} round trips in those that lasted, 0 lost");
    busy.deliver(&out);
    let anchors = std::fs::read_to_string(busy.files("e0").join("zone-proxy-ca.crt")).expect("anchors");
    assert_eq!(anchors.matches("BEGIN").count(), 1, "the old authority is gone from the endpoint's anchors");

    busy.endpoints.remove(0);
    let stranger = start_endpoint(&old[0]);
    stranger.says("signed by an authority that this zone does not know");
}

/// Whoever shows a certificate of an authority that was retired is refused end to end, too, whatever the proxy says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retired_authority_vouches_for_nobody_end_to_end() {
    let busy = Busy::start(1);
    let zone = busy.zone.directory();
    let anchors = |role| zone.anchors(role).expect("anchors").len();
    for role in [Role::Endpoint, Role::ModuleServer] {
        let out = busy.zone.beside(&format!("out-{role}"));
        authority(&busy.zone, &["renew", role.as_str(), "--out", &out.to_string_lossy()]);
        busy.deliver(&out);
        assert_eq!(anchors(role), 2);
        authority(&busy.zone, &["retire", role.as_str()]);
        assert_eq!(anchors(role), 1);
    }
    let mut session = Session::connect(&busy.zone, "e0:sealed");
    session.exchanges(b"over both new authorities");
    session.end();
    assert!(session.ends().0.success());
    // The endpoint has the old authority for Module Servers until its anchors are brought up to date.
    let out = busy.zone.beside("last");
    authority(&busy.zone, &["retire", "module-server", "--out", &out.to_string_lossy()]);
    busy.deliver(&out);
    let mut session = Session::connect(&busy.zone, "e0:sealed");
    session.exchanges(b"and without the old one");
}

/// `zone-module authority`, which must succeed.
fn authority(zone: &Zone, words: &[&str]) -> String {
    let mut command = zone.cli(&["authority"]);
    command.args(words);
    block_in_place(|| succeed(&mut command, b""))
}

/// Waits until every endpoint has both of its parks, all of them made with what is on disk now.
fn are_back(busy: &Busy) {
    let parks = 2 * busy.endpoints.len();
    block_in_place(|| {
        busy.host.counts("all endpoints are parked", |counts| counts["parks"] == parks);
        until("every endpoint has taken up its files", || {
            busy.endpoints.iter().all(|endpoint| endpoint.said().contains("new certificates were found"))
        });
    });
}

/// A connection to a port that `zone-module forward` listens on, with a session behind it.
struct Forwarded(TcpStream);

fn forwarded(forward: &Process) -> Forwarded {
    let address = forward.said().split(" leads to ").next().expect("an address").to_owned();
    let mut forwarded = Forwarded(TcpStream::connect(address).expect("a port"));
    forwarded.0.set_read_timeout(Some(TEST_TIMEOUT)).expect("a timeout");
    forwarded.round_trip();
    forwarded
}

impl Forwarded {
    fn round_trip(&mut self) {
        self.0.write_all(b"forwarded").expect("a session");
        let mut back = [0; 9];
        self.0.read_exact(&mut back).expect("a session");
        assert_eq!(&back, b"forwarded");
    }
}

/// Copies of the files of endpoints as they are.
fn kept(busy: &Busy, ids: &[&str]) -> Vec<PathBuf> {
    let keep = |id: &&str| {
        let to = busy.zone.beside(&format!("{id}-before"));
        std::fs::create_dir(&to).expect("a folder");
        copy(&busy.files(id), &to);
        to
    };
    ids.iter().map(keep).collect()
}

/// A copy of the zone directory as it is.
pub(super) fn copy_zone(zone: &Zone, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-r").arg(zone.path()).arg(to).status();
    assert!(copied.expect("cp runs").success());
}

/// `zone-module` in another directory than the zone's own.
pub(super) fn in_directory(zone: &Zone, directory: &Path, words: &[&str]) -> std::process::Command {
    let own = zone.cli(words);
    let mut command = std::process::Command::new(own.get_program());
    command.arg("--zone").arg(directory).args(words);
    command
}
