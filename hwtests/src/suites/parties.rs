//! The parties of a zone on hosts of the lab, all of them the real programs: a proxy that is started by hand, its
//! Module Server, its endpoints.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

use crate::lab::{Cmd, Error, Process, Result, Scene};

/// How long a program may take to be up, or to notice something.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Where hosts with files of their own find the programs.
pub(crate) const SHARED: &str = "/opt/zone";
/// The user that a proxy started by hand runs as: one that every Debian has.
const USER: &str = "daemon";

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

/// A proxy that was started by hand, without systemd, packages and firewall.
pub(crate) struct ByHand {
    /// It, and what it logs.
    pub(crate) process: Process,
    dir: String,
}

impl ByHand {
    /// Starts it on a host; it waits to be provisioned. `config` is added to its configuration.
    pub(crate) fn start(scene: &mut Scene<'_>, host: &str, config: &str) -> Result<Self> {
        let dir = scene.host(host)?.dir().display().to_string();
        let config = format!("state_dir = \"{dir}/state\"\nruntime_dir = \"{dir}/run\"\n\n{config}");
        scene.host(host)?.put(&config_path(&dir), config.as_bytes(), 0o644)?;
        let folders = ["state", "run"].map(|name| format!("{dir}/{name}"));
        scene.must(
            host,
            &Cmd::new("install").args(["-d", "-m", "700", "-o", USER, "-g", USER]).args(folders),
        )?;
        let run = by_hand(scene, &dir, &["run"]);
        let mut process = scene.spawn(host, "zone-proxy", &run)?;
        process.wait_for(" runs", START_TIMEOUT)?;
        Ok(Self { process, dir })
    }

    /// `zone-proxy` as its user.
    pub(crate) fn cli(&self, scene: &Scene<'_>, words: &[&str]) -> Cmd {
        by_hand(scene, &self.dir, words)
    }
}

fn config_path(dir: &str) -> String {
    format!("{dir}/zone-proxy.toml")
}

fn by_hand(scene: &Scene<'_>, dir: &str, words: &[&str]) -> Cmd {
    let program = scene.places().program("zone-proxy").display().to_string();
    Cmd::new(program).args(words.iter().copied()).args(["--config", &config_path(dir)]).user(USER)
}

/// `zone-module` on a host, in its zone.
pub(crate) fn module(scene: &Scene<'_>, host: &str, words: &[&str]) -> Result<Cmd> {
    let zone = scene.host(host)?.dir().join("zone").display().to_string();
    let program = scene.places().program("zone-module").display().to_string();
    Ok(Cmd::new(program).args(["--zone", &zone]).args(words.iter().copied()))
}

/// Makes a zone on a host.
pub(crate) fn init_zone(scene: &mut Scene<'_>, host: &str) -> Result<()> {
    let cmd = module(scene, host, &["init", "plant"])?;
    scene.must(host, &cmd).map(|_| ())
}

/// Provisions the proxy that showed this payload, as `proxy1`. `settings` are options of `zone-module provision`.
pub(crate) fn provision(
    scene: &mut Scene<'_>,
    server: &str,
    payload: &str,
    control: IpAddr,
    settings: &[&str],
) -> Result<()> {
    provision_as(scene, server, "proxy1", payload, control, settings)
}

/// The same under another name.
pub(crate) fn provision_as(
    scene: &mut Scene<'_>,
    server: &str,
    name: &str,
    payload: &str,
    control: IpAddr,
    settings: &[&str],
) -> Result<()> {
    let control = control.to_string();
    let words = [&["provision", "--name", name, "--address", &control], settings].concat();
    let cmd = module(scene, server, &words)?.input(payload);
    scene.must(server, &cmd).map(|_| ())
}

/// Waits until the Module Server lists an endpoint as connected.
pub(crate) fn wait_parked(scene: &mut Scene<'_>, server: &str, id: &str) -> Result<()> {
    let cmd = module(scene, server, &["endpoints", "--json"])?;
    let host = scene.host(server)?;
    let parked = || host.run(&cmd).is_ok_and(|output| output.stdout.contains(&format!("\"{id}\"")));
    if scene.until(START_TIMEOUT, parked) {
        return Ok(());
    }
    let said = host.run(&cmd)?.text();
    Err(Error::other(format!(
        "endpoint {id} did not park within {} s: {}",
        START_TIMEOUT.as_secs(),
        said.trim()
    )))
}

/// What the service answers to a client that says this and ends.
pub(crate) fn conversation(said: &str) -> String {
    format!("{said}bye\n")
}

/// Starts an endpoint whose id is its host's name, which dials `dials` and offers the service `echo`. It returns the
/// endpoint and the service.
pub(crate) fn start_endpoint(
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
    echo.wait_for("ready", START_TIMEOUT)?;
    let program = scene.places().program("zone-endpoint").display().to_string();
    let endpoint =
        scene.spawn(host, "zone-endpoint", &Cmd::new(program).args(["run", "--config", &config]))?;
    Ok([endpoint, echo])
}

/// An endpoint as a proxy lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) proxy: String,
    pub(crate) id: String,
    pub(crate) address: String,
    /// Parks, whether idle or busy.
    pub(crate) parks: u64,
}

/// What `zone-module endpoints --json` lists. Proxies that do not answer are left out.
pub(crate) fn listed(scene: &Scene<'_>, server: &str) -> Result<Vec<Listed>> {
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
pub(crate) fn metric(scene: &Scene<'_>, server: &str, control: IpAddr, name: &str) -> Result<u64> {
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
