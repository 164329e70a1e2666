//! The broker: who may ask, what is granted, and what is left when it is killed.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use zone_firewall_protocol::client::ask_on;
use zone_firewall_protocol::{Answer, Request};

use crate::host::{ADMIN, CONTROL, Host, RELAY, STRANGER, TEST_TIMEOUT, host, until};

/// A host with a broker on it, and both relay ports listened on by the relay's user.
fn served(test: &str) -> Option<Host> {
    let mut host = host(test)?;
    host.nft("table inet filter { chain in { type filter hook input priority 0; policy drop; } }");
    host.ok(&["apply"]);
    host.listen_as(RELAY, "0.0.0.0", 17486);
    host.listen_as(RELAY, "0.0.0.0", 17487);
    host.broker();
    Some(host)
}

fn port(port: u16) -> Value {
    json!({"purpose": if port == 17487 { "module-server" } else { "endpoint" }, "port": port, "listen": ["0.0.0.0"],
        "networks": []})
}

fn refused(answer: &Value) -> &str {
    answer["refused"]["why"].as_str().unwrap_or_else(|| panic!("not refused: {answer}"))
}

fn recorded(host: &Host) -> Vec<u64> {
    let Ok(text) = std::fs::read(host.path("state/relay-ports.json")) else { return Vec::new() };
    let record: Value = serde_json::from_slice(&text).expect("the record is whole");
    record["ports"].as_array().unwrap().iter().map(|rule| rule["port"].as_u64().unwrap()).collect()
}

#[test]
fn the_control_process_opens_and_closes_its_ports() {
    let Some(host) = served("opens and closes") else { return };
    let before = host.ruleset();
    let answer = host.ask(&json!([port(17486), port(17487)]));
    assert!(answer["done"].as_array().is_some_and(|lines| lines.len() == 3), "{answer}");
    assert!(host.ruleset().contains("tcp dport 17486 accept comment \"zone-proxy: endpoint\""));
    assert_eq!(recorded(&host), [17486, 17487]);
    assert_eq!(host.ask(&json!([port(17486), port(17487)])), json!({"done": []}));
    assert_eq!(host.findings(), Vec::<String>::new());
    assert!(host.ask(&json!([]))["done"].is_array());
    assert_eq!(host.ruleset(), before);
    let log = host.broker_log();
    let line = "actor=\"zone-proxy\" uid=64001";
    assert!(
        log.lines().any(|l| l.contains(line) && l.contains("17487/module-server on 0.0.0.0 from any")),
        "{log}"
    );
}

#[test]
fn a_request_that_was_given_up_is_not_carried_out_after_a_newer_one() {
    let Some(host) = served("given up") else { return };
    host.signal_broker(nix::sys::signal::Signal::SIGSTOP);
    let old = format!("{}\n", json!({"set-relay-ports": [port(17486)]}));
    host.send_and_leave(CONTROL, old.as_bytes());
    host.signal_broker(nix::sys::signal::Signal::SIGCONT);
    until("the old request is dropped", || host.broker_log().contains("whoever asked has left"));
    assert_eq!(recorded(&host), Vec::<u64>::new(), "nothing was opened for somebody who has left");
    assert!(host.ask(&json!([port(17486), port(17487)]))["done"].is_array());
    assert_eq!(recorded(&host), [17486, 17487]);
}

#[test]
fn strangers_and_the_relay_are_refused_by_name_and_admins_may_look() {
    let Some(host) = served("who may ask") else { return };
    let before = host.numbered();
    let write = format!("{}\n", json!({"set-relay-ports": [port(17486)]}));
    for (uid, name) in [(RELAY, "zone-relay"), (STRANGER, "stranger"), (ADMIN, "zone-admin")] {
        let answer = host.send_as(uid, write.as_bytes());
        assert_eq!(
            refused(&answer),
            format!("{name} may not change the firewall: only zone-proxy and root may")
        );
        assert!(!answer["refused"]["help"].as_str().unwrap().is_empty());
    }
    assert!(refused(&host.send_as(RELAY, b"\"verify\"\n")).starts_with("zone-relay may not look"));
    assert!(refused(&host.send_as(STRANGER, b"\"plan\"\n")).starts_with("stranger may not look"));
    assert!(host.send_as(ADMIN, b"\"plan\"\n")["plan"].is_string());
    assert!(host.send_as(ADMIN, b"\"verify\"\n")["verified"].is_array());
    assert_eq!((host.numbered(), recorded(&host)), (before, vec![]));
    let log = host.broker_log();
    assert!(
        log.contains("actor=\"stranger\" uid=64009") && log.contains("refused: stranger may not change"),
        "{log}"
    );
}

/// A line of audit for each of them would let anybody on the host fill its log.
#[test]
fn a_stranger_who_asks_and_asks_fills_no_log_and_hides_no_request_of_control() {
    let Some(host) = served("a flood") else { return };
    let begun = Instant::now();
    for _ in 0..200 {
        assert!(refused(&host.send_as(STRANGER, b"\"plan\"\n")).starts_with("stranger may not look"));
    }
    assert_eq!(host.ask(&json!([])), json!({"done": []}));
    until("control's request is logged", || host.broker_log().contains("verb=\"set-relay-ports\""));
    let lines = host.broker_log().lines().filter(|line| line.contains("actor=\"stranger\"")).count();
    let allowed = 21 + usize::try_from(begun.elapsed().as_secs()).unwrap();
    assert!((20..=allowed).contains(&lines), "{lines} lines of 200, {allowed} are allowed");
}

#[test]
fn the_ceiling_and_the_listening_check_hold_and_change_nothing() {
    let Some(mut host) = served("the ceiling") else { return };
    host.listen_as(STRANGER, "0.0.0.0", 5000);
    host.listen_as(RELAY, "0.0.0.0", 30000);
    host.configure("[control]\nopen = true\nlisten = [\"0.0.0.0\", \"::\"]\n[ceiling]\nports = [\"5000-20000\"]\nnetworks = [\"0.0.0.0/0\"]\n");
    let before = host.numbered();
    let net = |mut rule: Value, network: &str| {
        rule["networks"] = json!([network]);
        rule
    };
    let v4 = |number| net(port(number), "10.0.0.0/8");
    for (ports, why) in [
        (json!([v4(30000)]), "port 30000 is beyond ceiling.ports of this host"),
        (json!([v4(22)]), "port 22 is below 1024"),
        (json!([v4(17488)]), "port 17488 is opened by root's firewall.toml only"),
        (
            json!([net(port(17486), "fd00::/8")]),
            "fd00::/8 may not reach port 17486: it is beyond ceiling.networks of this host",
        ),
        (json!([v4(6000)]), "port 6000 on 0.0.0.0 is not opened: nobody listens there"),
        (
            json!([v4(5000)]),
            "port 5000 on 0.0.0.0 is not opened: user id 64009 listens there, which is neither zone-proxy nor zone-relay",
        ),
    ] {
        assert_eq!(refused(&host.ask(&ports)), why);
    }
    assert_eq!((host.numbered(), recorded(&host)), (before, vec![]));
}

#[test]
fn what_is_no_request_is_refused_within_bounds() {
    let Some(host) = served("no request") else { return };
    assert_eq!(refused(&host.send_as(CONTROL, b"GET / HTTP/1.1\r\n\r\n")), "what was sent is no request");
    assert_eq!(
        refused(&host.send_as(CONTROL, b"{\"set-relay-ports\":[{\"port\":99999}]}\n")),
        "what was sent is no request"
    );
    assert_eq!(refused(&host.send_as(CONTROL, b"")), "the connection was closed without a request");
    let huge = vec![b'x'; 10 * 1024 * 1024];
    assert_eq!(refused(&host.send_as(CONTROL, &huge)), "the request is longer than 65536 bytes");
    let deep = "[".repeat(60_000);
    assert_eq!(refused(&host.send_as(CONTROL, deep.as_bytes())), "what was sent is no request");
    assert_eq!(host.ask(&json!([])), json!({"done": []}), "it goes on serving");
}

#[test]
fn silence_and_trickling_cost_five_seconds_and_keep_nobody_out() {
    let Some(host) = served("silence") else { return };
    let begun = Instant::now();
    let mut silent = UnixStream::connect(host.socket()).unwrap();
    silent.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    let mut trickling = UnixStream::connect(host.socket()).unwrap();
    trickling.write_all(b"\"ver").unwrap();
    assert_eq!(host.ask(&json!([])), json!({"done": []}), "others are served meanwhile");
    let mut answer = String::new();
    silent.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("no request came in time"), "{answer}");
    assert!((Duration::from_secs(4)..Duration::from_secs(12)).contains(&begun.elapsed()));
}

#[test]
fn more_connections_than_allowed_are_told_so() {
    let Some(mut host) = host("many connections") else { return };
    host.configure("[broker]\nconnections = 2\n");
    host.broker();
    until("the first look at it has gone", || host.ask(&json!([])) == json!({"done": []}));
    let _idle: Vec<_> = (0..2).map(|_| UnixStream::connect(host.socket()).unwrap()).collect();
    let mut third = UnixStream::connect(host.socket()).unwrap();
    third.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    let mut answer = String::new();
    third.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("already serves 2 connections of yours (broker.connections)"), "{answer}");
}

/// The answer comes before the request is written: neither side may lose it over that.
#[test]
fn a_client_that_is_refused_before_it_has_asked_reads_why() {
    let Some(mut host) = host("refused early") else { return };
    host.configure("[broker]\nconnections = 2\n");
    host.broker();
    until("the first look at it has gone", || host.ask(&json!([])) == json!({"done": []}));
    let _idle: Vec<_> = (0..2).map(|_| UnixStream::connect(host.socket()).unwrap()).collect();
    let refused_early = || {
        let stream = UnixStream::connect(host.socket()).unwrap();
        stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        let mut fds = [rustix::event::PollFd::new(&stream, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut fds, None).unwrap();
        stream
    };
    let mut plain = refused_early();
    plain.write_all(b"\"verify\"\n").expect("a client that knows nothing of early answers can write");
    let mut answer = String::new();
    plain.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("already serves 2 connections of yours"), "{answer}");

    // As many as the broker waits for, and more: then it closes some before they have written.
    let streams: Vec<_> = (0..64).map(|_| refused_early()).collect();
    for stream in streams {
        match ask_on(stream, &Request::Verify) {
            Ok(Answer::Refused { why, .. }) => assert!(why.contains("already serves 2 connections"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn strangers_who_hold_connections_keep_nobody_out_who_may_ask() {
    let Some(host) = served("strangers hold connections") else { return };
    let holder = host.hold_as(STRANGER, 64);
    assert_eq!(host.ask(&json!([])), json!({"done": []}), "root is served");
    assert!(host.send_as(CONTROL, b"\"verify\"\n")["verified"].is_array(), "control is served");
    assert!(host.send_as(ADMIN, b"\"plan\"\n")["plan"].is_string(), "an admin is served");
    drop(holder);
}

#[test]
fn the_broker_ends_itself_when_nobody_asks() {
    let Some(mut host) = host("idle") else { return };
    host.configure("[broker]\nidle = 1\n");
    host.broker();
    assert_eq!(host.wait_for_the_end(), Some(0));
}

#[test]
fn a_socket_from_systemd_is_served() {
    let Some(mut host) = host("socket activation") else { return };
    if !std::path::Path::new("/usr/bin/systemd-socket-activate").exists() {
        crate::host::missing(
            "socket activation",
            "/usr/bin/systemd-socket-activate is missing: apt-get install systemd",
        );
        return;
    }
    let path = host.socket().display().to_string();
    host.broker_under(&["/usr/bin/systemd-socket-activate", "-l", &path]);
    assert_eq!(host.send_as(0, b"{\"set-relay-ports\":[]}\n")["done"].as_array().map(Vec::len), Some(1));
}

/// Calls at which the broker, or a tool that it runs, is killed while one request is served (strace counts for each
/// thread by itself): before, in and after the transaction, and around the record.
const KILLS: [(&str, u32); 12] = [
    ("fsync", 1),
    ("fsync", 2),
    ("rename", 1),
    ("write", 1),
    ("clone3,clone,vfork", 3),
    ("clone3,clone,vfork", 6),
    ("clone3,clone,vfork", 9),
    ("clone3,clone,vfork", 12),
    ("wait4,waitid", 1),
    ("wait4,waitid", 2),
    ("wait4,waitid", 3),
    ("sendmsg", 1),
];

#[test]
fn killed_at_any_step_it_leaves_old_or_new_rules_and_the_next_request_settles_them() {
    let Some(mut host) = host("killed in the middle") else { return };
    if !std::path::Path::new("/usr/bin/strace").exists() {
        crate::host::missing("killed in the middle", "/usr/bin/strace is missing: apt-get install strace");
        return;
    }
    host.nft("table inet filter { chain in { type filter hook input priority 0; policy drop; } }");
    host.ok(&["apply"]);
    let closed = host.ruleset();
    host.listen_as(RELAY, "0.0.0.0", 17486);
    // One that outlives its strace soon ends by itself.
    host.configure("[control]\nopen = true\nlisten = [\"0.0.0.0\", \"::\"]\n[broker]\nidle = 2\n[watch]\nmode = \"off\"\n");
    host.broker();
    host.ask(&json!([port(17486)]));
    let open = host.ruleset();
    host.ask(&json!([]));
    host.stop_last();
    let mut killed = 0;
    for (call, number) in KILLS {
        let inject = format!("inject={call}:signal=SIGKILL:when={number}");
        host.broker_under(&[
            "/usr/bin/strace",
            "-qq",
            "-f",
            "-o",
            "/dev/null",
            "-e",
            &format!("trace={call}"),
            "-e",
            &inject,
        ]);
        killed += u32::from(!host.try_ask(&json!([port(17486)])));
        host.stop_last();
        let left = host.ruleset();
        assert!(left == closed || left == open, "killed at {call} {number}: {left}");
        assert!(matches!(recorded(&host)[..], [] | [17486]));

        host.ok(&["restore"]);
        let expected = if recorded(&host).is_empty() { &closed } else { &open };
        assert_eq!(&host.ruleset(), expected, "restored after {call} {number}");
        host.broker();
        host.ask(&json!([port(17486)]));
        assert_eq!(host.ruleset(), open, "asked again after {call} {number}");
        assert!(host.ask(&json!([]))["done"].is_array());
        assert_eq!(host.ruleset(), closed);
        host.stop_last();
    }
    assert!(killed >= 8, "only {killed} of the kills hit a request");
}

#[test]
fn the_record_brings_the_ports_back_at_boot() {
    let Some(host) = served("restore") else { return };
    host.ask(&json!([port(17486)]));
    let open = host.ruleset();
    host.sh("nft flush ruleset");
    host.nft("table inet filter { chain in { type filter hook input priority 0; policy drop; } }");
    host.ok(&["restore"]);
    let sorted = |ruleset: &str| {
        let mut lines: Vec<_> = ruleset.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&host.ruleset()), sorted(&open));
    std::fs::write(host.path("state/relay-ports.json"), "{").unwrap();
    let said = host.run(&["restore"]);
    assert_eq!(said.code, Some(0));
    assert!(said.err.contains("relay-ports.json: is no record of ports"), "{}", said.err);
    assert!(
        !host.ruleset().contains("zone-proxy: endpoint") && host.ruleset().contains("zone-proxy: control")
    );
}

#[test]
fn with_a_wrong_file_it_serves_and_says_what_is_wrong() {
    let Some(mut host) = host("a wrong file") else { return };
    host.configure("[ceiling]\nports = [\"all\"]\n");
    host.broker();
    let answer = host.ask(&json!([]));
    assert!(refused(&answer).contains("firewall.toml:2: 'all' is neither a port nor a range"), "{answer}");
}
