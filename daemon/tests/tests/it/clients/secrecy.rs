//! What a captured proxy gets to see of a session with TLS end to end.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use nix::unistd::Pid;
use zone_tests::host::Host;
use zone_tests::session::{Session, random};
use zone_tests::zone::Zone;
use zone_tests::{skip, target, until};

use super::{open, sealed};

/// The relay is searched for what it holds while a target does not read. A service without TLS end to end shows
/// that the search would find it.
#[test]
fn the_relay_holds_the_payload_of_an_open_service_and_nothing_of_a_sealed_one() {
    const TEST: &str = "the_relay_holds_the_payload_of_an_open_service_and_nothing_of_a_sealed_one";
    let host = Host::start("");
    let zone = Zone::with(&host);
    let relay = host.relay();
    if holds(relay, b"zone").is_none() {
        return skip(TEST, "the system lets nobody read another process' memory");
    }
    let services = [sealed("sealed", 1, target::stalls()), open("open", 2, target::stalls())];
    let _endpoint = zone.endpoint(&host, "host-7", &services);
    let (secret, known) = (marker(), marker());

    let mut session = Session::connect(&zone, "host-7:sealed");
    fill(&mut session, &secret);
    host.counts("the relay holds bytes that nobody takes", |counts| {
        counts["buffered_bytes"].as_u64() > Some(0)
    });
    assert_eq!(holds(relay, &secret), Some(false), "plain text of a sealed session in the relay");

    let mut session = Session::start(&mut zone.cli(&["connect", "--end-to-end", "off", "host-7:open"]));
    fill(&mut session, &known);
    until("the relay holds the plain text", || holds(relay, &known) == Some(true));
    assert_eq!(holds(relay, &secret), Some(false), "plain text of a sealed session in the relay");
}

/// Hexadecimal digits that occur nowhere else.
fn marker() -> Vec<u8> {
    random(16).iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()
}

/// Sends a marker again and again, more than all buffers on the way hold.
fn fill(session: &mut Session, marker: &[u8]) {
    session.sends_in_the_background(marker.repeat((32 << 20) / marker.len()));
}

/// Whether these bytes are in a process' writable memory; `None` where that can't be read.
pub(crate) fn holds(process: Pid, wanted: &[u8]) -> Option<bool> {
    let memory = File::open(format!("/proc/{process}/mem")).ok()?;
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).ok()?;
    let writable =
        maps.lines().filter(|line| line.split_whitespace().nth(1).is_some_and(|how| how.starts_with("rw")));
    let mut read_any = false;
    for line in writable {
        let (from, to) = line.split_whitespace().next()?.split_once('-')?;
        let (from, to) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
        let mut bytes = vec![0; usize::try_from(to - from).ok()?];
        // A mapping may have gone meanwhile.
        if memory.read_exact_at(&mut bytes, from).is_err() {
            continue;
        }
        read_any = true;
        if bytes.windows(wanted.len()).any(|window| window == wanted) {
            return Some(true);
        }
    }
    read_any.then_some(false)
}
