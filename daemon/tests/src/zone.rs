//! A zone as its Module Server sees it, by way of `zone-module`, and endpoints by way of `zone-endpoint`.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::host::Host;
use crate::process::{Process, succeed};
use crate::{program, programs};

/// A zone directory.
#[derive(Debug)]
pub struct Zone {
    programs: PathBuf,
    folder: TempDir,
}

impl Zone {
    /// A new zone called `plant`.
    pub fn init() -> Self {
        Self::init_of(&programs())
    }

    /// The same by the programs in another folder.
    pub fn init_of(programs: &Path) -> Self {
        let zone = Self { programs: programs.to_owned(), folder: tempfile::tempdir().expect("a folder") };
        succeed(&mut zone.cli(&["init", "plant"]), b"");
        zone
    }

    /// A zone with this host provisioned in it as `p1`.
    pub fn with(host: &Host) -> Self {
        let zone = Self::init();
        zone.provision(host);
        zone
    }

    /// Installs the programs of another version.
    pub fn install(&mut self, programs: &Path) {
        programs.clone_into(&mut self.programs);
    }

    /// `zone-module` in this zone.
    pub fn cli(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join("zone-module"));
        command.arg("--zone").arg(self.path()).args(words);
        command
    }

    /// Its directory.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("zone")
    }

    /// The command that provisions a host as `p1`; its payload goes on standard input.
    pub fn provision_command(&self, host: &Host) -> Command {
        let address = host.address.to_string();
        self.cli(&["provision", "--name", "p1", "--listen", &address])
    }

    /// Provisions a host as `p1`.
    pub fn provision(&self, host: &Host) -> String {
        succeed(&mut self.provision_command(host), host.payload().as_bytes())
    }

    /// A file or folder beside the zone.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The files that an endpoint needs, with these services.
    pub fn issue_endpoint(&self, id: &str, services: &[Service]) -> PathBuf {
        let out = self.beside(id);
        succeed(&mut self.cli(&["issue", "endpoint", id, "--out", &out.to_string_lossy()]), b"");
        let config = out.join("zone-endpoint.toml");
        let mut text = std::fs::read_to_string(&config).expect("the configuration");
        for service in services {
            text.push_str(&service.toml());
        }
        std::fs::write(config, text).expect("the configuration");
        out
    }

    /// The files that a Module Server needs.
    pub fn issue_module_server(&self, name: &str) -> PathBuf {
        let out = self.beside(name);
        succeed(&mut self.cli(&["issue", "module-server", name, "--out", &out.to_string_lossy()]), b"");
        out
    }

    /// An endpoint that runs, with these services; it has parked when this returns.
    pub fn endpoint(&self, host: &Host, id: &str, services: &[Service]) -> Process {
        let process = start_endpoint(&self.issue_endpoint(id, services));
        host.counts(&format!("{id} has parked:\n{}", process.said()), |_| {
            succeed(&mut self.cli(&["endpoints", "--json"]), b"").contains(&format!("\"{id}\""))
        });
        process
    }
}

/// `zone-endpoint` over the files in a folder.
pub fn start_endpoint(folder: &Path) -> Process {
    start_endpoint_by(&program("zone-endpoint"), folder)
}

/// The same by this program.
pub fn start_endpoint_by(program: &Path, folder: &Path) -> Process {
    Process::start(Command::new(program).arg("run").arg("--config").arg(folder.join("zone-endpoint.toml")))
}

/// A service of an endpoint.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name.
    pub name: &'static str,
    /// The number that stands for it.
    pub port: u16,
    /// Where it is, as `host:port`.
    pub target: String,
    /// Whether TLS runs inside the session.
    pub end_to_end: bool,
}

impl Service {
    fn toml(&self) -> String {
        let end_to_end = if self.end_to_end { "required" } else { "off" };
        format!(
            "\n[[service]]\nname = \"{}\"\nport = {}\ntarget = \"{}\"\nend_to_end = \"{end_to_end}\"\n",
            self.name, self.port, self.target
        )
    }
}
