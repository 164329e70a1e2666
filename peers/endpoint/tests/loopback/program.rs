//! The program: what it checks, says and does on a signal.

use std::path::Path;
use std::process::{Output, Stdio};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::Command;

use crate::proxy::Proxy;
use crate::soon;
use crate::zone::{Zone, issue};

fn program(verb: &str, config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zone-endpoint"));
    command.args([verb, "--config"]).arg(config).kill_on_drop(true);
    command
}

async fn check(config: &Path) -> Output {
    soon("check-config", program("check-config", config).output()).await.unwrap()
}

#[tokio::test]
async fn check_config_prints_what_a_good_configuration_would_do() {
    let zone = Zone::new();
    let service = "[[service]]\nname = 'ssh'\nport = 22\ntarget = '127.0.0.1:22'\nend_to_end = 'off'\n";
    let output = check(&zone.config_file(&["203.0.113.9:17486"], service)).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(text.contains("spiffe://plant-7/endpoint/host-7 parks at 203.0.113.9:17486"), "{text}");
    assert!(text.contains("service ssh (22) -> 127.0.0.1:22, not end to end"), "{text}");
    assert!(text.contains("endpoint.key: chmod 600 it"), "{text}");
}

#[tokio::test]
async fn check_config_says_in_one_line_what_is_wrong() {
    let zone = Zone::new();
    let refused = async |config: &Path| {
        let output = check(config).await;
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let unknown = refused(&zone.config_file(&["h:1"], "parkz = 2\n")).await;
    assert!(unknown.ends_with("unknown key 'parkz'; did you mean 'parks'?\n"), "{unknown}");
    std::fs::write(zone.file("zone-proxy-ca.crt"), "nothing").unwrap();
    let empty = refused(&zone.config_file(&["h:1"], "")).await;
    assert!(empty.contains("zone-proxy-ca.crt: ") && empty.contains("no certificate in it"), "{empty}");
    std::fs::remove_file(zone.file("endpoint.key")).unwrap();
    let missing = refused(&zone.config_file(&["h:1"], "")).await;
    assert!(missing.contains("endpoint.key: No such file"), "{missing}");
    let config = zone.config_file(&["h:1"], "");
    let other = std::fs::read_to_string(&config).unwrap().replace("host-7", "host-8");
    std::fs::write(&config, other).unwrap();
    let stranger = refused(&config).await;
    let words = "issued for spiffe://plant-7/endpoint/host-7, but this is spiffe://plant-7/endpoint/host-8";
    assert!(stranger.contains(words), "{stranger}");
    assert_eq!(stranger.lines().count(), 1);
}

#[tokio::test]
async fn sighup_has_the_certificates_read_again_and_ends_nothing() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let config = zone.config_file(&[&proxy.address], "parks = 1\n");
    let mut child = program("run", &config).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut log = String::new();
    let mut park = proxy.park().await;
    let pid = child.id().unwrap().to_string();
    let signal = async |name: &str| {
        assert!(Command::new("kill").args([name, &pid]).status().await.unwrap().success());
    };
    signal("-HUP").await;
    assert_eq!(park.ping().await.status, 200);
    let renewed = issue(&zone.endpoints, "spiffe://plant-7/endpoint/host-7");
    std::fs::write(zone.file("endpoint.crt"), &renewed.chain).unwrap();
    signal("-HUP").await;
    signal("-HUP").await;
    // It has looked at them by then.
    while !log.contains("can't be used") {
        let line = soon("a warning", lines.next_line()).await.unwrap();
        log.push_str(&line.unwrap_or_else(|| panic!("it has ended:\n{log}")));
        log.push('\n');
    }
    assert_eq!(park.ping().await.status, 200);
    std::fs::write(zone.file("endpoint.key"), &renewed.key).unwrap();
    signal("-HUP").await;
    let _renewed = proxy.park().await;
    assert_eq!(soon("close_notify", park.tls.read(&mut [0; 1])).await.unwrap(), 0);
    signal("-TERM").await;
    let status = soon("the program to end", child.wait()).await.unwrap();
    while let Some(line) = lines.next_line().await.unwrap() {
        log.push_str(&line);
        log.push('\n');
    }
    assert!(status.success(), "{log}");
    assert_eq!(log.matches("can't be used").count(), 1, "{log}");
    assert_eq!(log.matches("new certificates were found").count(), 1, "{log}");
}

#[tokio::test]
async fn the_program_parks_and_ends_in_order_on_sigterm() {
    let zone = Zone::new();
    let proxy = Proxy::start(&zone).await;
    let config = zone.config_file(&[&proxy.address], "parks = 1\n");
    let child = program("run", &config).stderr(Stdio::piped()).spawn().unwrap();
    let mut park = proxy.park().await;
    assert_eq!(park.ping().await.status, 200);
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    assert_eq!(soon("close_notify", park.tls.read(&mut [0; 1])).await.unwrap(), 0);
    let output = soon("the program to end", child.wait_with_output()).await.unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{log}");
    assert!(log.contains("parked") && log.contains("stopped"), "{log}");
}
