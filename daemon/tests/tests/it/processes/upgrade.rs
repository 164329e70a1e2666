//! An upgrade of the package: the next control finds a relay of another build, and replaces it without a loss.

use zone_tests::host::Host;
use zone_tests::session::{Session, random};
use zone_tests::zone::Zone;
use zone_tests::{folder, program, until};

use super::{Knocking, echo, goes, is_there, serving};

#[test]
fn a_relay_of_an_earlier_build_drains_with_its_sessions_while_a_new_one_serves_the_same_ports() {
    let folder = folder();
    let installed = folder.path().join("zone-relay");
    std::fs::copy(program("zone-relay"), &installed).expect("a copy of zone-relay");
    let config = format!("[relay]\nprogram = \"{}\"\n[timeouts]\nrelease = 0.2\n", installed.display());
    let mut host = Host::start(&config);
    let zone = Zone::with(&host);
    let _endpoint = zone.endpoint(&host, "host-7", &[echo()]);
    let mut session = Session::connect(&zone, "host-7:echo");
    session.exchanges(b"in the earlier build");
    let (old, generation) = serving(&host);
    host.restart();
    assert_eq!(serving(&host), (old, generation), "a restart alone replaces nothing");

    // As package managers do: a new file beside the old one, and a rename.
    let next = folder.path().join("zone-relay.new");
    std::fs::copy(program("zone-relay"), &next).expect("a copy of zone-relay");
    std::fs::rename(&next, &installed).expect("renamed");
    let knocking = Knocking::begin(&host);
    host.restart();
    until("a relay of the new build serves", || serving(&host).1 > generation);
    let (new, _) = serving(&host);
    assert!(new != old && is_there(old));
    session.exchanges(&random(1 << 20));
    host.counts("the endpoint parks at the new one", |counts| counts["parks"].as_u64() >= Some(1));
    Session::connect(&zone, "host-7:echo").exchanges(b"in the new build");
    let (connections, refused) = knocking.end();
    assert!(connections > 20 && refused == 0, "{connections} connections, {refused} refused");

    session.exchanges(b"the earlier one is still there");
    session.end();
    assert!(session.ends().0.success());
    goes(old);
    assert_eq!(serving(&host).0, new);
}
