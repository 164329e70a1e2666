//! The parties of a zone on hosts of the lab, all of them the real programs: a proxy that is started by hand, its
//! Module Server, its endpoints.

use std::net::IpAddr;
use std::time::Duration;

use crate::lab::{Cmd, Error, Process, Result, Scene};

/// How long a program may take to be up, or to notice something.
pub(crate) const UP: Duration = Duration::from_secs(20);
/// Where hosts with files of their own find the programs.
pub(crate) const SHARED: &str = "/opt/zone";
/// The user that a proxy started by hand runs as: one that every Debian has.
const USER: &str = "daemon";

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
        process.wait_for(" runs", UP)?;
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
    if scene.until(UP, parked) {
        return Ok(());
    }
    let said = host.run(&cmd)?.text();
    Err(Error::other(format!("endpoint {id} did not park within {} s: {}", UP.as_secs(), said.trim())))
}
