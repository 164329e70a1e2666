//! Starting: a relay that can't, a control too many, and processes that are what `status` says they are.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use nix::unistd::Pid;
use serde_json::Value;
use zone_tests::host::Host;
use zone_tests::process::{Process, fail, succeed};
use zone_tests::session::Session;
use zone_tests::zone::Zone;
use zone_tests::{skip, until};

use super::{Scene, echo, goes, serving, token};

#[test]
fn a_relay_program_that_is_missing_fails_the_provisioning_and_everything_is_undone() {
    can_not_be_provisioned("/nonexistent/zone-relay", "can't be started: No such file or directory");
}

#[test]
fn a_relay_program_that_ends_at_once_fails_the_provisioning_and_everything_is_undone() {
    can_not_be_provisioned("/bin/false", "the relay ended: exit status: 1");
}

fn can_not_be_provisioned(program: &str, why: &str) {
    let mut host = Host::start(&format!("[relay]\nprogram = \"{program}\"\n"));
    let (zone, payload) = (Zone::init(), host.payload());
    let said = fail(&mut zone.provision_command(&host), payload.as_bytes());
    assert!(said.contains("relay") && said.contains(why) && said.contains("undone"), "{said}");
    println!("{said}");
    assert_eq!(host.status()["state"], "unprovisioned");
    assert!(!host.answers(17486) && !host.answers(17487));
    assert_eq!(token(&host.payload()), token(&payload), "the token was not used up");

    let config = std::fs::read_to_string(host.config()).expect("the configuration");
    std::fs::write(host.config(), config.replace(&format!("program = \"{program}\""), "")).expect("writable");
    host.restart();
    zone.provision(&host);
    assert!(host.answers(17486) && host.answers(17487));
}

#[test]
fn a_second_control_on_the_same_directories_is_refused_and_the_first_goes_on() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let before = serving(&host);
    let mut second = Process::start(&mut host.cli(&["run"]));
    assert!(!second.ends().success());
    let said = second.said();
    println!("{said}");
    let user = format!("{} is in use by process {}", host.state().display(), host.control.pid());
    assert!(said.contains(&user), "{said}");
    assert_eq!(serving(&host), before);
    succeed(&mut zone.cli(&["status", "p1"]), b"");
}

#[test]
fn status_shows_each_process_as_the_kernel_does() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let seen: Value =
        serde_json::from_str(&succeed(&mut zone.cli(&["status", "p1", "--json"]), b"")).expect("JSON");
    let processes = find(&seen, "processes").as_array().expect("a list");
    let wanted = [("control", host.control.pid()), ("relay", host.relay())];
    assert_eq!(processes.len(), wanted.len(), "{seen}");
    for ((role, pid), process) in wanted.into_iter().zip(processes) {
        let field = |name| kernel(pid, name);
        println!("{process}");
        assert_eq!(process["role"], role);
        assert_eq!(process["pid"], pid.as_raw());
        assert_eq!(process["uid"].to_string(), field("Uid").split_whitespace().nth(1).expect("effective"));
        assert_eq!(process["capabilities"], field("CapEff"));
        assert_eq!(process["no_new_privs"], field("NoNewPrivs") == "1");
    }
}

#[test]
fn what_the_programs_write_to_a_file_or_pipe_has_no_colours() {
    let scene = Scene::play("");
    for said in [scene.host.control.said(), scene.endpoint.said()] {
        assert!(said.contains("INFO") && !said.contains('\u{1b}'), "{said:?}");
    }
}

/// "Relay opens no file" holds for everything that it ever does: sessions, a new policy, a drain, its end.
#[test]
fn the_relay_opens_no_file_and_no_socket_from_its_first_session_to_its_end() {
    let host = Host::start("[timeouts]\nrelease = 0.2\n");
    let zone = Zone::with(&host);
    let relay = host.relay();
    let trace = zone.beside("trace");
    let calls = "trace=open,openat,openat2,creat,execve,socket,connect,bind";
    let strace = Command::new("strace")
        .args(["-f", "-e", calls, "-p", &relay.to_string(), "-o"])
        .arg(&trace)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut strace) = strace else {
        return skip("the_relay_opens_no_file_and_no_socket", "strace is not installed");
    };
    let mut refused = None;
    until("strace watches the relay", || {
        refused = strace.try_wait().expect("our child");
        refused.is_some() || kernel(relay, "TracerPid") != "0"
    });
    if refused.is_some() {
        return skip("the_relay_opens_no_file_and_no_socket", "the system lets nobody trace another process");
    }

    let _endpoint = zone.endpoint(&host, "host-7", &[echo()]);
    let mut session = Session::connect(&zone, "host-7:echo");
    session.exchanges(b"payload");
    let _other = zone.endpoint(&host, "host-8", &[echo()]);
    succeed(&mut zone.cli(&["revoke", "endpoint", "host-8"]), b"");
    succeed(&mut zone.cli(&["provision", "--name", "p1", "--again"]), b"");
    assert_ne!(serving(&host).0, relay, "another relay serves, and this one drains");
    session.exchanges(b"in a relay that drains");
    session.end();
    assert!(session.ends().0.success());
    goes(relay);
    let status = strace.wait().expect("our child");
    assert!(status.success() || status.signal().is_some(), "{status}");
    let text = std::fs::read_to_string(&trace).expect("the trace");
    let is_call = |line: &&str| line.contains('(') && !line.contains("+++") && !line.contains("---");
    let calls: Vec<_> = text.lines().filter(is_call).collect();
    assert!(calls.is_empty(), "{calls:#?}");
}

fn kernel(process: Pid, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let field = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned());
    status.lines().find_map(field).unwrap_or_default()
}

/// The member of this name, however deep.
fn find<'a>(value: &'a Value, name: &str) -> &'a Value {
    match value {
        Value::Object(fields) if fields.contains_key(name) => &fields[name],
        Value::Object(fields) => {
            fields.values().map(|v| find(v, name)).find(|v| !v.is_null()).unwrap_or(&Value::Null)
        }
        Value::Array(items) => {
            items.iter().map(|v| find(v, name)).find(|v| !v.is_null()).unwrap_or(&Value::Null)
        }
        _ => &Value::Null,
    }
}
