//! Endpoints with a service for sessions, and what the Module Server is told about them.

use std::net::IpAddr;

use serde_json::Value;

use crate::lab::{Cmd, Error, Process, Result, Scene};
use crate::suites::parties::{UP, module};

/// The number of the service that sends back what it gets, on an endpoint's loopback.
const ECHO: u16 = 7007;

/// A TCP service for sessions: it sends back what it gets, and has something to say after its client's end. The pause
/// lets a balancer see one end before the other.
const ECHO_PROGRAM: &str = "
import socketserver, sys, time
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        try:
            while data := self.request.recv(4096):
                self.request.sendall(data)
            time.sleep(0.5)
            self.request.sendall(b'bye\\n')
        except OSError:
            pass
server = socketserver.ThreadingTCPServer(('127.0.0.1', int(sys.argv[1])), Echo)
print('ready', flush=True)
server.serve_forever()
";

/// What the service answers to a client that says this and ends.
pub(super) fn conversation(said: &str) -> String {
    format!("{said}bye\n")
}

/// Starts an endpoint whose id is its host's name, which dials `dials` and offers the service `echo`. It returns the
/// endpoint and the service.
pub(super) fn start_endpoint(
    scene: &mut Scene<'_>,
    server: &str,
    host: &str,
    dials: &str,
) -> Result<[Process; 2]> {
    let dir = scene.host(host)?.dir().join("endpoint").display().to_string();
    scene.must(
        server,
        &module(scene, server, &["issue", "endpoint", host, "--out", &dir, "--proxy", dials])?,
    )?;
    let config = format!("{dir}/zone-endpoint.toml");
    let service = format!(
        "\n[[service]]\nname = \"echo\"\nport = 7\ntarget = \"127.0.0.1:{ECHO}\"\nend_to_end = \"off\"\n"
    );
    let text = String::from_utf8_lossy(&scene.host(host)?.get(&config)?).into_owned() + &service;
    scene.host(host)?.put(&config, text.as_bytes(), 0o644)?;
    let mut echo =
        scene.spawn(host, "echo", &Cmd::new("python3").args(["-c", ECHO_PROGRAM, &ECHO.to_string()]))?;
    echo.wait_for("ready", UP)?;
    let program = scene.places().program("zone-endpoint").display().to_string();
    let endpoint =
        scene.spawn(host, "zone-endpoint", &Cmd::new(program).args(["run", "--config", &config]))?;
    Ok([endpoint, echo])
}

/// An endpoint as a proxy lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) proxy: String,
    pub(super) id: String,
    pub(super) address: String,
    /// Parks, whether idle or busy.
    pub(super) parks: u64,
}

/// What `zone-module endpoints --json` lists. Proxies that do not answer are left out.
pub(super) fn listed(scene: &Scene<'_>, server: &str) -> Result<Vec<Listed>> {
    let cmd = module(scene, server, &["endpoints", "--json"])?;
    let text = scene.host(server)?.run(&cmd)?.stdout;
    let document: Value = serde_json::from_str(&text)
        .map_err(|error| Error::other(format!("{cmd} printed no JSON ({error}): {text:?}")))?;
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let at_proxy = |at: &Value| -> Vec<Listed> {
        at["endpoints"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| Listed {
                proxy: word(&at["proxy"]),
                id: word(&one["id"]),
                address: word(&one["address"]),
                parks: number(&one["idle"]) + number(&one["busy"]),
            })
            .collect()
    };
    Ok(document.as_array().into_iter().flatten().flat_map(at_proxy).collect())
}

/// The value of a metric of the proxy whose port 17488 is at `control`, without labels; 0 if it is not there.
pub(super) fn metric(scene: &Scene<'_>, server: &str, control: IpAddr, name: &str) -> Result<u64> {
    let dir = scene.host(server)?.dir().join("scraper");
    if !dir.exists() {
        let out = dir.display().to_string();
        let issue = module(scene, server, &["issue", "module-server", "scraper", "--out", &out])?;
        scene.host(server)?.must(&issue)?;
    }
    let file = |name: &str| dir.join(name).display().to_string();
    let curl = Cmd::new("curl")
        .args(["--silent", "--show-error", "--fail", "--max-time", "10"])
        .args(["--cacert", &file("zone-proxy-ca.crt"), "--cert", &file("module-server.crt")])
        .args(["--key", &file("module-server.key"), &format!("https://{control}:17488/metrics")]);
    let text = scene.host(server)?.must(&curl)?.stdout;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.and_then(|value| value.trim().parse().ok()).unwrap_or(0))
}
