//! What a lab looks like: hosts, their NICs, and the links between them. Nothing here runs anything.
//!
//! A description says nothing about how a host is made beyond its [`Kind`], so the same hosts, NICs and links can
//! later be QEMU guests or real machines over ssh.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Serialize;

use super::error::{Error, Result};
use super::roots::Root;

/// The longest name of a network interface that Linux takes, bytes (`IFNAMSIZ` without its end, netdevice(7)).
const MAX_INTERFACE_NAME_BYTES: usize = 15;

/// Hosts and the links that connect their NICs.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Topology {
    /// Ethernet segments, by name. Every NIC on a link sees every other.
    pub links: Vec<String>,
    /// The hosts.
    pub hosts: Vec<Host>,
}

impl Topology {
    /// No host and no link yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a link.
    #[must_use]
    pub fn link(mut self, name: &str) -> Self {
        self.links.push(name.to_owned());
        self
    }

    /// Adds a host.
    #[must_use]
    pub fn host(mut self, host: Host) -> Self {
        self.hosts.push(host);
        self
    }

    /// Whether it can be made: names are short and used once, each NIC's link exists, addresses are addresses.
    pub fn validate(&self) -> Result<()> {
        let mut names = BTreeSet::new();
        for name in self.links.iter().chain(self.hosts.iter().map(|host| &host.name)) {
            if !is_name(name) || !names.insert(name) {
                return Err(Error::description(format!(
                    "{name:?} is no name for a link or host, or is used twice"
                )));
            }
        }
        for host in &self.hosts {
            let mut nics = BTreeSet::new();
            for nic in &host.nics {
                let at = format!("NIC {} of host {}", nic.name, host.name);
                if !is_name(&nic.name) || !nics.insert(&nic.name) {
                    return Err(Error::description(format!("{at}: not a name, or used twice")));
                }
                if !self.links.contains(&nic.link) {
                    return Err(Error::description(format!("{at}: there is no link {}", nic.link)));
                }
                nic.networks()?;
            }
            host.routes.iter().try_for_each(|route| route.parse().map(|_| ()))?;
        }
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    (1..=MAX_INTERFACE_NAME_BYTES).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// A machine.
#[derive(Debug, Clone, Serialize)]
pub struct Host {
    /// Its name, also its host name.
    pub name: String,
    /// What it is made of.
    pub kind: Kind,
    /// Its network interfaces beside the loopback.
    pub nics: Vec<Nic>,
    /// Routes beside those of its NICs' networks.
    pub routes: Vec<Route>,
    /// Whether it passes packets on between its NICs.
    pub forwards: bool,
    /// Units that are enabled before it boots. All others are disabled that the root's description names.
    pub enabled: Vec<String>,
    /// Files of this machine that it may read: (here, there).
    pub shared: Vec<(PathBuf, PathBuf)>,
}

/// What a host is made of.
#[derive(Debug, Clone, Serialize)]
pub enum Kind {
    /// A network namespace. It has this machine's files, of which [`crate::lab::Target::put`] changes none.
    Netns,
    /// A network namespace and a Debian root of its own, in which nothing runs by itself.
    Chroot(Root),
    /// A Debian root that systemd-nspawn booted, with a network namespace made like the others.
    Booted(Root),
}

impl Host {
    fn new(name: &str, kind: Kind) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            nics: Vec::new(),
            routes: Vec::new(),
            forwards: false,
            enabled: Vec::new(),
            shared: Vec::new(),
        }
    }

    /// See [`Kind::Netns`].
    pub fn netns(name: &str) -> Self {
        Self::new(name, Kind::Netns)
    }

    /// See [`Kind::Chroot`].
    pub fn chroot(name: &str, root: Root) -> Self {
        Self::new(name, Kind::Chroot(root))
    }

    /// See [`Kind::Booted`].
    pub fn booted(name: &str, root: Root) -> Self {
        Self::new(name, Kind::Booted(root))
    }

    /// Adds a NIC with its addresses, each with its prefix length, such as `192.0.2.1/24` or `2001:db8::1/64`.
    #[must_use]
    pub fn nic(mut self, name: &str, link: &str, addresses: &[&str]) -> Self {
        self.nics.push(Nic {
            name: name.to_owned(),
            link: link.to_owned(),
            addresses: addresses.iter().map(|&address| address.to_owned()).collect(),
        });
        self
    }

    /// Adds a route; `default` is written `0.0.0.0/0` or `::/0`.
    #[must_use]
    pub fn route(mut self, to: &str, via: &str) -> Self {
        self.routes.push(Route { to: to.to_owned(), via: via.to_owned() });
        self
    }

    /// Makes it a router.
    #[must_use]
    pub fn forwarding(mut self) -> Self {
        self.forwards = true;
        self
    }

    /// Enables units before it boots.
    #[must_use]
    pub fn enable(mut self, units: &[&str]) -> Self {
        self.enabled.extend(units.iter().map(|&unit| unit.to_owned()));
        self
    }

    /// Lets it read a file or directory of this machine.
    #[must_use]
    pub fn share(mut self, here: impl Into<PathBuf>, there: impl Into<PathBuf>) -> Self {
        self.shared.push((here.into(), there.into()));
        self
    }

    /// The root that it is made of, if it has one of its own.
    pub fn root(&self) -> Option<&Root> {
        match &self.kind {
            Kind::Netns => None,
            Kind::Chroot(root) | Kind::Booted(root) => Some(root),
        }
    }
}

/// A network interface.
#[derive(Debug, Clone, Serialize)]
pub struct Nic {
    /// Its name on the host.
    pub name: String,
    /// The link that it is plugged into.
    pub link: String,
    /// Its addresses with prefix lengths, IPv4 and IPv6.
    pub addresses: Vec<String>,
}

impl Nic {
    /// Its addresses, read.
    pub fn networks(&self) -> Result<Vec<IpNet>> {
        self.addresses
            .iter()
            .map(|text| {
                text.parse().map_err(|_| Error::description(format!("{text:?} is no address with a prefix")))
            })
            .collect()
    }

    /// Its first IPv4 address.
    pub fn ipv4(&self) -> Option<IpAddr> {
        self.address(IpAddr::is_ipv4)
    }

    /// Its first IPv6 address.
    pub fn ipv6(&self) -> Option<IpAddr> {
        self.address(IpAddr::is_ipv6)
    }

    fn address(&self, wanted: impl Fn(&IpAddr) -> bool) -> Option<IpAddr> {
        self.networks().ok()?.iter().map(IpNet::addr).find(|address| wanted(address))
    }
}

/// A route through a neighbour.
#[derive(Debug, Clone, Serialize)]
pub struct Route {
    /// The network behind it.
    pub to: String,
    /// The neighbour's address.
    pub via: String,
}

impl Route {
    fn parse(&self) -> Result<(IpNet, IpAddr)> {
        let bad = || Error::description(format!("{} via {} is no route", self.to, self.via));
        Ok((self.to.parse().map_err(|_| bad())?, self.via.parse().map_err(|_| bad())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_hosts() -> Topology {
        Topology::new()
            .link("wire")
            .host(Host::netns("a").nic("eth0", "wire", &["192.0.2.1/24", "2001:db8::1/64"]))
            .host(Host::netns("b").nic("eth0", "wire", &["192.0.2.2/24"]).route("0.0.0.0/0", "192.0.2.1"))
    }

    #[test]
    fn two_hosts_on_a_wire_can_be_made() {
        two_hosts().validate().expect("a good description");
        let nic = &two_hosts().hosts[0].nics[0];
        assert_eq!(nic.ipv4().map(|ip| ip.to_string()).as_deref(), Some("192.0.2.1"));
        assert_eq!(nic.ipv6().map(|ip| ip.to_string()).as_deref(), Some("2001:db8::1"));
    }

    #[test]
    fn mistakes_are_named() {
        let wrong = [
            two_hosts().host(Host::netns("a")),
            two_hosts().host(Host::netns("c").nic("eth0", "cable", &[])),
            two_hosts().host(Host::netns("c").nic("a-name-that-is-too-long", "wire", &[])),
            two_hosts().host(Host::netns("c").nic("eth0", "wire", &["192.0.2.3"])),
            two_hosts().host(Host::netns("c").route("default", "192.0.2.1")),
        ];
        for topology in wrong {
            let error = topology.validate().expect_err("a mistake");
            assert_eq!(error.to_string().lines().count(), 1);
        }
    }
}
