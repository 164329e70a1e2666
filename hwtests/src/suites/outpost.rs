//! A managed machine on the internet: an endpoint with an ssh server of its own behind it.

use crate::lab::roots::ROOT_HOME;
use crate::lab::{Cmd, Context, Process, Result, Scene};
use crate::suites::parties::{SHARED, START_TIMEOUT, module};

/// The machine, and how the Module Server's host gets into it.
pub(crate) struct Outpost {
    host: String,
    config: String,
    _sshd: Process,
    _endpoint: Process,
}

impl Outpost {
    /// Starts sshd, and an endpoint that dials `dials`, on a host that has files of its own and the programs at
    /// [`SHARED`]. The endpoint's id is the host's name.
    pub(crate) fn start(scene: &mut Scene<'_>, server: &str, host: &str, dials: &str) -> Result<Self> {
        let (inside, outside) = (scene.host(server)?, scene.host(host)?);
        outside.put(&format!("{ROOT_HOME}/name"), format!("{host}\n").as_bytes(), 0o644)?;
        let dir = inside.dir().display().to_string();
        let config = format!("{dir}/outpost-ssh");
        scene.must(
            server,
            &Cmd::new("ssh-keygen").args([
                "-q",
                "-t",
                "ed25519",
                "-N",
                "",
                "-f",
                &format!("{dir}/outpost-key"),
            ]),
        )?;
        outside.put(
            &format!("{ROOT_HOME}/.ssh/authorized_keys"),
            &inside.get(&format!("{dir}/outpost-key.pub"))?,
            0o600,
        )?;
        let host_key = outside.get("/etc/ssh/ssh_host_ed25519_key.pub")?;
        let known = format!("{host} {}", String::from_utf8_lossy(&host_key));
        inside.put(&format!("{dir}/outpost-known"), known.as_bytes(), 0o644)?;
        let connect = module(scene, server, &["connect", "--end-to-end", "off", "%h:ssh"])?;
        let text = format!(
            "Host {host}\n  User root\n  IdentityFile {dir}/outpost-key\n  IdentitiesOnly yes\n  IdentityAgent none\n  \
             UserKnownHostsFile {dir}/outpost-known\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  \
             BatchMode yes\n  ProxyCommand {connect}\n"
        );
        inside.put(&config, text.as_bytes(), 0o644)?;

        let serve = "mkdir -p /run/sshd && exec /usr/sbin/sshd -D -e -o ListenAddress=127.0.0.1 -o UsePAM=no";
        let mut sshd = scene.spawn(host, "sshd", &Cmd::sh(serve))?;
        sshd.wait_for("Server listening", START_TIMEOUT)?;
        let issued = format!("{dir}/issued-{host}");
        let issue = module(scene, server, &["issue", "endpoint", host, "--out", &issued, "--proxy", dials])?;
        scene.must(server, &issue)?;
        for entry in std::fs::read_dir(&issued).during(|| format!("can't list {issued}"))?.flatten() {
            let mut bytes = std::fs::read(entry.path()).during(|| "can't read what was issued".to_owned())?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == "zone-endpoint.toml" {
                bytes.extend_from_slice(
                    b"\n[[service]]\nname = \"ssh\"\nport = 22\ntarget = \"127.0.0.1:22\"\nend_to_end = \"off\"\n",
                );
            }
            outside.put(&format!("{ROOT_HOME}/endpoint/{name}"), &bytes, 0o600)?;
        }
        let run = Cmd::new(format!("{SHARED}/zone-endpoint"))
            .args(["run", "--config"])
            .arg(format!("{ROOT_HOME}/endpoint/zone-endpoint.toml"));
        let endpoint = scene.spawn(host, "zone-endpoint", &run)?;
        Ok(Self { host: host.to_owned(), config, _sshd: sshd, _endpoint: endpoint })
    }

    /// `ssh OPTIONS` from the Module Server's host into it, through the proxy.
    pub(crate) fn ssh(&self, options: &[&str]) -> Cmd {
        Cmd::new("ssh").args(["-F", &self.config]).args(options.iter().copied()).arg(&self.host)
    }
}
