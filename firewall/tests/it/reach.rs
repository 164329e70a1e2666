//! What answers from outside, by real TCP connections over IPv4 and IPv6.

use std::net::TcpListener;

use crate::host::{Host, host};

const CONTROL: [&str; 2] = ["10.9.0.1:17488", "[fd09::1]:17488"];
const ENDPOINT: [&str; 2] = ["10.9.0.1:17486", "[fd09::1]:17486"];

/// A host whose control and endpoint ports are listened on, and one outside.
fn pair(test: &str) -> Option<(Host, Host, Vec<TcpListener>)> {
    let inside = host(test)?;
    let outside = host(test)?;
    inside.with_outside(&outside);
    let addresses = ["0.0.0.0:17488", "[::]:17488", "0.0.0.0:17486", "[::]:17486", "0.0.0.0:22"];
    inside.sh("echo 1 > /proc/sys/net/ipv6/bindv6only");
    let listeners = addresses.into_iter().map(|address| inside.listen(address.parse().unwrap())).collect();
    Some((inside, outside, listeners))
}

fn reached(outside: &Host, addresses: [&str; 2]) -> [bool; 2] {
    addresses.map(|address| outside.reaches(address))
}

#[test]
fn only_17488_answers_before_provisioning() {
    let Some((inside, outside, _listeners)) = pair("only 17488 answers") else { return };
    assert_eq!(reached(&outside, ENDPOINT), [true, true], "the link works");
    inside.ok(&["apply"]);
    assert_eq!(reached(&outside, CONTROL), [true, true]);
    assert_eq!(reached(&outside, ENDPOINT), [false, false]);
    assert!(outside.reaches("10.9.0.1:22"), "other ports are left alone");
    assert!(inside.reaches("127.0.0.1:17486"), "the host itself is left alone");
    let table = inside.sh("nft list counter inet zone_proxy port_17486_refused");
    assert!(!table.contains("packets 0 "), "refusals are counted: {table}");
    inside.ok(&["remove"]);
    assert_eq!(reached(&outside, ENDPOINT), [true, true]);
}

#[test]
fn a_chain_that_drops_lets_our_port_through_once_it_is_opened_and_no_other() {
    let Some((inside, outside, _listeners)) = pair("a chain that drops") else { return };
    inside.nft(
        "table inet filter { chain in { type filter hook input priority 0; policy drop;
            meta l4proto { icmp, ipv6-icmp } accept; }
        }
        table inet more { chain in { type filter hook input priority 7; policy accept;
            meta l4proto { icmp, ipv6-icmp } accept
            counter drop; }
        }",
    );
    assert_eq!(reached(&outside, CONTROL), [false, false]);
    inside.ok(&["apply"]);
    assert_eq!(reached(&outside, CONTROL), [true, true]);
    assert_eq!(reached(&outside, ENDPOINT), [false, false]);
    assert!(!outside.reaches("10.9.0.1:22"));
    inside.ok(&["remove"]);
    assert_eq!(reached(&outside, CONTROL), [false, false]);
}

#[test]
fn networks_and_listen_addresses_hold() {
    let Some((inside, outside, _listeners)) = pair("networks") else { return };
    let open = |rest: &str| format!("[control]\nopen = true\nlisten = [\"0.0.0.0\", \"::\"]\n{rest}\n");
    inside.configure(&open("networks = [\"10.9.0.2/32\"]"));
    inside.ok(&["apply"]);
    assert_eq!(reached(&outside, CONTROL), [true, false]);
    inside.configure(&open("networks = [\"192.0.2.0/24\", \"fd09::/64\"]"));
    inside.ok(&["apply"]);
    assert_eq!(reached(&outside, CONTROL), [false, true]);
    inside.configure("[control]\nopen = true\nlisten = [\"10.9.0.1\"]\n");
    inside.ok(&["apply"]);
    assert_eq!(reached(&outside, CONTROL), [true, false]);
    assert_eq!(inside.findings(), Vec::<String>::new());
}

#[test]
fn a_source_that_opens_too_many_connections_is_held_back_and_others_are_not() {
    let Some((inside, outside, _listeners)) = pair("too many connections") else { return };
    inside.configure(
        "[control]\nopen = true\nlisten = [\"0.0.0.0\", \"::\"]\n[limits]\nnew_connections_per_second = 1\nburst = 3\n",
    );
    inside.ok(&["apply"]);
    let many = (0..8).filter(|_| outside.reaches(CONTROL[0])).count();
    assert!((3..8).contains(&many), "{many} of 8 came through");
    assert!(outside.reaches(CONTROL[1]), "another source has a count of its own");
    let counted = inside.sh("nft list counter inet zone_proxy port_17488_limited");
    assert!(!counted.contains("packets 0 "), "{counted}");
    assert_eq!(inside.findings(), Vec::<String>::new());
}

#[test]
fn a_connection_that_stands_outlives_the_closing_of_its_port() {
    use std::io::{Read as _, Write as _};
    let Some((inside, outside, listeners)) = pair("a standing connection") else { return };
    inside.ok(&["apply"]);
    let mut stream = outside.inside(|| std::net::TcpStream::connect("10.9.0.1:17488").expect("it connects"));
    let (mut other, _) = listeners[0].accept().expect("it is accepted");
    inside.configure("");
    inside.ok(&["apply"]);
    assert!(!outside.reaches(CONTROL[0]));
    stream.write_all(b"still here").unwrap();
    let mut heard = [0; 10];
    other.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"still here");
}

/// A port is open on the devices that root names, and an admin's chain that drops gets one rule for each.
#[test]
fn a_port_is_open_on_the_devices_that_root_names_and_on_no_other() {
    let Some((inside, outside, _listeners)) = pair("devices") else { return };
    let Some(other) = host("devices") else { return };
    inside.sh(&format!(
        "ip link add mgmt0 type veth peer name far netns {0}; ip address add 10.10.0.1/24 dev mgmt0; \
         ip -n {0} address add 10.10.0.2/24 dev far; ip link set mgmt0 up; ip -n {0} link set far up",
        other.name
    ));
    let from_mgmt = || other.reaches("10.10.0.1:17488");
    let open = |rest: &str| format!("[control]\nopen = true\nlisten = [\"0.0.0.0\", \"::\"]\n{rest}\n");
    for foreign in [
        "",
        "table inet filter { chain in { type filter hook input priority 0; policy drop;
            iif lo accept
            meta l4proto { icmp, ipv6-icmp } accept; } }",
    ] {
        inside.sh("nft flush ruleset");
        inside.nft(foreign);
        inside.configure(&open("interfaces = [\"mgmt0\"]"));
        inside.ok(&["apply"]);
        assert!(from_mgmt(), "{}", inside.ruleset());
        assert_eq!(reached(&outside, CONTROL), [false, false]);
        assert!(inside.reaches("127.0.0.1:17488"), "the host itself is left alone");
        assert_eq!(inside.findings(), Vec::<String>::new());
        inside.configure(&open("interfaces = [\"inside\", \"mgmt7\"]"));
        inside.ok(&["apply"]);
        assert!(!from_mgmt());
        assert_eq!(reached(&outside, CONTROL), [true, true]);
        assert_eq!(inside.findings(), Vec::<String>::new());
        assert_eq!(inside.ok(&["apply"]), "nothing to change\n");
    }
    let ours = inside.sh("nft list chain inet filter in");
    assert!(ours.contains("iifname \"inside\"") && !ours.contains("mgmt7"), "{ours}");
    let counted = inside.sh("nft list counter inet zone_proxy port_17488_refused");
    assert!(!counted.contains("packets 0 "), "{counted}");
}

/// Many kernels have no VRF (CONFIG_NET_VRF): there the rule that holds in one is loaded, and this is all.
#[test]
fn the_rule_for_a_vrf_is_loaded_and_the_port_answers_where_the_kernel_has_vrfs() {
    let test = "a VRF";
    let Some((inside, outside, _listeners)) = pair(test) else { return };
    inside.configure("[control]\nopen = true\nlisten = [\"0.0.0.0\", \"::\"]\ninterfaces = [\"inside\"]\n");
    inside.ok(&["apply"]);
    let rules = inside.sh("nft list chain inet zone_proxy port_17488_in");
    assert!(rules.contains("meta sdifname \"inside\" goto port_17488"), "{rules}");
    if !inside
        .command("ip")
        .args(["link", "add", "vrf1", "type", "vrf", "table", "10"])
        .status()
        .unwrap()
        .success()
    {
        return;
    }
    inside.sh("ip link set vrf1 up; ip link set inside master vrf1; sysctl -qw net.ipv4.tcp_l3mdev_accept=1");
    crate::host::until("it answers in the VRF", || outside.reaches(CONTROL[0]));
    inside.configure("[control]\nopen = true\nlisten = [\"0.0.0.0\", \"::\"]\ninterfaces = [\"vrf1\"]\n");
    inside.ok(&["apply"]);
    assert!(outside.reaches(CONTROL[0]));
    inside.configure("[control]\nopen = true\nlisten = [\"0.0.0.0\", \"::\"]\ninterfaces = [\"vrf2\"]\n");
    inside.ok(&["apply"]);
    assert!(!outside.reaches(CONTROL[0]));
}
