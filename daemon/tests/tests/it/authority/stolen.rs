//! An authority whose key somebody else has: what was signed by it ends at once.

use tokio::task::block_in_place;
use zone_tests::process::{fail, succeed};
use zone_tests::until;

use super::busy::{Busy, round_trip};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_under_a_stolen_authority_for_endpoints_end_with_it_and_others_begin() {
    let mut busy = Busy::start(2);
    busy.move_data().await;
    let out = busy.zone.beside("out");
    let words = ["authority", "renew", "endpoint", "--out", &*out.to_string_lossy()];
    block_in_place(|| succeed(&mut busy.zone.cli(&words), b""));
    busy.deliver(&out);
    assert_eq!(busy.lost(), 0);
    block_in_place(|| {
        succeed(&mut busy.zone.cli(&["authority", "retire", "endpoint", "--cut"]), b"");
        until("every session of before has ended", || busy.lost() == 50);
        busy.host.counts("both are parked again", |counts| counts["parks"] == 4);
    });
    for id in busy.ids() {
        round_trip(&mut busy.session(&id, true).await).await.expect("a session under the new authority");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_under_a_stolen_authority_for_module_servers_end_with_it_and_others_begin() {
    let mut busy = Busy::start(1);
    busy.move_data().await;
    let out = busy.zone.beside("out");
    let words = ["authority", "renew", "module-server", "--out", &*out.to_string_lossy()];
    block_in_place(|| succeed(&mut busy.zone.cli(&words), b""));
    busy.deliver(&out);
    block_in_place(|| succeed(&mut busy.zone.cli(&["authority", "retire", "module-server"]), b""));
    busy.move_on().await;
    block_in_place(|| {
        // That the key was stolen is found out later.
        succeed(&mut busy.zone.cli(&["authority", "retire", "module-server", "--cut"]), b"");
        until("every session of before has ended", || busy.lost() == 25);
    });
    round_trip(&mut busy.session("e0", true).await).await.expect("a session under the new authority");
    let told = fail(&mut busy.zone.cli(&["authority", "retire", "zone-proxy", "--cut"]), b"");
    assert!(told.contains("--cut is for authorities of endpoints and Module Servers"), "{told}");
}
