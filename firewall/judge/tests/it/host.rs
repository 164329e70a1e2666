//! Devices and addresses are read as the kernel has them.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use nix::sched::{CloneFlags, setns};
use zone_judge::Host;

/// A network namespace, removed with everything in it.
struct Namespace(String);

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

#[test]
fn devices_keep_their_groups_kinds_masters_and_all_addresses() {
    let test = "devices_keep_their_groups_kinds_masters_and_all_addresses";
    let Some(namespace) = namespace(test) else { return };
    for line in [
        "link add br0 type bridge",
        "link add eth0 address 02:00:00:00:00:01 type veth peer name eth1",
        "link set eth0 group 7 master br0",
        "link set eth0 up",
        "addr add 192.0.2.1/24 dev eth0",
        "addr add 192.0.2.2 peer 198.51.100.1 dev eth0",
        // Nobody is there to answer: it stays tentative.
        "addr add 2001:db8::1/64 dev eth0",
    ] {
        let mut command = Command::new("ip");
        let output = command.args(["-n", &namespace.0]).args(line.split(' ')).output().expect("ip runs");
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let host = std::thread::scope(|scope| {
        let read = scope.spawn(|| {
            let inside = File::open(Path::new("/run/netns").join(&namespace.0)).expect("a namespace");
            setns(inside, CloneFlags::CLONE_NEWNET).expect("root may enter it");
            Host::read().expect("devices")
        });
        read.join().expect("it reads")
    });
    let bridge = host.interface("br0").expect("a device");
    assert_eq!((bridge.virtual_kind.as_deref(), bridge.master), (Some("bridge"), None));
    let eth0 = host.interface("eth0").expect("a device");
    assert_eq!((eth0.group, eth0.kind, eth0.master), (7, 1, Some(bridge.index)));
    assert_eq!(eth0.virtual_kind.as_deref(), Some("veth"));
    for address in ["192.0.2.1", "192.0.2.2", "2001:db8::1"] {
        let address = address.parse().expect("an address");
        assert!(eth0.addresses.contains(&address), "{address} of {eth0:?}");
    }
    let far = "198.51.100.1".parse().expect("an address");
    assert!(!eth0.addresses.contains(&far), "it is the other end's: {eth0:?}");
    assert!(host.interface("lo").expect("a device").is_loopback());
    assert_eq!(host.interfaces.len(), 4, "{host:?}");
}

/// A namespace, or `None` where there can be none here: then that was said.
fn namespace(test: &str) -> Option<Namespace> {
    let name = format!("judge-{}", std::process::id());
    match Command::new("ip").args(["netns", "add", &name]).output() {
        Ok(made) if made.status.success() => Some(Namespace(name)),
        Ok(made) => {
            let why = String::from_utf8_lossy(&made.stderr);
            eprintln!("SKIPPED: {test}: no network namespace: {}", why.trim());
            None
        }
        Err(error) => {
            eprintln!("SKIPPED: {test}: ip is missing ({error}): apt-get install iproute2");
            None
        }
    }
}
