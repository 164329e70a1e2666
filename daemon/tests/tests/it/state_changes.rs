//! Commands of every day while the proxy's state changes all the time: nobody but those who are denied notices.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use zone_tests::host::Host;
use zone_tests::process::{run, succeed};
use zone_tests::zone::{Service, Zone};
use zone_tests::{target, until};

/// Changes of the state, one after the other.
const CHANGES: usize = 100;
/// Commands beside them, by so many at a time.
const COMMANDS: usize = 200;
const LANES: usize = 4;

#[test]
fn two_hundred_commands_beside_a_hundred_changes_of_the_state_are_all_answered() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let echo = Service { name: "echo", port: 7, target: target::echo().to_string(), end_to_end: true };
    let _endpoint = zone.endpoint(&host, "host-7", &[echo]);
    let (changes, commands) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..CHANGES {
                succeed(&mut change(&host, &zone, number), b"");
                changes.fetch_add(1, Ordering::Relaxed);
            }
        });
        for lane in 0..LANES {
            let (zone, changes, commands) = (&zone, &changes, &commands);
            scope.spawn(move || {
                for number in (lane..COMMANDS).step_by(LANES) {
                    // Spread over the changes, however long those take.
                    until("as many changes have been made", || {
                        changes.load(Ordering::Relaxed) * COMMANDS >= number.saturating_sub(8) * CHANGES
                    });
                    command(zone, number / LANES);
                    commands.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!((changes.into_inner(), commands.into_inner()), (CHANGES, COMMANDS));
    assert!(!host.control.said().contains("panicked"), "{}", host.control.said());
}

/// Every kind of change: mostly revocations, then what an admin does on the host, then what takes longest.
fn change(host: &Host, zone: &Zone, number: usize) -> Command {
    match number % 10 {
        0 => zone.cli(&["rotate", "p1"]),
        1 => zone.cli(&["provision", "--name", "p1", "--again"]),
        2 | 3 => host.cli(&["token", "new"]),
        4 | 5 => host.cli(&["reload"]),
        6 => zone.cli(&["trust", "push"]),
        _ => zone.cli(&["revoke", "endpoint", &format!("gone-{number}")]),
    }
}

/// One of the commands of every day, which must succeed.
fn command(zone: &Zone, number: usize) {
    match number % 3 {
        0 => answered(&mut zone.cli(&["status"]), "p1"),
        1 => answered(&mut zone.cli(&["endpoints"]), "ENDPOINT"),
        _ => {
            let mut connect = zone.cli(&["connect", "host-7:echo"]);
            assert_eq!(succeed(&mut connect, b"words"), "words");
        }
    }
}

fn answered(command: &mut Command, with: &str) {
    let output = run(command, b"");
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && text.contains(with), "{command:?}: {}: {text}", output.status);
    for word in ["panicked", "does not answer", "without an answer"] {
        assert!(!text.contains(word), "{command:?}: {text}");
    }
}
