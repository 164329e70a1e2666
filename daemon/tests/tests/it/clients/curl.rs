//! curl, to which the proxy is an ordinary HTTPS proxy, and many of them at once through a local port.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use zone_tests::host::Host;
use zone_tests::process::{Process, fail, run, succeed};
use zone_tests::session::random;
use zone_tests::zone::Zone;

use super::{SETTLED, curl, open, sealed, web_server};

const PAGE: &str = "<p>a page that no port shows to anybody outside</p>\n";

/// "A small web service on the endpoint reached by plain curl as an HTTPS proxy client with a client certificate,
/// no code of ours on that side."
#[test]
fn curl_fetches_a_page_through_the_proxy_with_a_client_certificate() {
    let host = Host::start(SETTLED);
    let zone = Zone::with(&host);
    let site = zone.beside("site");
    fs::create_dir(&site).and_then(|()| fs::write(site.join("index.html"), PAGE)).expect("the site");
    let (_server, web) = web_server(&site);
    let _endpoint = zone.endpoint(&host, "web-1", &[open("web", 80, web)]);
    let bundle = zone.issue_module_server("browser");

    let page = succeed(curl(&host, &bundle).arg("http://web-1:80/"), b"");
    assert_eq!(page, PAGE);
    let said = fail(curl(&host, &bundle).arg("http://web-1:81/"), b"");
    assert!(said.contains("502"), "a number that stands for nothing: {said}");
    let said = fail(curl(&host, &bundle).arg("http://web-2:80/"), b"");
    assert!(said.contains("404"), "an endpoint that nobody knows: {said}");
    let mut stranger = curl(&host, &bundle);
    stranger.args(["--proxy-cert", "", "--proxy-key", ""]);
    let said = fail(stranger.arg("http://web-1:80/"), b"");
    assert!(said.contains("certificate") || said.contains("alert"), "no certificate: {said}");
}

#[test]
fn curl_reads_the_list_of_endpoints_from_the_module_server_port() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let _endpoint = zone.endpoint(&host, "web-1", &[]);
    let bundle = zone.issue_module_server("browser");
    let mut command = Command::new("curl");
    command.args(["-q", "--silent", "--show-error", "--fail", "--max-time", "30", "--noproxy", "*"]);
    for (option, file) in
        [("--cacert", "zone-proxy-ca.crt"), ("--cert", "module-server.crt"), ("--key", "module-server.key")]
    {
        command.arg(option).arg(bundle.join(file));
    }
    command.arg(format!("https://{}/v1/endpoints", host.port(17487)));
    let list: serde_json::Value = serde_json::from_str(&succeed(&mut command, b"")).expect("JSON");
    assert_eq!(list["endpoints"][0]["id"], "web-1", "{list}");
}

/// "HEAD answers as GET does": the same status and fields, and no body, on each path of 17487 and 17488.
#[test]
fn head_answers_as_get_does_and_without_a_body() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let _endpoint = zone.endpoint(&host, "web-1", &[]);
    let bundle = zone.issue_module_server("browser");
    for (port, path, status) in [
        (17487, "/v1/endpoints", 200),
        (17487, "/v1/endpoints/events", 200),
        (17487, "/v1/nothing", 404),
        (17488, "/v1/status", 200),
        (17488, "/v1/trust", 200),
        (17488, "/v1/provisioning", 200),
        (17488, "/v1/openapi.json", 200),
        (17488, "/metrics", 200),
        (17488, "/v1/nothing", 404),
        (17488, "/v1/identity", 405),
    ] {
        let asked = |method: &[&str]| {
            let mut command = Command::new("curl");
            command.args(["-q", "--silent", "--show-error", "--noproxy", "*", "--include"]).args(method);
            for (option, file) in [
                ("--cacert", "zone-proxy-ca.crt"),
                ("--cert", "module-server.crt"),
                ("--key", "module-server.key"),
            ] {
                command.arg(option).arg(bundle.join(file));
            }
            let output = run(command.arg(format!("https://{}{path}", host.port(port))), b"");
            let text = String::from_utf8(output.stdout).expect("text");
            let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{path}: {text}"));
            (fields(head), body.to_owned())
        };
        // A stream of events goes on for as long as it is read.
        let time = if path.ends_with("events") { "1" } else { "30" };
        let (get, body) = asked(&["--max-time", time]);
        let (head, nothing) = asked(&["--max-time", "30", "--head"]);
        assert!(get[0].contains(&status.to_string()), "{port}{path}: {get:?}");
        assert_eq!(head, get, "{port}{path}");
        assert!(nothing.is_empty() && !body.is_empty(), "{port}{path}: {nothing}");
    }
}

/// Status line and fields, without the values that change from one answer to the next.
fn fields(head: &str) -> Vec<String> {
    let stable = |line: &str| {
        let name = line.split(':').next().unwrap_or_default().to_lowercase();
        if matches!(name.as_str(), "date" | "content-length") { name } else { line.to_owned() }
    };
    head.lines().map(stable).collect()
}

#[test]
fn twenty_requests_at_once_go_through_a_forwarded_port() {
    const REQUESTS: usize = 20;
    let host = Host::start("");
    let zone = Zone::with(&host);
    let (site, file) = (zone.beside("site"), random(1 << 20));
    fs::create_dir(&site).and_then(|()| fs::write(site.join("file"), &file)).expect("the site");
    let (_server, web) = web_server(&site);
    let _endpoint = zone.endpoint(&host, "web-1", &[sealed("web", 80, web)]);
    let forward = Process::start(&mut zone.cli(&["forward", "127.0.0.1:0", "web-1:web"]));
    forward.says("leads to web-1:web");
    let said = forward.said();
    let local = said.split_whitespace().next().expect("an address");

    let begun = Instant::now();
    let fetched: Vec<(Child, _)> = (0..REQUESTS)
        .map(|number| {
            let into = zone.beside(&format!("fetched-{number}"));
            let mut command = Command::new("curl");
            command.args([
                "-q",
                "--silent",
                "--show-error",
                "--fail",
                "--max-time",
                "30",
                "--noproxy",
                "*",
                "-o",
            ]);
            command.arg(&into).arg(format!("http://{local}/file")).stdin(Stdio::null());
            (command.spawn().expect("curl starts"), into)
        })
        .collect();
    for (mut child, into) in fetched {
        assert!(child.wait().expect("our child").success(), "{}", forward.said());
        assert!(fs::read(into).expect("the file") == file);
    }
    println!("{REQUESTS} requests of 1 MiB at once took {} ms", begun.elapsed().as_millis());
}
