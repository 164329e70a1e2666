//! The zone's proxies as the zone directory remembers them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use zone_protocol::identity::Label;
use zone_protocol::ports;
use zone_protocol::provisioning::{PerPort, Provisioned};

use super::authority::HostName;
use super::directory::Zone;
use super::files;
use crate::error::{Error, Result};

/// What a proxy is told at provisioning, besides certificates and trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Of the two relay ports.
    pub ports: PerPort<u16>,
    /// Addresses to listen on.
    pub listen: PerPort<Vec<IpAddr>>,
    /// Networks that may connect; empty means any.
    pub allowed_networks: PerPort<Vec<IpNet>>,
    /// Limits by name.
    pub limits: BTreeMap<String, u64>,
}

impl Default for Settings {
    fn default() -> Self {
        let any = vec![IpAddr::from([0, 0, 0, 0])];
        Self {
            ports: PerPort { endpoint: ports::ENDPOINT, module_server: ports::MODULE_SERVER },
            listen: PerPort { endpoint: any.clone(), module_server: any },
            allowed_networks: PerPort { endpoint: Vec::new(), module_server: Vec::new() },
            limits: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Refuses ports that no proxy takes, before anything is sent.
    pub fn check(&self) -> Result<()> {
        let PerPort { endpoint, module_server } = self.ports;
        for (what, port) in [("endpoint", endpoint), ("Module Server", module_server)] {
            if let Some(why) = ports::reserved(port) {
                return Err(Error::Usage(format!("{port} can't be the {what} port: {why}")));
            }
        }
        if endpoint == module_server {
            let why = format!("{endpoint} can't be the endpoint port and the Module Server port at once");
            return Err(Error::Usage(why));
        }
        Ok(())
    }
}

/// One proxy of the zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyEntry {
    /// Its name in the zone.
    pub name: Label,
    /// Hosts (names or addresses) where its control port answers, the first one tried first.
    pub addresses: Vec<String>,
    /// The fixed port of provisioning and status.
    pub control_port: u16,
    /// The settings that it was told at provisioning.
    pub settings: Settings,
    /// Id of the provisioning in force.
    pub provisioning: String,
    /// Version of the trust document that it is known to have.
    pub trust_version: u64,
}

impl ProxyEntry {
    /// Of a proxy that was just provisioned, or is found to be.
    pub fn new(
        addresses: Vec<String>,
        control_port: u16,
        mut settings: Settings,
        provisioned: &Provisioned,
    ) -> Self {
        let shown = |purpose: &str| {
            let ports: Vec<_> = provisioned.ports.iter().filter(|p| p.purpose == purpose).collect();
            ports.first().map(|p| (p.port, ports.iter().map(|p| p.address).collect()))
        };
        if let Some((port, addresses)) = shown("endpoint") {
            (settings.ports.endpoint, settings.listen.endpoint) = (port, addresses);
        }
        if let Some((port, addresses)) = shown("module-server") {
            (settings.ports.module_server, settings.listen.module_server) = (port, addresses);
        }
        Self {
            name: provisioned.name.clone(),
            addresses,
            control_port,
            settings,
            provisioning: provisioned.id.clone(),
            trust_version: provisioned.trust_version,
        }
    }

    /// Hosts where endpoints find it.
    pub(crate) fn endpoint_hosts(&self) -> Vec<String> {
        self.hosts(&self.settings.listen.endpoint)
    }

    /// Hosts where Module Servers find it.
    pub(crate) fn module_server_hosts(&self) -> Vec<String> {
        self.hosts(&self.settings.listen.module_server)
    }

    /// Every host that its certificates should name.
    pub(crate) fn certificate_hosts(&self) -> Vec<HostName> {
        host_names(&self.addresses, &self.settings)
    }

    /// A wildcard says nothing: there it is the host that the control port has.
    fn hosts(&self, listen: &[IpAddr]) -> Vec<String> {
        let named: Vec<_> = listen.iter().filter(|a| !a.is_unspecified()).map(IpAddr::to_string).collect();
        if named.is_empty() { self.addresses.clone() } else { named }
    }
}

/// The hosts that certificates of a proxy at these addresses and with these settings should name.
pub(crate) fn host_names(addresses: &[String], settings: &Settings) -> Vec<HostName> {
    let listen = settings.listen.endpoint.iter().chain(&settings.listen.module_server);
    let mut hosts: Vec<_> = addresses.iter().map(|host| HostName::new(host)).collect();
    hosts.extend(listen.filter(|a| !a.is_unspecified()).copied().map(HostName::Address));
    hosts
}

impl Zone {
    /// The zone's proxies in order of provisioning.
    pub fn proxies(&self) -> Result<Vec<ProxyEntry>> {
        let path = self.path("proxies.json");
        serde_json::from_str(&files::read(&path)?).map_err(|e| Error::Malformed { path, why: e.to_string() })
    }

    /// One proxy.
    pub fn proxy(&self, name: &Label) -> Result<ProxyEntry> {
        let found = self.proxies()?.into_iter().find(|entry| entry.name == *name);
        found.ok_or_else(|| Error::NoSuchProxy(name.clone()))
    }

    /// Remembers a proxy, in place of what was known under its name.
    pub fn remember_proxy(&self, entry: ProxyEntry) -> Result<()> {
        let name = entry.name.clone();
        self.change_proxies(|proxies| match proxies.iter_mut().find(|known| known.name == entry.name) {
            Some(known) => *known = entry,
            None => proxies.push(entry),
        })?;
        self.forget_leaving(&name)
    }

    /// Forgets a proxy. Its certificates stay good until they run out.
    pub fn forget_proxy(&self, name: &Label) -> Result<()> {
        self.change_proxies(|proxies| proxies.retain(|known| known.name != *name))?;
        self.forget_leaving(name)?;
        self.forget_control_identity(name)
    }

    /// Notes which trust version a proxy has.
    pub fn note_trust_version(&self, name: &Label, version: u64) -> Result<()> {
        self.change_proxies(|proxies| {
            if let Some(known) = proxies.iter_mut().find(|known| known.name == *name) {
                known.trust_version = version;
            }
        })
    }

    fn change_proxies(&self, change: impl FnOnce(&mut Vec<ProxyEntry>)) -> Result<()> {
        let _lock = self.lock()?;
        let mut proxies = self.proxies()?;
        change(&mut proxies);
        self.write_proxies(&proxies)
    }

    pub(super) fn write_proxies(&self, proxies: &[ProxyEntry]) -> Result<()> {
        self.write_json("proxies.json", &proxies)
    }
}
